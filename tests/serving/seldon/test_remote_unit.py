"""Nodes that run elsewhere: behind real REST and gRPC servers, mixed with nodes in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np
import pytest
from node_peer import peer
from tree_kit import REQUEST, Add, Route, ask, function_of, node, rows

import servegraph
from servegraph.errors import GraphError, RemoteError
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.mock import MockServer
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.endpoint import ComponentEndpoint
from servegraph.serving.seldon.remote_unit import RemoteUnit

grpc = pytest.importorskip("grpc")


@contextlib.contextmanager
def microservice(component: Any) -> Iterator[int]:
    """A component behind the REST paths of Seldon's microservice; its port."""
    fn = servegraph.new_function("component")
    graph = fn.set_topology("flow", engine="async")
    graph.to(ComponentEndpoint, name="component", component=component).respond()
    with fn.serve(http_port=0, block=False) as running:
        yield int(running.url.rpartition(":")[2])


@contextlib.contextmanager
def grpc_microservice(user_object: Any) -> Iterator[int]:
    """A component behind Seldon's gRPC services; its port."""
    from servegraph.serving.seldon import wire
    from servegraph.serving.seldon.proto import prediction_pb2_grpc

    component = Component(user_object)
    seen: list[Any] = []

    class Servicer:
        def Predict(self, request: Any, context: Any) -> Any:
            seen.append(dict(context.invocation_metadata()))
            try:
                return wire.message_to_proto(component.call("predict", wire.message_from_proto(request), "grpc"))  # type: ignore[arg-type]
            except ValueError as exc:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))

        def Route(self, request: Any, context: Any) -> Any:
            return wire.message_to_proto(component.call("route", wire.message_from_proto(request), "grpc"))  # type: ignore[arg-type]

        def Aggregate(self, request: Any, context: Any) -> Any:
            messages = wire.messages_from_proto(request)
            return wire.message_to_proto(component.call("aggregate", messages, "grpc"))  # type: ignore[arg-type]

        def SendFeedback(self, request: Any, context: Any) -> Any:
            feedback = wire.feedback_from_proto(request)
            return wire.message_to_proto(component.call("send_feedback", feedback, "grpc"))  # type: ignore[arg-type]

        Metadata = Predict

    user_object.metadata_seen = seen
    server = grpc.server(futures.ThreadPoolExecutor(4))
    servicer: Any = Servicer()
    prediction_pb2_grpc.add_ModelServicer_to_server(servicer, server)
    prediction_pb2_grpc.add_RouterServicer_to_server(servicer, server)
    prediction_pb2_grpc.add_CombinerServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def tree(pick: Any, a: Any) -> ServingFunction:
    graph = node("in", "TRANSFORMER", node("pick", "ROUTER", node("a"), node("b")))
    return function_of(graph, {"in": Add(1, "in"), "b": Add(100), "pick": pick, "a": a})


def alone(address: str) -> MockServer:
    """A server whose only node runs elsewhere."""
    return function_of(node("a"), {"a": address}).to_mock_server()


def test_rest_nodes_answer_as_those_in_process() -> None:
    remote_a, router = Add(10, "a"), Route(0)
    with microservice(remote_a) as port_a, microservice(router) as port_r:
        function = tree(f"http://127.0.0.1:{port_r}", f"rest://127.0.0.1:{port_a}")
        with function.to_mock_server() as server:
            headers = {"Seldon-Puid": "p-1", "X-Request-Id": "r-1", "Cookie": "secret=1"}
            answer = ask(server, headers=headers)
            server.test("/api/v1.0/feedback", {"request": REQUEST, "response": answer, "reward": 0.5})
            assert server.test("/ready", get_body=False).status_code == 200
    with tree(Route(0), Add(10, "a")).to_mock_server() as server:
        expected = ask(server, headers={"Seldon-Puid": "p-1"})
    assert rows(answer) == rows(expected) == [[12.0, 13.0]]
    for part in ("puid", "tags", "routing", "metrics"):
        assert answer["meta"][part] == expected["meta"][part], part
    assert set(answer["meta"]["requestPath"]) == {"in", "pick", "a"}
    assert [f[0] for f in remote_a.feedback] == [0.5]
    assert [f[0] for f in router.feedback] == [0.5]


def test_grpc_nodes_answer_as_those_in_process() -> None:
    remote_a, router = Add(10, "a"), Route(0)
    with grpc_microservice(remote_a) as port_a, grpc_microservice(router) as port_r:
        function = tree(f"grpc://127.0.0.1:{port_r}", f"grpc://127.0.0.1:{port_a}")
        with function.to_mock_server() as server:
            answer = ask(server, headers={"Seldon-Puid": "p-1", "X-Request-Id": "r-1", "Cookie": "secret=1"})
            server.test("/api/v1.0/feedback", {"request": REQUEST, "response": answer, "reward": 0.5})
    assert rows(answer) == [[12.0, 13.0]]
    assert answer["meta"]["tags"] == {"in": 1, "router": 0.0, "a": 10.0, "last": "a"}
    assert answer["meta"]["routing"] == {"in": -1, "pick": 0}
    assert [f[0] for f in remote_a.feedback] == [0.5]
    (sent,) = remote_a.metadata_seen  # type: ignore[attr-defined]
    assert (sent["seldon-puid"], sent["x-request-id"]) == ("p-1", "r-1")
    assert sent["cookie"] == "secret=1"


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_remote_combiner_gets_the_answers_in_order(kind: str) -> None:
    serve = microservice if kind == "http" else grpc_microservice
    with serve(Add(0)) as port:
        graph = node("sum", "COMBINER", node("a"), node("b"))
        components = {"sum": f"{kind}://127.0.0.1:{port}", "a": Add(1), "b": Add(2)}
        with function_of(graph, components).to_mock_server() as server:
            assert rows(ask(server)) == [[5.0, 7.0]]


def test_error_of_a_rest_node_is_passed_through_with_its_body() -> None:
    class Refuses:
        def predict(self, X: Any, names: Any) -> Any:
            from servegraph.serving.seldon.errors import SeldonMicroserviceException

            raise SeldonMicroserviceException("not today", status_code=418, reason="TEAPOT")

    with microservice(Refuses()) as port, alone(f"http://127.0.0.1:{port}") as server:
        response = server.test("/api/v1.0/predictions", REQUEST, silent=True)
    assert response.status_code == 418
    assert response.body == {"status": {"code": -1, "info": "not today", "reason": "TEAPOT", "status": 1}}


def test_error_of_a_grpc_node_keeps_its_meaning() -> None:
    class Refuses:
        def predict(self, X: Any, names: Any) -> Any:
            raise ValueError("not such rows")

    with grpc_microservice(Refuses()) as port, alone(f"grpc://127.0.0.1:{port}") as server:
        response = server.test("/api/v1.0/predictions", REQUEST, silent=True)
    assert (response.status_code, response.body["status"]["info"]) == (400, "not such rows")


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_node_that_is_not_there_is_a_gateways_error_that_names_it(kind: str) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        port = taken.getsockname()[1]
        with function_of(node("a"), {"a": f"{kind}://127.0.0.1:{port}"}).to_mock_server() as server:
            response = server.test("/api/v1.0/predictions", REQUEST, silent=True)
            assert response.status_code == 502
            assert response.body["status"]["info"].startswith("node 'a': ")
            assert "cannot be reached" in response.body["status"]["info"]
            assert server.test("/ready", silent=True, get_body=False).status_code == 503
            status = server.test("/api/v1.0/status/a", silent=True)
            assert (status.status_code, status.body["status"]["reason"]) == (502, "ENGINE_MICROSERVICE_ERROR")


def test_rest_node_gets_all_headers_but_those_of_connection_and_body() -> None:
    graph = node("r", "ROUTER", node("a"))
    with peer() as (address, seen), function_of(graph, {"r": address, "a": address}).to_mock_server() as server:
        headers = {
            "Traceparent": "00-1", "Authorization": "secret", "Seldon-Puid": "p", "X-Mine": "1", "User-Agent": "me",
            "Host": "outer", "Connection": "close, X-Hop", "X-Hop": "1", "Content-Encoding": "none", "TE": "trailers",
            "Seldon-Predictor": "main", "Transfer-Encoding": "chunked", "Content-Length": "99", "X-Odd": "\u00e4",
        }  # fmt: skip
        assert ask(server, headers=headers)["strData"] == "x"
    assert [asked.path for asked in seen] == ["/route", "/predict"]
    for asked in seen:
        own = {k: v for k, v in asked.headers.items() if k not in ("accept", "accept-encoding", "content-length")}
        assert own == {
            "traceparent": "00-1", "authorization": "secret", "seldon-puid": "p", "x-mine": "1", "user-agent": "me",
            "host": address.removeprefix("http://"), "connection": "keep-alive", "content-type": "application/json",
        }  # fmt: skip


def test_numbers_that_json_has_no_word_for_reach_a_rest_node() -> None:
    class Seen:
        rows: Any = None

        def predict(self, X: Any, names: Any) -> Any:
            self.rows = X
            return [[1.0]]

    far = Seen()
    body = {"data": {"ndarray": [[float("nan"), float("-inf"), 1.5]]}, "meta": {"tags": {"none": None}}}
    with microservice(far) as port:
        graph = node("t", "TRANSFORMER", node("a"))
        components = {"t": Add(1, "t"), "a": f"http://127.0.0.1:{port}"}
        with function_of(graph, components).to_mock_server() as server:
            ask(server, body)
    assert np.isnan(far.rows[0][0])
    assert far.rows.tolist()[0][1:] == [float("-inf"), 2.5]


def test_node_may_have_a_list_of_headers_of_its_own() -> None:
    with peer() as (address, seen):
        function = function_of(node("a"), {"a": address})
        function.graph["main"]["a"].class_args["unit"]["forward_headers"] = ["X-Mine"]
        with function.to_mock_server() as server:
            ask(server, headers={"X-Mine": "1", "Authorization": "secret", "Seldon-Puid": "p"})
    (asked,) = seen
    assert (asked.headers["x-mine"], asked.headers["seldon-puid"]) == ("1", "p")
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no json", "answered with something other than JSON"),
        (b'{"data": {"ndarray": 3}}', "answered with no message: data.ndarray must be a list"),
        (b'{"meta": 3}', "answered with no message: meta must be an object"),
        (b"3", "answered with no message"),
    ],
)
def test_answer_that_is_no_message_is_the_nodes_fault(body: bytes, message: str) -> None:
    unit = RemoteUnit("a", {"host": "h", "port": 1})
    with pytest.raises(RemoteError, match=message):
        unit._read(200, body, "http://h:1/predict")


def test_endpoint_without_address_is_refused() -> None:
    with pytest.raises(GraphError, match="node 'a' runs elsewhere: its endpoint needs service_host and a port"):
        RemoteUnit("a", {"type": "REST"})
