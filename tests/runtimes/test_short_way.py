"""Requests that are answered before a task is made of them get what the ordinary way gives."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from raw_http import Answer, Served

import servegraph
from servegraph.runtimes.serve import RunningServer
from servegraph.settings import load_settings


class Model(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: dict[str, Any]) -> list[Any]:
        if request["inputs"] == ["fail"]:
            raise ValueError("secret=hunter2")
        rows: list[Any] = request["inputs"]
        return rows

    def op_page(self, event: servegraph.Event) -> servegraph.Response:
        return servegraph.Response({"x-kind": "page"}, "<p>", "text/html", 201)


@pytest.fixture(scope="module")
def counted() -> Iterator[tuple[Served, list[bool]]]:
    """A server whose model is trusted from the start, and for each request whether the short way answered it."""
    fn = servegraph.new_function("short-way")
    fn.add_model("m", class_name=Model)
    running = RunningServer(fn, load_settings(environ={}, overrides={"http_port": 0, "executor.inline": "always"}))
    application: Any = running.application
    ordinary, short = application.answer_now, []

    def answer_now(*args: Any) -> Any:
        answer = ordinary(*args)
        short.append(answer is not None)
        return answer

    application.answer_now = answer_now
    with running.start():
        yield Served(int(running.url.rpartition(":")[2])), short


def _ask(server: Served, body: Any, headers: dict[str, str] | None = None) -> Answer:
    """The answer to a request that is sent in one piece: head and body arrive together."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "x", "content-type": "application/json", "content-length": str(len(raw)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with server.connect() as client:
        client.sendall(f"POST /v2/models/m/infer HTTP/1.1\r\n{head}\r\n".encode() + raw)
        with http.client.HTTPResponse(client) as answer:
            answer.begin()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def _comparable(answer: Any) -> Any:
    body = answer.body
    if "json" in answer.headers.get("content-type", ""):
        body = {k: v for k, v in json.loads(body).items() if k not in ("id", "timestamp", "request_id")}
    fields = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id", "content-length")}
    return answer.status, fields, body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"inputs": [1, 2]}, 200),
        ({"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}, 200),
        ({"inputs": 1}, 422),
        ({"inputs": ["fail"]}, 500),
        (b"{", 400),
        (b"[" * 100 + b"]" * 100, 400),
    ],
)
def test_short_way_gives_the_answer_of_the_ordinary_way(
    counted: tuple[Served, list[bool]], body: Any, status: int
) -> None:
    server, short = counted
    _ask(server, {"inputs": [0]})  # from now on the path is known
    short.clear()
    quick = _ask(server, body)
    assert short == [True]
    # A header that the short way does not read sends the request the ordinary way.
    ordinary = _ask(server, body, {"x-request-id": "mine"})
    assert short == [True, False]
    assert quick.status == status
    assert _comparable(quick) == _comparable(ordinary)
    assert len(quick.headers["x-request-id"]) == 32
    assert ordinary.headers["x-request-id"] == "mine"
    assert b"hunter2" not in quick.body


@pytest.mark.parametrize(
    "headers", [{"content-type": "application/json; charset=utf-8"}, {"x-request-timeout-ms": "5"}]
)
def test_requests_that_ask_for_more_go_the_ordinary_way(
    counted: tuple[Served, list[bool]], headers: dict[str, str]
) -> None:
    server, short = counted
    _ask(server, {"inputs": [0]})
    short.clear()
    assert _ask(server, {"inputs": [1]}, headers).status == 200
    assert short == [False]


def test_body_that_names_another_operation_goes_the_ordinary_way(counted: tuple[Served, list[bool]]) -> None:
    server, short = counted
    _ask(server, {"inputs": [0]})
    short.clear()
    answer = _ask(server, {"inputs": [0], "operation": "page"})
    assert (answer.status, answer.headers["x-kind"], answer.body) == (201, "page", b"<p>")
    assert short == [False]
