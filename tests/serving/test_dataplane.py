from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from servegraph.errors import (
    DeadlineError,
    MethodNotAllowedError,
    OverloadedError,
    RemoteError,
    StepError,
    UnprocessableError,
)
from servegraph.graph.calls import Offloader
from servegraph.graph.compile import Compiler
from servegraph.graph.context import GraphContext
from servegraph.graph.events import DROP, Event, Response
from servegraph.graph.flow import FlowGraph
from servegraph.serving.dataplane import DataPlane, DataPlaneOptions, Reply, no_result
from servegraph.serving.limits import JsonLimits

LIMITS = DataPlaneOptions(json_limits=JsonLimits(8, 100))


def handle(
    code: Callable[[Any], Any],
    body: Any = b"",
    content_type: str | None = None,
    options: DataPlaneOptions | None = None,
    **step: Any,
) -> Reply:
    """The reply of a graph of one step, on an event loop."""
    graph = FlowGraph()
    graph.to(code, "s", **step).respond()
    offloader = Offloader(2)
    plane = DataPlane(Compiler(graph, GraphContext()).compile(), GraphContext(), offloader, options)
    try:
        return asyncio.run(plane.handle(Event(body, content_type, method="POST", event_id="e1")))
    finally:
        offloader.close()


def seen(body: Any, content_type: str | None = None, options: DataPlaneOptions | None = None) -> Any:
    """What a step gets of a body."""
    bodies: list[Any] = []
    reply = handle(bodies.append, body, content_type, options)
    assert reply.status == 200, reply.body
    return bodies[0]


def problem(reply: Reply) -> Any:
    assert reply.content_type == "application/problem+json"
    return json.loads(reply.body)


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize(
    "content_type",
    [None, "", "json", "application/json", "APPLICATION/JSON", "application/json; charset=utf-8", "text/json",
     "application/json;charset=UTF8", "application/problem+json", "application/cloudevents+json; v=1"],
)  # fmt: skip
def test_json_body_of_any_json_type_is_read(content_type: str | None, options: DataPlaneOptions | None) -> None:
    assert seen('{"ä": [1]}'.encode(), content_type, options) == {"ä": [1]}
    assert seen('{"ä": [1]}', content_type, options) == {"ä": [1]}


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "image/png", "application/xml"])
def test_body_of_another_type_is_left_as_it_is(content_type: str, options: DataPlaneOptions | None) -> None:
    assert seen(b'{"a": 1}', content_type, options) == b'{"a": 1}'


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize("body", [b"just text", b"\xff\xfe\x00", b"{broken", "text", b"[1,"])
def test_body_of_no_type_that_is_no_json_is_left_as_it_is(body: Any, options: DataPlaneOptions | None) -> None:
    assert seen(body, None, options) == body


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize(("body", "value"), [(b"123", 123), (b"null", None), (b'"x"', "x"), (b" [1] ", [1])])
def test_body_of_no_type_that_is_json_is_read(body: bytes, value: Any, options: DataPlaneOptions | None) -> None:
    assert seen(body, None, options) == value


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize("content_type", [None, "application/json", "application/json; charset=utf-16"])
def test_empty_body_is_none(content_type: str | None, options: DataPlaneOptions | None) -> None:
    assert seen(b"", content_type, options) is None


def test_empty_body_of_a_binary_type_is_empty_bytes() -> None:
    assert seen(b"", "application/octet-stream") == b""


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize("charset", ["utf-16", "ISO-8859-1", '"utf-32"', "cp1252"])
def test_json_body_in_another_charset_is_decoded(charset: str, options: DataPlaneOptions | None) -> None:
    body = '{"a": "grüß"}'.encode(charset.strip('"'))
    assert seen(body, f"application/json; charset={charset}", options) == {"a": "grüß"}


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize(
    ("charset", "body"),
    [("nope", b"{}"), ("utf-16", b"{}x"), ("hex", b"7b7d"), ("punycode", b"\x00"), ("ascii", b"\xff")],
)
def test_json_body_in_a_charset_that_cannot_be_read_is_415(
    charset: str, body: bytes, options: DataPlaneOptions | None
) -> None:
    reply = handle(lambda b: b, body, f"application/json; charset={charset}", options)
    assert reply.status == 415
    assert charset in problem(reply)["detail"]


@pytest.mark.parametrize("options", [None, LIMITS])
def test_json_body_with_half_a_character_is_the_callers_fault(options: DataPlaneOptions | None) -> None:
    reply = handle(lambda b: b, b'{"a": "+2AA-"}', "application/json; charset=utf-7", options)
    assert reply.status in (400, 415)


@pytest.mark.parametrize("options", [None, LIMITS])
@pytest.mark.parametrize("body", [b"{broken", b"NaN", b"{'a': 1}", b"\xff", b"[1e999]", b'{"a": NaN}'])
def test_json_body_that_is_none_is_400(body: bytes, options: DataPlaneOptions | None) -> None:
    reply = handle(lambda b: b, body, "application/json", options)
    assert reply.status == 400
    assert "not valid JSON" in problem(reply)["detail"]


@pytest.mark.parametrize("content_type", [None, "application/json", "application/json; charset=utf-16"])
def test_json_body_beyond_the_limits_is_400(content_type: str | None) -> None:
    for text, words in (("[" * 9 + "]" * 9, "deeper than 8"), (json.dumps(list(range(101))), "more than 100 values")):
        encoded = text.encode("utf-16" if content_type and "16" in content_type else "utf-8")
        reply = handle(lambda b: b, encoded, content_type, LIMITS)
        assert reply.status == 400
        assert words in problem(reply)["detail"]


def test_default_content_type_counts_where_a_request_names_none() -> None:
    options = DataPlaneOptions(default_content_type="text/plain")
    assert seen(b"[1]", None, options) == b"[1]"
    assert seen(b"[1]", "application/json", options) == [1]


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, 0.5, False, True, {}, [], {"a": [1, None]}, "", (1, 2)])
def test_python_value_as_answer_is_json(value: Any) -> None:
    reply = handle(lambda b: value)
    assert reply.status == 200
    if isinstance(value, str):
        assert (reply.content_type, reply.body) == ("text/plain; charset=utf-8", b"")
    else:
        assert reply.content_type == "application/json"
        assert json.loads(reply.body) == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.arange(3), [0, 1, 2]),
        ({"a": np.float32(1.5), "b": np.int64(2), "c": np.bool_(True)}, {"a": 1.5, "b": 2, "c": True}),
        ([np.array([[1.5]])], [[[1.5]]]),
        ({"when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}, {"when": "2026-01-02T00:00:00+00:00"}),
        ({1: "a"}, {"1": "a"}),
        ({"s": {3, 1}}, {"s": [1, 3]}),
    ],
)
def test_answer_with_arrays_times_and_sets_is_json(value: Any, expected: Any) -> None:
    reply = handle(lambda b: value)
    assert (reply.status, json.loads(reply.body)) == (200, expected)


def test_answer_that_is_bytes_or_text_goes_out_as_it_is() -> None:
    reply = handle(lambda b: b"\x00\xff")
    assert (reply.body, reply.content_type) == (b"\x00\xff", "application/octet-stream")
    reply = handle(lambda b: "grüß")
    assert (reply.body, reply.content_type) == ("grüß".encode(), "text/plain; charset=utf-8")
    reply = handle(lambda b: "half \ud800")
    assert reply.status == 500


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf], {"a": np.array([np.nan])}])
def test_answer_with_nan_is_null_or_an_error_as_chosen(value: Any) -> None:
    reply = handle(lambda b: value)
    assert reply.status == 200
    assert b"null" in reply.body
    reply = handle(lambda b: value, options=DataPlaneOptions(refuse_nan=True))
    assert reply.status == 500
    assert "JSON cannot hold" in problem(reply)["detail"]


@pytest.mark.parametrize("value", [object(), {"a": object()}, {("a",): 1}, [lambda: 1]])
def test_answer_that_has_no_json_is_500_and_says_where(value: Any) -> None:
    reply = handle(lambda b: value)
    assert reply.status == 500
    assert "cannot be written as JSON" in problem(reply)["detail"]


class _Telling:
    def tolist(self) -> Any:
        raise ValueError("secret=hunter2")


def test_answer_whose_own_method_raises_does_not_tell_what() -> None:
    reply = handle(lambda b: {"x": _Telling()})
    assert reply.status == 500
    assert b"hunter2" not in reply.body


def test_answer_nested_too_deeply_is_500() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert handle(lambda b: deep).status == 500


@pytest.mark.parametrize(
    ("response", "status", "body", "content_type"),
    [
        (Response(), 200, b"", None),
        (Response(body={"a": 1}), 200, b'{"a":1}', "application/json"),
        (Response(body=[], status_code=201), 201, b"[]", "application/json"),
        (Response(body=0), 200, b"0", "application/json"),
        (Response(body="t"), 200, b"t", "text/plain; charset=utf-8"),
        (Response(body=b"b"), 200, b"b", "application/octet-stream"),
        (Response(body="<p>", content_type="text/html"), 200, b"<p>", "text/html"),
        (Response(body=np.arange(2), content_type="application/x"), 200, b"[0,1]", "application/x"),
        (Response(body={"e": 1}, status_code=404), 404, b'{"e":1}', "application/json"),
    ],
)
def test_response_keeps_what_it_says(response: Response, status: int, body: bytes, content_type: str | None) -> None:
    reply = handle(lambda b: response)
    assert (reply.status, reply.body, reply.content_type) == (status, body, content_type)


def test_response_keeps_its_headers() -> None:
    reply = handle(lambda b: Response({"X-A": "1"}, "x"))
    assert dict(reply.headers or {}) == {"X-A": "1"}


@pytest.mark.parametrize("headers", [{"X A": "1"}, {"X-A": "ž"}, {"": "x"}, {"X\n": "1"}, {"Content-Length": "3"}])
def test_response_whose_headers_cannot_be_sent_is_500(headers: Mapping[str, str]) -> None:
    reply = handle(lambda b: Response(headers, "x"))
    assert reply.status == 500
    assert "header" in problem(reply)["detail"]


def test_response_cannot_smuggle_a_header_line() -> None:
    reply = handle(lambda b: Response({"X-A": "a\r\nSet-Cookie: b", "X-N": 5}, "x", "text/x\r\nX-B: 1"))  # type: ignore[dict-item]
    assert dict(reply.headers or {}) == {"X-A": "a  Set-Cookie: b", "X-N": "5"}
    assert reply.content_type == "text/x  X-B: 1"


@pytest.mark.parametrize("status", [0, 99, 101, 600, 1000, "200", None, 200.5, True])
def test_response_with_a_strange_status_is_500(status: Any) -> None:
    reply = handle(lambda b: Response(body="x", status_code=status))
    assert reply.status == 500
    assert "status" in problem(reply)["detail"]


@pytest.mark.parametrize("status", [204, 304])
def test_response_that_may_hold_no_body_is_sent_without_one(status: int) -> None:
    reply = handle(lambda b: Response(body={"a": 1}, status_code=status))
    assert (reply.status, reply.body) == (status, b"")


@pytest.mark.parametrize("options", [{}, {"full_event": True}])
def test_no_result_is_204_and_says_why(options: dict[str, Any]) -> None:
    reply = handle(lambda b: DROP, **options)
    assert (reply.status, reply.body) == (204, b"")
    assert "'s'" in (reply.headers or {})["x-no-result"]


def test_no_result_with_any_text_is_one_printable_header() -> None:
    text = (no_result("step 'ž\r\n\x00' ended the event").headers or {})["x-no-result"]
    assert text.isascii()
    assert text.isprintable()


# -- failing ----------------------------------------------------------------------------------------------------------


def fails(exc: BaseException) -> Callable[[Any], Any]:
    def code(body: Any) -> Any:
        raise exc

    return code


@pytest.mark.parametrize(
    "exc", [ValueError("secret=hunter2"), KeyError("hunter2"), MemoryError("hunter2"), RecursionError("hunter2"),
            StopIteration("hunter2"), ExceptionGroup("hunter2", [ValueError("x")])],
)  # fmt: skip
def test_exception_of_user_code_is_500_and_its_text_stays_inside(exc: Exception) -> None:
    reply = handle(fails(exc), b"{}")
    told = problem(reply)
    assert reply.status == told["status"] == 500
    assert (told["step"], told["request_id"], told["title"]) == ("s", "e1", "Internal Server Error")
    assert type(exc).__name__ in told["detail"]
    assert b"hunter2" not in reply.body


def test_exception_of_user_code_raised_from_another_keeps_both_inside() -> None:
    def code(body: Any) -> Any:
        try:
            raise ValueError("hunter2")
        except ValueError as exc:
            raise RuntimeError("hunter3") from exc

    body = handle(code).body
    assert b"hunter" not in body


def test_traceback_is_sent_where_it_is_asked_for() -> None:
    told = problem(handle(fails(ValueError("hunter2")), options=DataPlaneOptions(show_traceback=True)))
    assert "ValueError: hunter2" in told["traceback"]
    assert "hunter2" in told["detail"]


@pytest.mark.parametrize(
    ("exc", "status"),
    [(UnprocessableError("no"), 422), (DeadlineError("late"), 504), (RemoteError("gone"), 502), (StepError("x"), 500)],
)
def test_error_of_ours_keeps_status_and_words(exc: Exception, status: int) -> None:
    reply = handle(fails(exc))
    assert reply.status == status
    assert problem(reply)["detail"] == str(exc)
    assert problem(reply)["step"] == "s"


def test_error_headers_tell_when_to_retry_and_what_is_allowed() -> None:
    assert (handle(fails(OverloadedError("full", retry_after=3))).headers or {})["retry-after"] == "3"
    assert (handle(fails(MethodNotAllowedError("no", allow=("GET", "HEAD")))).headers or {})["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("exc", "status"),
    [(ValueError("x"), 400), (RemoteError("x"), 400), (UnprocessableError("x"), 422), (OverloadedError("x"), 503)],
)
def test_mlruns_status_codes_are_given_where_asked_for(exc: Exception, status: int) -> None:
    reply = handle(fails(exc), options=DataPlaneOptions(mlrun_status_codes=True))
    assert reply.status == status
    assert problem(reply)["status"] == status


def test_failure_of_any_size_gives_a_small_answer() -> None:
    reply = handle(fails(StepError("x" * 1_000_000)))
    assert len(reply.body) < 20_000
