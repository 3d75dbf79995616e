"""Payload logging: CloudEvents that reach a real HTTP receiver, and requests that never notice."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tree_kit import REQUEST, Add, ask, deployment, function_of, hard, node, predictor, rows

from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.payload_log import LogOrigin, PayloadLog


class Receiver:
    """An HTTP server that keeps what is posted to it; it can be told to hold answers back."""

    def __init__(self) -> None:
        received: queue.Queue[tuple[dict[str, str], Any]] = queue.Queue()
        self.received = received
        self.hold = hold = threading.Event()
        hold.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hold.wait(20)
                received.put(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def take(self, count: int) -> list[tuple[dict[str, str], Any]]:
        return [self.received.get(timeout=20) for _ in range(count)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.hold.set()
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def test_requests_and_responses_are_sent_as_cloud_events(receiver: Receiver) -> None:
    graph = node("t", "TRANSFORMER", node("m", logger={"mode": "all", "url": receiver.url}))
    with function_of(graph, {"t": Add(1), "m": Add(10)}).to_mock_server() as server:
        puid = ask(server)["meta"]["puid"]
        (asked, request), (answered, response) = receiver.take(2)
    assert asked["ce-type"] == "io.seldon.serving.inference.request"
    assert answered["ce-type"] == "io.seldon.serving.inference.response"
    assert request["data"]["ndarray"] == [[2.0, 3.0]]
    assert response["data"]["ndarray"] == [[12.0, 13.0]]
    for headers in (asked, answered):
        expected = {
            "ce-specversion": "1.0",
            "ce-requestid": puid,
            "ce-modelid": "m",
            "ce-inferenceservicename": "tree",
            "ce-namespace": "ns",
            "ce-endpoint": "main",
            "ce-protocol": "seldon",
            "content-type": "application/json",
        }
        assert headers.items() >= expected.items()
    assert asked["ce-id"] != answered["ce-id"]


@pytest.mark.parametrize(("mode", "kinds"), [("request", ["request"]), ("response", ["response"])])
def test_mode_chooses_what_is_sent(receiver: Receiver, mode: str, kinds: list[str]) -> None:
    graph = hard("m", "SIMPLE_MODEL", logger={"mode": mode, "url": receiver.url})
    with function_of(graph).to_mock_server() as server:
        ask(server)
        ask(server, {"strData": "last"})
    found = [h["ce-type"].rpartition(".")[2] for h, _ in receiver.take(2)]
    assert found == kinds * 2


def test_header_keeps_a_request_out_of_the_log(receiver: Receiver) -> None:
    graph = hard("m", "SIMPLE_MODEL", logger={"mode": "request", "url": receiver.url})
    with function_of(graph).to_mock_server() as server:
        ask(server, headers={"Seldon-Skip-Logging": "true"})
        ask(server, {"strData": "second"})
        ((_, body),) = receiver.take(1)
    assert body["strData"] == "second"
    assert receiver.received.empty()


def test_header_keeps_feedback_out_of_the_log(receiver: Receiver) -> None:
    graph = node("m", logger={"mode": "response", "url": receiver.url})
    with function_of(graph, {"m": Add()}).to_mock_server() as server:
        server.test("/api/v1.0/feedback", {"reward": 0.25}, headers={"Seldon-Skip-Logging": "on"})
        server.test("/api/v1.0/feedback", {"reward": 0.5})
        ((_, body),) = receiver.take(1)
    assert body["reward"] == 0.5
    assert receiver.received.empty()


@pytest.mark.parametrize("implementation", ["", "SIMPLE_MODEL"])
def test_payloads_have_the_meta_that_the_node_has(receiver: Receiver, implementation: str) -> None:
    logger = {"mode": "all", "url": receiver.url}
    model = hard("m", implementation, logger=logger) if implementation else node("m", logger=logger)
    components = {"t": Add(1, "t")} if implementation else {"t": Add(1, "t"), "m": Add()}
    with function_of(node("t", "TRANSFORMER", model), components).to_mock_server() as server:
        puid = ask(server)["meta"]["puid"]
        (_, request), (_, response) = receiver.take(2)
    assert request["meta"] == {"puid": puid, "tags": {"t": 1, "last": "t"}}
    assert response["meta"]["puid"] == puid


def test_feedback_is_sent_where_responses_are(receiver: Receiver) -> None:
    predictors = predictor(
        node("m", logger={"mode": "all"}),
        svcOrchSpec={"env": [{"name": "REQUEST_LOGGER_DEFAULT_ENDPOINT", "value": receiver.url}]},
    )
    with function_from_deployment(deployment(predictors), components={"m": Add()}).to_mock_server() as server:
        server.test("/api/v1.0/feedback", {"request": REQUEST, "reward": 0.5})
        ((headers, body),) = receiver.take(1)
    assert headers["ce-type"] == "io.seldon.serving.feedback"
    assert body["reward"] == 0.5


def test_receiver_that_hangs_holds_up_no_request(receiver: Receiver) -> None:
    receiver.hold.clear()
    graph = hard("m", "SIMPLE_MODEL", logger={"mode": "all", "url": receiver.url})
    with function_of(graph).to_mock_server() as server:
        for _ in range(20):
            ask(server)
        assert receiver.received.empty()
        receiver.hold.set()
        assert len(receiver.take(40)) == 40


def test_full_queue_drops_and_counts(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.hold.clear()
    log = PayloadLog(LogOrigin("d", "n", "p", receiver.url), queued=2)
    for _ in range(10):
        log.put("request", "m", "", "puid", Message("strData", "x"))
    assert log.dropped >= 7
    assert "payloads are not logged (1 so far): the queue is full" in caplog.text
    receiver.hold.set()
    log.close()


def test_what_is_done_to_a_payload_later_does_not_show(receiver: Receiver) -> None:
    receiver.hold.clear()
    log = PayloadLog(LogOrigin("d", "n", "p", receiver.url))
    value = {"a": [1]}
    log.put("request", "m", "", "first", Message("strData", "x"))
    log.put("request", "m", "", "puid", Message("jsonData", value))
    value["a"].append(2)
    receiver.hold.set()
    assert receiver.take(2)[1][1]["jsonData"] == {"a": [1]}
    log.close()


def test_no_address_and_no_receiver_fail_no_request(caplog: pytest.LogCaptureFixture) -> None:
    graph = node("m", logger={"mode": "all"})
    with function_of(graph, {"m": Add(1)}).to_mock_server() as server:
        assert rows(ask(server)) == [[2.0, 3.0]]
    assert "no address: give logger.url or REQUEST_LOGGER_DEFAULT_ENDPOINT" in caplog.text
    log = PayloadLog(LogOrigin("d", "n", "p", "http://127.0.0.1:1/"))
    log.put("request", "m", "", "puid", Message("strData", "x"))
    log.close()
    assert log.dropped == 1
