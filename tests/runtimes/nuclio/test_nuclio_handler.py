from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nuclio_double import Answer, Worker, message

from servegraph.errors import ModelLoadError, SettingsError, SpecError
from servegraph.runtimes.function import ServingFunction, code_to_function

CODE = """
import asyncio
import threading

import numpy
import servegraph
from servegraph.graph.events import DROP

gate = threading.Event()


class Double(servegraph.V2ModelServer):
    def load(self):
        if self.get_param("slow", False):
            assert gate.wait(5)
        if self.get_param("broken", False):
            raise ValueError("no weights")
        asyncio.run(asyncio.sleep(0))  # a model may use a loop of its own to load
        self.factor = self.get_param("factor", 2)

    def predict(self, request):
        return numpy.array(request["inputs"]) * self.factor


async def enrich(body):
    await asyncio.sleep(0)
    return {**body, "more": numpy.float32(1.5)}


def fail(body):
    raise RuntimeError("secret-detail")


def leave(body):
    raise SystemExit(3)


def facts(event):
    event.body = {
        "path": event.path,
        "method": event.method,
        "kind": event.trigger.kind,
        "name": event.trigger.name,
        "id": event.id,
        "topic": event.topic,
        "stream_path": event.stream_path,
        "shard": event.shard_id,
        "offset": event.offset,
        "time": event.timestamp.isoformat(),
        "fields": event.fields,
        "header": event.get_header("X-MINE"),
        "body": event.body,
    }
    return event


def answer(body):
    return servegraph.Response({"X-Number": 5, "x-line": "a\\r\\nb"}, body.get("body"), body.get("type"), 201)


def same(body):
    return body


def drop(body):
    return DROP
"""


def model_function(folder: Path, code: str = CODE, **arguments: Any) -> ServingFunction:
    function = _function(folder, code)
    function.add_model("m", class_name="Double", **arguments)
    return function


def flow_function(folder: Path, handler: str, **arguments: Any) -> ServingFunction:
    function = _function(folder, CODE)
    function.set_topology("flow").to(handler=handler, name="step", **arguments).respond()
    return function


def _function(folder: Path, code: str) -> ServingFunction:
    (folder / "my_code.py").write_text(code, "utf-8")
    return code_to_function("my-fn", "demo", filename=str(folder / "my_code.py"))


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @asynccontextmanager
    async def run(function: ServingFunction, **arguments: Any) -> AsyncIterator[Worker]:
        folder = tmp_path / "opt"
        folder.mkdir(exist_ok=True)
        worker = Worker(function.export(), folder, **arguments)
        for name, value in worker.environment.items():
            monkeypatch.setenv(name, value)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.signal("termination")

    return run


def on_worker(running: Any, function: ServingFunction, *messages: dict[str, Any], **arguments: Any) -> list[Answer]:
    async def main() -> list[Answer]:
        async with running(function, **arguments) as worker:
            return [await worker.send(m) for m in messages]

    return asyncio.run(main())


def test_worker_answers_models_with_numpy_results(running: Any, tmp_path: Path) -> None:
    (answer,) = on_worker(
        running, model_function(tmp_path), message("/v2/models/m/infer", {"inputs": [[1, 2]], "id": "a"})
    )
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.json()["outputs"] == [[2, 4]]
    assert answer.headers["x-request-id"] == "0f6a"


def test_worker_answers_the_open_inference_protocol(running: Any, tmp_path: Path) -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}
    (answer,) = on_worker(running, model_function(tmp_path), message("/v2/models/m/infer", {"inputs": [tensor]}))
    assert answer.status == 200
    assert answer.json()["outputs"][0]["data"] == [2, 4]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "", "application/json"])
def test_worker_reads_json_of_whatever_media_type(content_type: str, running: Any, tmp_path: Path) -> None:
    body = b'{"inputs": [[3]]}'
    (answer,) = on_worker(running, model_function(tmp_path), message("/v2/models/m/infer", body, content_type))
    assert answer.json()["outputs"] == [[6]]


def test_worker_answers_health_and_metadata(running: Any, tmp_path: Path) -> None:
    live, ready, metadata, model, wrong = on_worker(
        running,
        model_function(tmp_path),
        message("/v2/health/live"),
        message("/v2/health/ready"),
        message("/v2"),
        message("/v2/models/m/ready"),
        message("/v2/health/live", {"x": 1}),
    )
    assert (live.json(), ready.json()) == ({"live": True}, {"ready": True})
    assert metadata.json()["name"] == "servegraph"
    assert model.status == 200
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")


def test_worker_runs_flows_on_the_loop(running: Any, tmp_path: Path) -> None:
    (answer,) = on_worker(running, flow_function(tmp_path, "enrich"), message("/any/path", {"a": 1}))
    assert answer.json() == {"a": 1, "more": 1.5}


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ("text", None, b"text"),  # JSON that the SDK has read is not read again
        ("[1]", None, b"[1]"),
        ([1, 2], None, b"[1,2]"),
        ({}, None, b"{}"),
        (0, None, b"0"),
        (b"plain", "text/plain", b"plain"),
    ],
)
def test_worker_gives_bodies_back_as_they_came(
    body: Any, content_type: str | None, expected: bytes, running: Any, tmp_path: Path
) -> None:
    (answer,) = on_worker(running, flow_function(tmp_path, "same"), message("/", body, content_type))
    assert (answer.status, answer.body) == (200, expected)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"body": {"a": 1}}, (b'{"a":1}', "application/json")),
        ({"body": "grün"}, ("grün".encode(), "text/plain; charset=utf-8")),
        ({"body": "a,b", "type": "text/csv"}, (b"a,b", "text/csv")),
        ({}, (b"", "text/plain")),
    ],
)
def test_worker_keeps_what_a_response_says(wanted: Any, expected: Any, running: Any, tmp_path: Path) -> None:
    (answer,) = on_worker(running, flow_function(tmp_path, "answer"), message("/", wanted))
    assert (answer.body, answer.content_type) == expected
    assert answer.status == 201
    assert (answer.headers["X-Number"], answer.headers["x-line"]) == ("5", "a  b")


def test_worker_hands_the_facts_of_a_request_over(running: Any, tmp_path: Path) -> None:
    given = message(
        "/some/path",
        [1],
        headers={"X-Mine": "yes", "Mlrun-Event-Path": "/v2/models/other", "MLRUN-EVENT-PATH": "/x"},
        fields={"q": "1", "many": ["a", "b"]},
        timestamp=1700000000,
    )
    (answer,) = on_worker(running, flow_function(tmp_path, "facts", full_event=True), given)
    assert answer.json() == {
        "path": "/some/path", "method": "POST", "kind": "http", "name": "http", "id": "0f6a", "topic": None,
        "stream_path": None, "shard": -1, "offset": 0, "time": "2023-11-14T22:13:20+00:00",
        "fields": {"q": ["1"], "many": ["a", "b"]}, "header": "yes", "body": [1],
    }  # fmt: skip


def test_worker_takes_the_callers_request_id(running: Any, tmp_path: Path) -> None:
    given = [message("/", {}, headers={"X-Request-Id": i}) for i in ("mine", "no\nline", "x" * 500)]
    answers = on_worker(running, flow_function(tmp_path, "same"), *given)
    assert [a.headers["x-request-id"] for a in answers] == ["mine", "0f6a", "0f6a"]


@pytest.mark.parametrize("kind", ["kafka-cluster", "v3ioStream", "nats"])
def test_worker_routes_stream_events_to_the_root(kind: str, running: Any, tmp_path: Path) -> None:
    given = message(
        "topic/a" if kind != "v3ioStream" else "",
        b'{"x": 1}',
        trigger={"kind": kind, "name": "in"},
        topic="topic/a",
        shard_id=3,
        num_shards=8,
        offset=42,
        headers={"h": b"bytes"},
        method="",
    )
    (answer,) = on_worker(running, flow_function(tmp_path, "facts", full_event=True), given, trigger=(kind, "in"))
    seen = answer.json()
    assert (seen["path"], seen["stream_path"], seen["topic"]) == ("/", "topic/a", "topic/a")
    assert (seen["kind"], seen["name"], seen["shard"], seen["offset"]) == (kind, "in", 3, 42)
    assert seen["body"] == {"x": 1}


def test_worker_reads_events_whose_strings_are_bytes(running: Any, tmp_path: Path) -> None:
    async def main() -> Answer:
        async with running(flow_function(tmp_path, "facts", full_event=True)) as worker:
            answer: Answer = await worker.send(message("/p", {"x": 1}, headers={"X-Mine": "b"}), raw=True)
            return answer

    seen = asyncio.run(main()).json()
    assert (seen["path"], seen["method"], seen["header"], seen["body"]) == ("/p", "POST", "b", {"x": 1})


@pytest.mark.parametrize("handler", ["fail", "leave"])
def test_worker_answers_failures_without_their_details(handler: str, running: Any, tmp_path: Path) -> None:
    (answer,) = on_worker(running, flow_function(tmp_path, handler), message("/", {}))
    assert (answer.status, answer.content_type) == (500, "application/problem+json")
    assert answer.json()["request_id"] == "0f6a"
    assert b"secret-detail" not in answer.body
    assert b"Traceback" not in answer.body


def test_worker_answers_wrong_requests_as_the_local_server_does(running: Any, tmp_path: Path) -> None:
    function = model_function(tmp_path)
    function.spec.settings = {"limits": {"body_json_bytes": 100}}
    nothing, broken, model, timeout, large = on_worker(
        running,
        function,
        message("/v2/models/none/infer", {"inputs": [1]}),
        message("/v2/models/m/infer", b"{", "application/json"),
        message("/v2/models/m/infer", {"x": 1}),
        message("/v2/models/m/infer", {"inputs": [1]}, headers={"X-Request-Timeout-Ms": "soon"}),
        message("/v2/models/m/infer", {"inputs": [1]}, size=101),
    )
    assert [a.status for a in (nothing, broken, timeout, large)] == [404, 400, 400, 413]
    assert 400 <= model.status < 500
    assert all(a.content_type == "application/problem+json" for a in (nothing, broken, timeout, large))


def test_worker_ends_requests_that_run_out_of_time(running: Any, tmp_path: Path) -> None:
    code = CODE + "\nasync def wait(body):\n    await asyncio.sleep(30)\n"
    function = _function(tmp_path, code)
    function.set_topology("flow").to(handler="wait", name="wait").respond()
    (answer,) = on_worker(running, function, message("/", {}, headers={"X-Request-Timeout-Ms": "30"}))
    assert (answer.status, answer.json()["step"]) == (504, "wait")


def test_worker_that_nothing_answers_says_so(running: Any, tmp_path: Path) -> None:
    function = flow_function(tmp_path, "drop")
    (answer,) = on_worker(running, function, message("/", {}))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["x-no-result"]


def test_worker_answers_batches_by_event_id(running: Any, tmp_path: Path) -> None:
    async def main() -> dict[str, Answer]:
        async with running(flow_function(tmp_path, "same")) as worker:
            broken = message("/", b"{", "application/json", id="b")
            answers: dict[str, Answer] = await worker.send(message("/", [1], id="a"), broken)
            return answers

    answers = asyncio.run(main())
    assert (answers["a"].body, answers["b"].status) == (b"[1]", 400)


def test_worker_with_async_loading_answers_when_it_is_ready(running: Any, tmp_path: Path) -> None:
    function = model_function(tmp_path, slow=True)
    function.spec.load_mode = "async"
    request = message("/v2/models/m/infer", {"inputs": [[1]]})

    async def main() -> None:
        async with running(function) as worker:
            early, ready = await worker.send(request), await worker.send(message("/v2/health/ready"))
            assert (early.status, ready.status) == (503, 503)
            assert early.headers["retry-after"] == "1"
            sys.modules["my-fn-nuclio"].gate.set()
            server = worker.context.user_data.servegraph.server
            assert await asyncio.to_thread(next(iter(server.models.values())).loader.wait, 5)
            assert (await worker.send(request)).json()["outputs"] == [[2]]

    asyncio.run(main())


def test_worker_whose_model_fails_to_load_does_not_start(running: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no weights"):
        on_worker(running, model_function(tmp_path, broken=True))
    for handler in list(logging.getLogger("servegraph").handlers):
        if type(handler).__name__ == "_NuclioHandler":
            logging.getLogger("servegraph").removeHandler(handler)


def test_worker_keeps_the_codes_own_hooks(running: Any, tmp_path: Path) -> None:
    code = (
        CODE
        + """

def handler(body):
    return [mine]


async def init_context(context):
    global mine
    mine = "set"
"""
    )
    function = _function(tmp_path, code)
    function.set_topology("flow").to(handler="handler", name="h").respond()
    (answer,) = on_worker(running, function, message("/", {}))
    assert answer.json() == ["set"]


def test_worker_reads_secrets_by_their_names(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = flow_function(tmp_path, "same").with_secrets("inline", {"TOKEN": "hunter2"})
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(SettingsError, match="no variable 'TOKEN'"):
        on_worker(running, function)
    monkeypatch.setenv("TOKEN", "from-cluster")

    async def main() -> str | None:
        async with running(function) as worker:
            secret: str | None = worker.context.user_data.servegraph.server.context.get_secret("TOKEN")
            return secret

    assert asyncio.run(main()) == "from-cluster"


def test_worker_without_a_spec_says_so(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "opt"
    folder.mkdir()
    worker = Worker(flow_function(tmp_path, "same").export(), folder)
    monkeypatch.delenv("SERVING_SPEC_ENV", raising=False)
    with pytest.raises(SpecError, match="SERVING_SPEC_ENV"):
        asyncio.run(worker.start())

    async def main() -> Answer:
        answer: Answer = await worker.request("/", {})
        return answer

    assert asyncio.run(main()).status == 500


def test_worker_logs_failures_to_nuclios_logger(running: Any, tmp_path: Path) -> None:
    async def main() -> list[tuple[str, str]]:
        async with running(flow_function(tmp_path, "fail")) as worker:
            await worker.request("/", {})
            await asyncio.sleep(0)
            lines: list[tuple[str, str]] = worker.logger.lines
            return lines

    lines = asyncio.run(main())
    assert any(level == "error" and "secret-detail" in text for level, text in lines)


def test_worker_that_drains_writes_records_and_goes_on(running: Any, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    function = model_function(tmp_path)
    function.set_tracking(f"file://{records}", flush_interval_s=60)
    request = message("/v2/models/m/infer", {"inputs": [[1]]})

    async def main() -> None:
        async with running(function) as worker:
            await worker.send(request)
            await worker.signal("drain")
            assert len(records.read_text("utf-8").splitlines()) == 1
            assert (await worker.send(request)).status == 200
            await worker.signal("termination")
            assert len(records.read_text("utf-8").splitlines()) == 2
            stopped = await worker.send(request)
            assert (stopped.status, stopped.headers["retry-after"]) == (503, "1")
            assert (await worker.send(message("/v2/health/ready"))).status == 503

    asyncio.run(main())


def test_module_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    config = model_function(tmp_path).export()
    folder = tmp_path / "opt"
    folder.mkdir()
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    script = (
        "import asyncio, json, os, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from nuclio_double import Worker, message\n"
        "worker = Worker(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))\n"
        "assert 'pandas' not in sys.modules and 'uvicorn' not in sys.modules\n"
        "os.environ.update(worker.environment)\n"
        "async def main():\n"
        "    await worker.start()\n"
        "    answer = await worker.request('/v2/models/m/infer', {'inputs': [[5]]})\n"
        "    print(answer.json()['outputs'])\n"
        "    await worker.signal('termination')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "config.json"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == "[[10]]", done.stderr
