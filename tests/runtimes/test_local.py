from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest

import servegraph
from servegraph.errors import ServegraphError
from servegraph.graph.events import DROP, Event, Response
from servegraph.runtimes.serve import RunningServer


class Iris(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        if request["inputs"] == ["boom"]:
            raise ValueError("secret=hunter2")
        return [x * 2 for x in request["inputs"]]


class Gate:
    """Holds requests inside a step until it is opened, and tells when one was cancelled there."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.open = threading.Event()

    async def step(self, body: Any) -> Any:
        self.inside.release()
        try:
            async with asyncio.timeout(20):
                while not self.open.is_set():
                    await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return body


@contextlib.contextmanager
def serving(function: Any, **settings: Any) -> Iterator[RunningServer]:
    running: RunningServer = function.serve(http_port=0, block=False, **settings)
    with running:
        yield running


def models() -> Any:
    fn = servegraph.new_function("shop")
    fn.add_model("iris:v1", class_name=Iris)
    return fn


def flow(code: Any, name: str = "step", **options: Any) -> Any:
    fn = servegraph.new_function("flow")
    fn.set_topology("flow", engine="async").to(code, name, **options).respond()
    return fn


def same(body: Any) -> Any:
    return body


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    limits = {"body_json_bytes": 2000, "body_binary_bytes": 5000, "json_depth": 8, "json_elements": 50}
    with serving(models(), limits={**limits, "body_timeout_s": 0.3}) as running:
        yield running


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningServer]:
    def code(event: Event) -> Any:
        event.body = {
            "body": event.body if not isinstance(event.body, bytes) else event.body.decode("latin-1"),
            "method": event.method,
            "path": event.path,
            "id": event.id,
            "fields": event.fields,
            "header": event.get_header("X-Mine"),
            "kind": event.trigger.kind,
        }
        return event

    with serving(flow(code, full_event=True)) as running:
        yield running


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self, status: int) -> Any:
        """The problem that this is an answer for."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == "application/problem+json"
        told = self.json
        assert told["status"] == status
        assert told["request_id"] == self.headers["x-request-id"]
        return told


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20)


def ask(server: RunningServer, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
    """One request; headers with ``_`` for ``-``."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    fields = {} if raw is None or isinstance(body, bytes) else {"Content-Type": "application/json"}
    fields.update({k.replace("_", "-"): v for k, v in headers.items()})
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=20)
    with contextlib.closing(connection):
        connection.request(method or ("GET" if body is None else "POST"), path, raw, fields)
        with connection.getresponse() as answer:
            return Answer(answer.status, answer.headers, answer.read())


def read_answer(client: Any) -> Answer:
    """One answer from a connection that may stay open."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    with answer:
        return Answer(answer.status, answer.headers, answer.read())


INFER = "/v2/models/iris/infer"
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def post(body: bytes, *fields: bytes, path: str = INFER) -> bytes:
    head = [b"POST %b HTTP/1.1" % path.encode(), b"host: x", b"content-type: application/json", *fields]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


# -- ordinary requests --------------------------------------------------------------------------------------------


def test_model_answers_json_with_a_request_id(server: RunningServer) -> None:
    for _ in range(30):  # first on a thread, then on the loop
        answer = ask(server, INFER, {"inputs": [1, 2]})
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.json["outputs"] == [2, 4]
        assert answer.json["id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("name", ["X_Request_Id", "MLRUN_EVENT_ID"])
def test_request_id_of_the_caller_is_kept(echo: RunningServer, name: str) -> None:
    answer = ask(echo, "/", {}, **{name: "my-id 7"})
    assert answer.headers["x-request-id"] == "my-id 7"
    assert answer.json["id"] == "my-id 7"


@pytest.mark.parametrize("value", ["x" * 129, "a\tb", "gr\xfc\xdf", ""])
def test_request_id_that_is_strange_is_replaced(echo: RunningServer, value: str) -> None:
    answer = ask(echo, "/", {}, X_Request_Id=value)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_event_has_path_method_query_headers_and_trigger(echo: RunningServer) -> None:
    told = ask(echo, "/a%20b/c?q=1&q=2&e=%C3%A4", [1], method="PUT", x_mine="h").json
    assert told == {"body": [1], "method": "PUT", "path": "/a b/c", "id": told["id"],
                    "fields": {"q": ["1", "2"], "e": ["ä"]}, "header": "h", "kind": "http"}  # fmt: skip


def test_request_without_a_body_gives_none(echo: RunningServer) -> None:
    assert ask(echo, "/").json["body"] is None
    assert ask(echo, "/", b"", "POST").json["body"] is None


def test_chunked_body_is_read_whole(echo: RunningServer) -> None:
    with connect(echo) as client:
        client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for piece in (b'[1, "a', b"b", b'c"]'):
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.sendall(b"0\r\n\r\n")
        assert read_answer(client).json["body"] == [1, "abc"]


def test_requests_in_one_go_are_answered_in_order(echo: RunningServer) -> None:
    with connect(echo) as client:
        client.sendall(b"".join(post(b"%d" % i, path="/") for i in range(5)))
        stream = client.makefile("rb")
        bodies = []
        for _ in range(5):
            head = b"".join(iter(stream.readline, b"\r\n"))
            length = int(re.search(rb"content-length: (\d+)", head).group(1))  # type: ignore[union-attr]
            bodies.append(json.loads(stream.read(length))["body"])
        assert bodies == [0, 1, 2, 3, 4]


def test_server_timing_is_told_where_asked_for(server: RunningServer) -> None:
    answer = ask(server, INFER, {"inputs": [1]}, X_Server_Timing="1")
    assert re.fullmatch(r"read;dur=\d+\.\d+, graph;dur=\d+\.\d+, total;dur=\d+\.\d+", answer.headers["server-timing"])
    assert "server-timing" not in ask(server, INFER, {"inputs": [1]}).headers


def test_head_is_answered_as_get_without_the_body(server: RunningServer) -> None:
    for path in ("/v2/models/iris", "/v2/models", "/v2/health/ready", "/metrics", "/docs"):
        get, head = ask(server, path), ask(server, path, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert int(head.headers["content-length"]) > 0


def test_options_without_cors_runs_no_model(server: RunningServer) -> None:
    answer = ask(server, INFER, method="OPTIONS")
    assert answer.status in (204, 405)
    assert "POST" in answer.headers["allow"]


def test_explicit_response_keeps_status_headers_and_type() -> None:
    fn = flow(lambda body: Response({"X-A": "1"}, "<p>", "text/html", 202))
    with serving(fn) as server:
        answer = ask(server, "/", {})
        assert (answer.status, answer.body, answer.headers["x-a"]) == (202, b"<p>", "1")
        assert answer.headers.get_all("content-type") == ["text/html"]


@pytest.mark.parametrize("status", [204, 304])
def test_explicit_response_without_a_body_leaves_the_connection_usable(status: int) -> None:
    fn = flow(lambda body: Response(body={"a": 1}, status_code=status))
    with serving(fn) as server, connect(server) as client:
        for _ in range(2):
            client.sendall(post(b"{}", path="/"))
            answer = read_answer(client)
            assert (answer.status, answer.body) == (status, b"")


def test_no_result_is_204_with_the_reason() -> None:
    with serving(flow(lambda body: DROP, "drops")) as server:
        answer = ask(server, "/", {})
        assert (answer.status, answer.body) == (204, b"")
        assert "'drops'" in answer.headers["x-no-result"]
        assert "content-length" not in answer.headers


# -- refusals -----------------------------------------------------------------------------------------------------


def test_unknown_path_is_404_problem_json(server: RunningServer) -> None:
    for path in ("/nope", "/v2/models/nope/infer", "/v2/health/nope", "/metrics/", "/v2/model/iris"):
        told = ask(server, path, {"inputs": []}).problem(404) if "health" not in path else None
        assert told is None or told["detail"]


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/limits", "/metrics", "/docs"])
def test_control_path_by_post_is_405_with_allow(server: RunningServer, path: str) -> None:
    answer = ask(server, path, {})
    answer.problem(405)
    assert answer.headers["allow"] == "GET, HEAD"


def test_body_larger_than_its_limit_is_413_before_it_is_read(server: RunningServer) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"content-length: 999999\r\n\r\n")
        answer = read_answer(client)
        assert "limit is 2000" in answer.problem(413)["detail"]
        assert answer.headers["connection"] == "close"


def test_body_of_another_type_has_its_own_limit() -> None:
    limits = {"body_json_bytes": 2000, "body_binary_bytes": 5000}
    with serving(flow(lambda body: len(body)), limits=limits) as server:
        assert ask(server, "/", b"x" * 4000, content_type="application/octet-stream").json == 4000
        ask(server, "/", b"x" * 6000, content_type="application/octet-stream").problem(413)
        ask(server, "/", b"x" * 4000).problem(413)  # no type may be JSON


def test_chunked_body_larger_than_its_limit_is_413(server: RunningServer) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.sendall(b"64\r\n" + b"x" * 100 + b"\r\n")
        assert read_answer(client).status == 413


def test_body_that_does_not_arrive_in_time_is_408(server: RunningServer) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"content-length: 10\r\n\r\n{")
        assert "0.3 s" in read_answer(client).problem(408)["detail"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "x-nope"])
def test_compressed_body_is_415(server: RunningServer, coding: str) -> None:
    assert ask(server, INFER, {"inputs": []}, Content_Encoding=coding).problem(415)
    assert ask(server, INFER, {"inputs": []}, Content_Encoding="identity").status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{broken", "not valid JSON"), (b"\xff", "not valid JSON"), (b"NaN", "not valid JSON"),
        (b"[" * 9 + b"]" * 9, "deeper than 8"), (b"[" + b"1," * 50 + b"1]", "more than 50 values"),
    ],
)  # fmt: skip
def test_json_body_that_cannot_be_taken_is_400(server: RunningServer, body: bytes, words: str) -> None:
    assert words in ask(server, INFER, body, Content_Type="application/json").problem(400)["detail"]


@pytest.mark.parametrize("value", ["abc", "-1", "0", "nan", "inf", ""])
def test_timeout_header_that_is_no_time_is_400(server: RunningServer, value: str) -> None:
    assert "X-Request-Timeout-Ms" in ask(server, INFER, {}, X_Request_Timeout_Ms=value).problem(400)["detail"]


def test_model_that_fails_is_500_and_tells_no_secret(server: RunningServer) -> None:
    answer = ask(server, INFER, {"inputs": ["boom"]})
    told = answer.problem(500)
    assert "ValueError" in told["detail"]
    assert b"hunter2" not in answer.body


def test_traceback_is_sent_where_the_settings_say_so() -> None:
    with serving(models(), errors={"traceback": True}) as server:
        assert "hunter2" in ask(server, INFER, {"inputs": ["boom"]}).problem(500)["traceback"]


def test_connection_goes_on_after_errors(server: RunningServer) -> None:
    with connect(server) as client:
        for body, status in (
            (b"{broken", 400),
            (b'{"inputs": 3}', 422),
            (b'{"inputs": ["boom"]}', 500),
            (b'{"inputs": [1]}', 200),
        ):
            client.sendall(post(body))
            assert read_answer(client).status == status
        client.sendall(post(b'{"inputs": [1]}'))
        assert read_answer(client).status == 200


# -- time, load and clients that leave ------------------------------------------------------------------------------


def test_timeout_header_shortens_the_time_of_a_request() -> None:
    gate = Gate()
    with serving(flow(gate.step, "slow")) as server:
        told = ask(server, "/", {}, X_Request_Timeout_Ms="50").problem(504)
        assert told["step"] == "slow"
        assert gate.cancelled.wait(5)


def test_timeout_header_cannot_lengthen_the_time_of_a_request() -> None:
    gate = Gate()
    with serving(flow(gate.step, "slow"), timeouts={"request_s": 0.05}) as server:
        ask(server, "/", {}, X_Request_Timeout_Ms="60000").problem(504)


def test_client_that_leaves_cancels_its_step_and_is_counted() -> None:
    gate = Gate()
    with serving(flow(gate.step)) as server:
        with connect(server) as client:
            client.sendall(post(b"{}", path="/"))
            assert gate.inside.acquire(timeout=5)
        assert gate.cancelled.wait(5)
        metrics = ask(server, "/metrics").body.decode()
        assert "servegraph_requests_cancelled_total 1" in metrics
        assert server.application.in_flight() == 0


def test_requests_beyond_max_concurrency_are_503_at_once() -> None:
    gate = Gate()
    with serving(flow(gate.step), limits={"max_concurrency": 2}) as server, ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(ask, server, "/", {}) for _ in range(2)]
        assert gate.inside.acquire(timeout=5)
        assert gate.inside.acquire(timeout=5)
        with connect(server) as client:
            client.sendall(post(b"{}", path="/"))
            answer = read_answer(client)
            answer.problem(503)
            assert int(answer.headers["retry-after"]) >= 1
            assert ask(server, "/v2/health/ready").status == 200
            assert ask(server, "/metrics").status == 200
            gate.open.set()
            assert [f.result().status for f in inside] == [200, 200]
            if answer.headers.get("connection") != "close":
                client.sendall(post(b"{}", path="/"))
                assert read_answer(client).status == 200


def test_model_that_is_loading_is_503_until_it_is_ready() -> None:
    go_on = threading.Event()

    class Slow(Iris):
        def load(self) -> None:
            assert go_on.wait(20)

    fn = servegraph.new_function("slow", load_mode="async")
    fn.add_model("m", class_name=Slow)
    with serving(fn) as server:
        answer = ask(server, "/v2/models/m/infer", {"inputs": [1]})
        answer.problem(503)
        assert int(answer.headers["retry-after"]) >= 1
        ready = ask(server, "/v2/health/ready")
        assert ready.status == 503
        assert ready.json["models"] == {"router/m": {"state": "loading", "attempts": 1}}
        assert ask(server, "/v2/health/live").status == 200
        ask(server, "/v2/models/m/ready").problem(503)
        go_on.set()
        end = time.monotonic() + 5
        while ask(server, "/v2/health/ready").status != 200 and time.monotonic() < end:
            time.sleep(0.01)
        assert ask(server, "/v2/models/m/infer", {"inputs": [1]}).status == 200


def test_server_that_drains_ends_what_it_has_begun() -> None:
    gate = Gate()
    running: RunningServer = flow(gate.step).serve(http_port=0, block=False)
    with ThreadPoolExecutor(2) as pool:
        inside = pool.submit(ask, running, "/", {"n": 1})
        assert gate.inside.acquire(timeout=5)
        stopping = pool.submit(running.stop)
        end = time.monotonic() + 5
        while not running.application.control.draining and time.monotonic() < end:
            time.sleep(0.005)
        gate.open.set()
        answer = inside.result()
        assert (answer.status, answer.json) == (200, {"n": 1})
        assert answer.headers["connection"] == "close"
        stopping.result()
    with pytest.raises(OSError, match=r"refused|reset"):
        connect(running).close()


def test_server_that_cannot_drain_in_time_still_closes_what_it_has() -> None:
    gate = Gate()
    closed = threading.Event()

    class Closing(Iris):
        def close(self) -> None:
            closed.set()

    fn = servegraph.new_function("f")
    graph = fn.set_topology("flow", engine="async")
    router = graph.to(gate.step, "gate").to("*", "models")
    router.add_route("m", class_name=Closing)
    router.respond()
    running: RunningServer = fn.serve(http_port=0, block=False, timeouts={"drain_timeout_s": 0.1})
    with connect(running) as client:
        client.sendall(post(b"{}", path="/"))
        assert gate.inside.acquire(timeout=5)
        running.stop()
        assert read_answer(client).status == 503
    assert closed.wait(5)
    assert gate.cancelled.wait(5)


def test_server_with_several_workers_is_for_the_command() -> None:
    with pytest.raises(ServegraphError, match="--workers 2"):
        models().serve(http_port=0, block=False, workers=2)


def test_server_whose_model_does_not_load_does_not_start() -> None:
    class Broken(Iris):
        def load(self) -> None:
            raise OSError("gone")

    fn = servegraph.new_function("broken")
    fn.add_model("m", class_name=Broken)
    with pytest.raises(ServegraphError, match="failed to load model 'm': gone"):
        fn.serve(http_port=0, block=False)


# -- what the server says of itself ---------------------------------------------------------------------------------


def test_metrics_count_requests_by_status_and_models_by_outcome() -> None:
    with serving(models()) as server:
        for inputs in ([1], [2], ["boom"]):
            ask(server, INFER, {"inputs": inputs})
        ask(server, "/nope", {})
        text = ask(server, "/metrics").body.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['servegraph_requests_total{code="200"}'] == "2"
    assert lines['servegraph_requests_total{code="500"}'] == "1"
    assert lines['servegraph_requests_total{code="404"}'] == "1"
    assert lines["servegraph_request_duration_seconds_count"] == "4"
    assert lines['servegraph_model_duration_seconds_count{model="iris",version="v1"}'] == "3"
    assert lines['servegraph_model_errors_total{model="iris",version="v1"}'] == "1"


def test_metrics_are_exact_under_many_clients() -> None:
    with serving(models()) as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: ask(server, INFER, {"inputs": [i]}).json["outputs"], range(200)))
        assert answers == [[2 * i] for i in range(200)]
        text = ask(server, "/metrics").body.decode()
    assert 'servegraph_requests_total{code="200"} 200' in text
    assert 'servegraph_model_duration_seconds_count{model="iris",version="v1"} 200' in text


def test_metrics_are_read_by_the_prometheus_parser(server: RunningServer) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    ask(server, INFER, {"inputs": [1]})
    families = {f.name for f in text_string_to_metric_families(ask(server, "/metrics").body.decode())}
    assert {"servegraph_requests", "servegraph_request_duration_seconds"} <= families


def test_openapi_document_is_valid_and_every_get_in_it_answers_as_it_says(server: RunningServer) -> None:
    document = ask(server, "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    seen = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["responses"]
        if "get" in operations:
            answer = ask(server, path)
            response = operations["get"]["responses"][str(answer.status)]
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in response["content"], path
            schema = response["content"][kind].get("schema")
            if schema is not None:
                jsonschema.validate(answer.json, {**schema, "components": document["components"]})
                seen += 1
    assert seen >= 4
    post_infer = document["paths"]["/v2/models/iris/versions/v1/infer"]["post"]
    answer = ask(server, "/v2/models/iris/versions/v1/infer", {"inputs": [1]})
    jsonschema.validate(
        answer.json,
        {
            **post_infer["responses"]["200"]["content"]["application/json"]["schema"],
            "components": document["components"],
        },
    )
    told = ask(server, "/v2/models/iris/versions/v1/infer", {}).problem(422)
    jsonschema.validate(told, {**schemas["Problem"], "components": document["components"]})


def test_docs_page_lists_the_paths_and_loads_nothing_from_elsewhere(server: RunningServer) -> None:
    answer = ask(server, "/docs")
    text = answer.body.decode()
    assert "/v2/models/iris/versions/v1/infer" in text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_limits_and_metadata_are_told(server: RunningServer) -> None:
    assert ask(server, "/v2/limits").json["limits"]["body_json_bytes"] == 2000
    assert ask(server, "/v2").json["models"] == ["iris"]


# -- browsers -----------------------------------------------------------------------------------------------------


def test_cors_is_off_by_default(server: RunningServer) -> None:
    answer = ask(server, INFER, {"inputs": []}, Origin="https://page.example")
    assert not [k for k in answer.headers if k.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("allowed", "origin", "told"),
    [(["*"], "https://a.example", "*"), (["https://a.example"], "https://a.example", "https://a.example"),
     (["https://a.example"], "https://b.example", None)],
)  # fmt: skip
def test_cors_tells_browsers_who_may(allowed: list[str], origin: str, told: str | None) -> None:
    with serving(models(), cors={"allow_origins": allowed}) as server:
        for path, body in ((INFER, {"inputs": [1]}), (INFER, {"inputs": 3}), ("/v2/health/live", None)):
            answer = ask(server, path, body, Origin=origin)
            assert answer.headers["access-control-allow-origin"] == told
            assert ("*" in allowed) or answer.headers.get_all("vary") == ["origin"]
        preflight = ask(server, INFER, method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST")
        assert preflight.status == (403 if told is None else 204)
        assert preflight.headers["access-control-allow-origin"] == told
        if told is not None:
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "Content-Type" in preflight.headers["access-control-allow-headers"]
            assert preflight.headers["access-control-max-age"] == "600"


def test_access_log_has_one_printable_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "servegraph.access"), serving(models(), access_log=True) as server:
        ask(server, INFER, {"inputs": [1]}, X_Request_Id="mine")
        ask(server, "/%0aevil%1b[31m", {})
    lines = [r.getMessage() for r in caplog.records if r.name == "servegraph.access"]
    assert len(lines) == 2
    assert re.fullmatch(rf"POST {INFER} 200 \d+\.\d+ms \d+B id=mine", lines[0])
    assert all(line.isprintable() for line in lines)
