"""What a user sees of a failure in their own code: their frames, and none of ours above them."""

from __future__ import annotations

import logging
import traceback
import urllib.error
import urllib.request
from typing import Any

import pytest

import servegraph
from servegraph.errors import RequestFailedError
from servegraph.runtimes.function import ServingFunction


class Fails(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        return self.get_param("nothing", None) or self.inner(request)

    def inner(self, request: Any) -> Any:
        raise ValueError("three features, not four")


def slow_to_fail(body: Any) -> Any:
    raise ValueError("three features, not four")


async def fails_in_the_loop(body: Any) -> Any:
    raise ValueError("three features, not four")


def function(kind: str) -> ServingFunction:
    fn = servegraph.new_function("failing")
    if kind == "router":
        fn.add_model("m", class_name=Fails)
    else:
        engine, handler = {
            "sync": ("sync", slow_to_fail),
            "async": ("async", slow_to_fail),
            "coroutine": ("async", fails_in_the_loop),
        }[kind]
        fn.set_topology("flow", engine=engine).to(name="s", handler=handler).to(name="end", handler=len).respond()
    return fn


KINDS = {"router": "/v2/models/m/infer", "sync": "/", "async": "/", "coroutine": "/"}


@pytest.mark.parametrize("kind", list(KINDS))
def test_failure_in_the_mock_begins_with_the_users_own_line_and_is_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with function(kind).to_mock_server() as server, pytest.raises(RequestFailedError) as caught:
        server.test(KINDS[kind], {"inputs": [[1]]})
    text = "".join(traceback.format_exception(caught.value))
    first = next(line for line in text.splitlines() if line.startswith("  File "))
    assert __file__ in first
    assert "engine.py" not in text
    assert "Traceback" not in caplog.text


def test_failure_in_the_mock_that_is_not_raised_is_logged_with_the_users_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with function("router").to_mock_server() as server:
        assert server.test(KINDS["router"], {"inputs": [[1]]}, silent=True).status_code == 500
    shown = [line for line in caplog.text.splitlines() if line.startswith("  File ")]
    assert [line.rpartition(" in ")[2] for line in shown] == ["predict", "inner"]


def test_failure_on_the_server_is_logged_with_the_users_lines_and_the_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": "mine-7"}
    with caplog.at_level(logging.ERROR), function("router").serve(http_port=0, block=False) as running:
        request = urllib.request.Request(running.url + KINDS["router"], b'{"inputs": [[1]]}', headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
    caught.value.close()
    shown = [line for line in caplog.text.splitlines() if line.startswith("  File ")]
    assert [line.rpartition(" in ")[2] for line in shown] == ["predict", "inner"]
    assert "request mine-7 failed" in caplog.text


def test_failure_without_any_line_of_the_users_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    fn = servegraph.new_function("builtin")
    fn.set_topology("flow", engine="sync").to(name="s", handler=len).respond()
    with fn.to_mock_server() as server, pytest.raises(RequestFailedError) as caught:
        server.test("/", 7)
    cause = caught.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, TypeError)
    assert cause.__cause__.__traceback__ is not None
