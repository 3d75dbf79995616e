from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import servegraph
from servegraph.errors import GraphError, ModelLoadError, RequestFailedError, ServegraphError
from servegraph.graph.events import DROP, Event, Response, Trigger
from servegraph.runtimes.mock import MockServer


def same(body: Any) -> Any:
    return body


async def later(body: Any) -> Any:
    await asyncio.sleep(0)
    return body


def boom(body: Any) -> Any:
    raise ValueError("user trouble")


def mock(*steps: Any, engine: str = "async", **options: Any) -> MockServer:
    """A mock server of a line of steps whose last one answers."""
    fn = servegraph.new_function("f")
    at: Any = fn.set_topology("flow", engine=engine)
    for i, code in enumerate(steps):
        at = at.to(code, f"s{i}", **options)
    at.respond()
    return fn.to_mock_server()


@pytest.fixture(params=["plain", "loop"])
def echo(request: pytest.FixtureRequest) -> Iterator[MockServer]:
    """Answers with what the graph sees of a request, without and with an event loop."""

    def see(event: Event) -> Event:
        event.body = {
            "body": event.body,
            "path": event.path,
            "method": event.method,
            "id": event.id,
            "type": event.content_type,
            "header": event.get_header("x-a"),
            "trigger": event.trigger.kind,
            "offset": event.offset,
        }
        return event

    async def see_later(event: Event) -> Event:
        return see(event)

    with mock(see_later if request.param == "loop" else see, full_event=True) as server:
        assert server.plan.plain is (request.param == "plain")
        yield server


# -- requests ---------------------------------------------------------------------------------------------------------


def test_request_has_what_it_is_given(echo: MockServer) -> None:
    told = echo.test(
        "/p", {"x": 1}, "PUT", {"X-A": "h"}, "application/json", event_id="e", trigger=Trigger("cron"), offset=3
    )
    assert told == {"body": {"x": 1}, "path": "/p", "method": "PUT", "id": "e", "type": "application/json",
                    "header": "h", "trigger": "cron", "offset": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "method"), [(None, "GET"), ({}, "POST"), (0, "POST"), ("", "POST"), ([], "POST"), ({"a": 1}, "POST")]
)
def test_request_without_a_method_is_get_only_without_a_body(echo: MockServer, body: Any, method: str) -> None:
    assert echo.test("/", body)["method"] == method


def test_request_of_text_or_bytes_is_read_as_json(echo: MockServer) -> None:
    assert echo.test("/", '{"a": 1}')["body"] == {"a": 1}
    assert echo.test("/", b"[1]")["body"] == [1]
    assert echo.test("/", "plain text")["body"] == "plain text"
    assert echo.test("/", "[1]", content_type="text/plain")["body"] == "[1]"


def test_requests_without_an_id_have_different_ones(echo: MockServer) -> None:
    assert echo.test()["id"] != echo.test()["id"]


def test_python_objects_go_through_as_they_are() -> None:
    thing = object()
    with mock(same) as server:
        assert server.test("/", thing) is thing
    with mock(later) as server:
        assert server.test("/", thing) is thing


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [same, later])
def test_answer_is_the_body_or_a_response(code: Any) -> None:
    with mock(code) as server:
        assert server.test("/", {"a": 1}) == {"a": 1}
        answer = server.test("/", {"a": 1}, get_body=False)
        assert isinstance(answer, Response)
        assert (answer.status_code, answer.body) == (200, {"a": 1})


def test_answer_that_is_a_response_is_its_body_or_itself() -> None:
    with mock(lambda body: Response({"X": "1"}, {"b": body}, status_code=201)) as server:
        assert server.test("/", 1) == {"b": 1}
        answer = server.test("/", 1, get_body=False)
        assert (answer.status_code, answer.headers) == (201, {"X": "1"})


def test_answer_that_is_a_failed_response_raises_unless_silent() -> None:
    with mock(lambda body: Response(body="gone", status_code=410)) as server:
        with pytest.raises(RequestFailedError, match=r"failed \(410\): gone") as caught:
            server.test("/", 1)
        assert (caught.value.status, caught.value.body) == (410, "gone")
        assert server.test("/", 1, silent=True).status_code == 410


def test_no_answer_is_none_or_204_with_the_reason() -> None:
    with mock(lambda body: DROP) as server:
        assert server.test("/", 1) is None
        answer = server.test("/", 1, get_body=False)
        assert answer.status_code == 204
        assert "'s0'" in answer.headers["x-no-result"]


@pytest.mark.parametrize("before", [same, later])
def test_failure_raises_with_the_users_exception_as_its_cause(before: Any) -> None:
    with mock(before, boom) as server:
        with pytest.raises(RequestFailedError, match=r"failed \(500\).*user trouble") as caught:
            server.test("/", 1)
        assert isinstance(caught.value, RuntimeError)
        problem: Any = caught.value.body
        assert problem["step"] == "s1"
        causes, exc = [], caught.value.__cause__
        while exc is not None:
            causes.append(type(exc))
            exc = exc.__cause__
        assert ValueError in causes
        text = "".join(traceback.format_exception(caught.value))
        assert text.index("ValueError: user trouble") < text.index("RequestFailedError")
        assert 'raise ValueError("user trouble")' in text


@pytest.mark.parametrize("before", [same, later])
def test_failure_with_silent_is_the_response(before: Any) -> None:
    with mock(before, boom) as server:
        answer = server.test("/", 1, silent=True)
        assert isinstance(answer, Response)
        assert (answer.status_code, answer.body["status"]) == (500, 500)
        assert answer.content_type == "application/problem+json"


# -- where it runs ----------------------------------------------------------------------------------------------------


def test_plain_graph_runs_in_the_callers_thread() -> None:
    threads: list[Any] = []
    with mock(lambda body: threads.append(threading.current_thread()), engine="sync") as server:
        before = threading.active_count()
        server.test("/", 1)
        assert threads == [threading.current_thread()]
        assert threading.active_count() == before


@pytest.mark.parametrize("code", [same, later])
def test_mock_works_inside_a_running_event_loop(code: Any) -> None:
    async def notebook(server: MockServer) -> Any:
        return server.test("/", 5), await server.run_async(Event(6))

    with mock(code) as server:
        assert asyncio.run(notebook(server)) == (5, 6)


@pytest.mark.parametrize("code", [same, later])
def test_mock_called_from_many_threads_at_once_answers_each(code: Any) -> None:
    for _ in range(5):
        with mock(code) as server, ThreadPoolExecutor(8) as pool:
            start = threading.Barrier(8)

            def call(i: int, server: MockServer = server, start: threading.Barrier = start) -> Any:
                start.wait(10)
                return server.test("/", i)

            assert list(pool.map(call, range(8))) == list(range(8))
            loops = [t for t in threading.enumerate() if t.name == "servegraph-mock"]
            assert len(loops) == (1 if code is later else 0)
        assert not [t for t in threading.enumerate() if t.name == "servegraph-mock"]


def test_work_behind_the_answer_has_ended_after_wait_for_completion() -> None:
    done: list[Any] = []

    async def slow(body: Any) -> None:
        await asyncio.sleep(0.02)
        done.append(body)

    fn = servegraph.new_function("f")
    fn.set_topology("flow").to(same, "a").respond().to(slow, "b")
    with fn.to_mock_server() as server:
        assert server.test("/", 1) == 1
        server.wait_for_completion()
        assert done == [1]
        server.test("/", 2)
    assert done == [1, 2]  # closing waits as well


@pytest.mark.parametrize("topology", ["router", "flow"])
def test_wait_and_close_are_for_every_topology_and_may_be_repeated(topology: str) -> None:
    fn = servegraph.new_function("f")
    graph = fn.set_topology(topology)
    if topology == "router":
        graph.add_route("m", handler=same)
    else:
        graph.to(same, "a").respond()
    server = fn.to_mock_server()
    server.wait_for_completion()
    server.close()
    server.close()


@pytest.mark.parametrize("code", [same, later])
def test_closed_mock_says_that_it_is_closed(code: Any) -> None:
    server = mock(code)
    server.test("/", 1)
    server.close()
    with pytest.raises(ServegraphError, match="closed"):
        server.test("/", 1)


def test_close_calls_the_objects_that_can_be_closed() -> None:
    closed: list[str] = []

    class Closes:
        def __init__(self, name: str) -> None:
            self.name = name

        def do(self, body: Any) -> Any:
            return body

        def close(self) -> None:
            closed.append(self.name)

    class ClosesOther(Closes):
        def close(self, what: str) -> None:  # type: ignore[override]
            raise AssertionError("this close is for something else")

    with mock(Closes, ClosesOther) as server:
        server.test("/", 1)
    assert closed == ["s0"]


def test_model_that_does_not_load_is_told_at_once() -> None:
    class Broken(servegraph.V2ModelServer):
        def load(self) -> None:
            raise OSError("gone")

    fn = servegraph.new_function("f")
    fn.add_model("m", class_name=Broken)
    with pytest.raises(ModelLoadError, match="gone"):
        fn.to_mock_server()


def test_graph_of_a_function_is_not_changed_by_its_servers() -> None:
    fn = servegraph.new_function("f")
    graph = fn.set_topology("flow")
    graph.to(same, "a").respond()
    before = list(graph.steps)
    with fn.to_mock_server() as one, fn.to_mock_server() as two:
        assert one.graph is not two.graph
        assert one.graph is not graph
    assert list(graph.steps) == before


def test_names_are_found_in_the_callers_globals_and_in_a_namespace() -> None:
    fn = servegraph.new_function("f")
    fn.set_topology("flow").to(name="a", handler="same").to(name="b", handler="double").respond()
    with fn.to_mock_server(namespace={"double": lambda body: body * 2}) as server:
        assert server.test("/", 4) == 8
    with pytest.raises(GraphError, match="no class or function 'double'"):
        fn.to_mock_server()
    with pytest.raises(GraphError, match="namespace must be a module"):
        fn.to_mock_server(namespace="double")


def test_error_stream_gets_the_records_of_failed_steps(tmp_path: Path) -> None:
    with mock(boom) as server:
        server.set_error_stream(f"file://{tmp_path}/errors")
        server.test("/", {"n": 1}, silent=True, event_id="e1")
    text = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert "user trouble" in text
    assert "e1" in text


# -- the interpreter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "async def step(body): return body",  # a loop that is still there
        "def step(body): return body",
        "import time\ndef step(body): time.sleep(60)",  # a call that was given up and never ends
    ],
)
def test_interpreter_ends_without_close(code: str) -> None:
    script = textwrap.dedent(
        """
        import servegraph
        {code}
        fn = servegraph.new_function("f")
        policy = {{"timeout_s": 0.1}} if "sleep" in {code!r} else None
        fn.set_topology("flow").to(name="s", handler=step, policy=policy).respond()
        server = fn.to_mock_server()
        print(server.test("/", 5, silent=True, get_body=False).status_code)
        """
    ).format(code=code)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["504" if "sleep" in code else "200"]
