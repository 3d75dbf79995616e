"""What answers may hold: nothing of an exception's text, no header that a caller planted, one answer per request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from raw_http import Served, post, read_all, serving

import servegraph

SECRET = "hunter2"


class Leaky(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def preprocess(self, request: Any, operation: str) -> Any:
        self._raise(request, "preprocess")
        return request

    def predict(self, request: dict[str, Any]) -> list[Any]:
        self._raise(request, "predict")
        rows: list[Any] = request["inputs"]
        return rows

    def postprocess(self, response: dict[str, Any]) -> dict[str, Any]:
        if response["outputs"] == ["postprocess"]:
            raise KeyError(SECRET)
        return response

    def op_own(self, event: Any) -> Any:
        raise RuntimeError(SECRET)

    @staticmethod
    def _raise(request: Any, hook: str) -> None:
        if request["inputs"] == [hook]:
            raise RuntimeError(f"password={SECRET}") from ValueError(SECRET)


@pytest.fixture(scope="module")
def models() -> Iterator[Served]:
    fn = servegraph.new_function("leaky")
    fn.add_model("leaky", class_name=Leaky)
    with serving(fn) as server:
        yield server


@pytest.fixture(scope="module")
def flow() -> Iterator[Served]:
    fn = servegraph.new_function("answers")
    graph = fn.set_topology("flow", engine="async")
    graph.to(handler=lambda body: servegraph.Response(**body), name="answer").respond()
    with serving(fn) as server:
        for _ in range(30):  # so that it is answered on the short way too
            assert server.ask("/", {"body": "x"}).status == 200
        yield server


@pytest.mark.parametrize("hook", ["preprocess", "predict", "postprocess"])
def test_text_of_an_exception_reaches_neither_the_caller_nor_the_metrics(models: Served, hook: str) -> None:
    for operation in ("infer", "own"):
        answer = models.ask(f"/v2/models/leaky/{operation}", {"inputs": [hook]}, {"x-request-id": "r-1"})
        assert answer.status == 500
        assert json.loads(answer.body)["request_id"] == answer.headers["x-request-id"] == "r-1"
        assert SECRET not in answer.body.decode() + str(answer.headers) + models.ask("/metrics").body.decode()


@pytest.mark.parametrize(
    "field",
    [
        ("mlrun-event-path", "/v2/models/none"), ("x-nuclio-path", "/v2/models/none"),
        ("x-http-method-override", "GET"), ("x-original-url", "/metrics"),
        ("x-forwarded-prefix", "/x"), ("x-rewrite-url", "/metrics"),
    ],
)  # fmt: skip
def test_headers_change_no_routing(models: Served, field: tuple[str, str]) -> None:
    for _ in range(12):
        answer = models.ask("/v2/models/leaky/infer", {"inputs": [7]}, dict([field]))
        assert (answer.status, json.loads(answer.body)["outputs"]) == (200, [7])


@pytest.mark.parametrize("value", ["a\tb", "x" * 129, "\xe9"])
def test_request_id_that_cannot_be_sent_back_is_replaced(models: Served, value: str) -> None:
    answer = models.ask("/v2/models/leaky/infer", {"inputs": [7]}, {"x-request-id": value})
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ({"body": "x", "status_code": 204}, 204),
        ({"body": "x", "status_code": 304}, 304),
        ({"body": "x", "status_code": 99}, 500),
        ({"body": "x", "headers": {"content-length": "0"}}, 500),
        ({"body": "x", "headers": {"transfer-encoding": "chunked"}}, 500),
        ({"body": "x", "headers": {"x": "\u20ac"}}, 500),
        ({"body": "x", "content_type": "text/\u20ac"}, 500),
        ({"body": "x", "headers": {"x": "a\r\nplanted: 1"}}, 200),
        ({"body": "x", "content_type": "text/plain\r\nplanted: 1"}, 200),
    ],
)
def test_answer_that_user_code_gives_is_one_answer(flow: Served, response: dict[str, Any], status: int) -> None:
    last = post("/", {"body": "last"}).replace(b"host: x", b"host: x\r\nconnection: close")
    for fields in ((), (b"x-request-id: r",)):  # the short way and the long one
        with contextlib.closing(flow.connect()) as client:
            client.sendall(post("/", response, *fields) + last)
            answers = read_all(client).split(b"HTTP/1.1 ")[1:]
        assert [int(a[:3]) for a in answers] == [status, 200]
        assert answers[1].endswith(b"\r\n\r\nlast")
        assert b"\r\nplanted" not in answers[0]


def test_head_is_answered_as_get_without_its_body(models: Served) -> None:
    for path in ("/v2/models", "/v2/models/leaky", "/v2/models/leaky/ready", "/v2/health/ready"):
        head, get = models.ask(path, method="HEAD"), models.ask(path)
        assert (head.status, head.body) == (get.status, b"")


def test_health_with_a_slash_too_many_is_no_business_of_a_router(models: Served) -> None:
    assert json.loads(models.ask("/v2/health/ready/").body) == {"ready": True}
    assert json.loads(models.ask("/v2/health/live/").body) == {"live": True}
