"""Components that use Flask as nodes of a tree: they see what they see alone, and their error handlers answer."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import flask
import numpy as np
import pytest
from tree_kit import REQUEST, Add, Route, deployment, function_of, node, predictor, rows

from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.compat.flask_utils import get_request
from servegraph.serving.seldon.errors import SeldonMicroserviceException

PREDICTIONS = "/api/v1.0/predictions"


class Looking:
    """Answers with what it sees of the request; each operation also notes its path."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def predict(self, X: Any, names: Any) -> Any:
        request = flask.request
        self.seen.append(
            {
                "user": request.headers.get("X-User"),
                "puid": request.headers.get("Seldon-Puid"),
                "path": request.path,
                "method": request.method,
                "json": request.get_json(),
                "args": dict(request.args),
                "form": dict(request.form),
                "get_request": get_request(),
            }
        )
        return X

    transform_input = transform_output = predict

    def route(self, X: Any, names: Any) -> int:
        self.predict(X, names)
        return 0

    def aggregate(self, X: Any, names: Any) -> Any:
        self.predict(X, names)
        return X[0]

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        self.predict(X, names)


class LookingAsync(Looking):
    async def predict(self, X: Any, names: Any) -> Any:
        await asyncio.sleep(0)
        return Looking.predict(self, X, names)


class Refused(Exception):
    """What the components below fail with."""


class Handled:
    """Fails, and answers its failure by a handler of its own."""

    model_error_handler = flask.Blueprint("error_handlers", __name__)

    def __init__(self, how: str = "json") -> None:
        self.how = how

    def predict(self, X: Any, names: Any) -> Any:
        if self.how == "abort":
            flask.abort(409, "not now")
        if self.how == "unhandled":
            raise KeyError("nobody handles this")
        if self.how == "told":
            raise SeldonMicroserviceException("no row", status_code=404, reason="NO_ROW")
        raise Refused(self.how)

    transform_input = transform_output = aggregate = predict

    def route(self, X: Any, names: Any) -> int:
        self.predict(X, names)
        return 0

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        self.predict(X, names)


@Handled.model_error_handler.app_errorhandler(Refused)
def refuse(error: Refused) -> Any:
    user = flask.request.headers.get("X-User", "")
    if str(error) == "text":
        return f"no, {user}", 451, {"Content-Type": "text/plain; charset=utf-8"}
    if str(error) == "fallback":
        return flask.jsonify({"data": {"ndarray": [[7.0]]}, "meta": {"tags": {"fallback": True}}})
    if str(error) == "broken":
        return "{", 500, {"Content-Type": "application/json"}
    if str(error) == "again":
        raise ValueError("the handler fails as well")
    body = {
        "status": {"code": 1402, "info": f"{user} must pay", "reason": "PAY", "status": 1},
        "path": flask.request.path,
    }
    return flask.jsonify(body), 402


class HandledAsync(Handled):
    async def predict(self, X: Any, names: Any) -> Any:
        return Handled.predict(self, X, names)


def answer_of(graph: Any, components: Any, path: str = PREDICTIONS, body: Any = None) -> Any:
    with function_of(graph, components).to_mock_server() as server:
        headers = {"X-User": "me", "Seldon-Puid": "p-1"}
        return server.test(path, body or REQUEST, headers=headers, silent=True)


def failure(info: str, reason: str) -> dict[str, Any]:
    """The body of a failure of node ``n``."""
    return {"status": {"code": -1, "info": f"node 'n': {info}", "reason": reason, "status": 1}}


# -- the request -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Looking, LookingAsync])
def test_node_sees_the_message_that_it_gets_and_the_headers_of_the_request(kind: type[Looking]) -> None:
    looking = kind()
    components = {"in": Add(1, "in"), "m": looking}
    answer = answer_of(node("in", "TRANSFORMER", node("m")), components)
    assert rows(answer.body) == [[2.0, 3.0]]
    (seen,) = looking.seen
    message = {"data": {"names": ["t:0", "t:1"], "ndarray": [[2.0, 3.0]]}, "meta": seen["json"]["meta"]}
    assert seen == {
        "user": "me",
        "puid": "p-1",
        "path": "/predict",
        "method": "POST",
        "json": message,
        "args": {},
        "form": {},
        "get_request": message,
    }
    assert seen["json"]["meta"] == {"puid": "p-1", "tags": {"in": 1, "last": "in"}}


def test_each_operation_has_the_path_that_it_has_alone() -> None:
    kinds = {"in": "TRANSFORMER", "out": "OUTPUT_TRANSFORMER", "pick": "ROUTER", "sum": "COMBINER", "m": "MODEL"}
    components = {name: Looking() for name in kinds}
    graph = node("m")
    for name in ("sum", "pick", "out", "in"):
        graph = node(name, kinds[name], graph)
    assert answer_of(graph, components).status_code == 200
    paths = {name: [seen["path"] for seen in component.seen] for name, component in components.items()}
    assert paths == {
        "in": ["/transform-input"],
        "out": ["/transform-output"],
        "pick": ["/route"],
        "sum": ["/aggregate"],
        "m": ["/predict"],
    }
    assert components["sum"].seen[0]["json"][0]["data"]["ndarray"] == [[1.0, 2.0]]
    feedback = {"request": REQUEST, "response": {"meta": {"puid": "p-2", "routing": {"pick": 0}}}, "reward": 0.5}
    assert answer_of(graph, components, "/api/v1.0/feedback", feedback).status_code == 200
    for name in ("m", "pick"):
        seen = components[name].seen[-1]
        assert (seen["path"], seen["json"]["reward"], seen["puid"]) == ("/send-feedback", 0.5, "p-2")


def test_request_that_came_as_a_form_is_json_for_nodes() -> None:
    component = Looking()
    with function_of(node("in", "TRANSFORMER", node("m")), {"in": Add(1), "m": component}).to_mock_server() as server:
        body = b"json=%7B%22data%22%3A%7B%22ndarray%22%3A%5B%5B1.0%5D%5D%7D%7D"
        answer = server.test(PREDICTIONS, body, content_type="application/x-www-form-urlencoded")
    assert np.array_equal(answer["data"]["ndarray"], [[2.0]])
    assert component.seen[0]["get_request"]["data"]["ndarray"] == [[2.0]]


# -- errors ------------------------------------------------------------------------------------------------------------

KINDS = ("MODEL", "TRANSFORMER", "OUTPUT_TRANSFORMER", "ROUTER", "COMBINER")
PATHS = {
    "MODEL": "/predict",
    "TRANSFORMER": "/transform-input",
    "OUTPUT_TRANSFORMER": "/transform-output",
    "ROUTER": "/route",
    "COMBINER": "/aggregate",
}


@pytest.mark.parametrize("kind", KINDS)
def test_status_and_body_of_a_handler_are_those_of_the_deployment(kind: str) -> None:
    graph = node("in", "TRANSFORMER", node("n", kind, node("m")))
    answer = answer_of(graph, {"in": Add(1), "n": Handled(), "m": Add(1)})
    assert answer.status_code == 402
    assert answer.body == {
        "status": {"code": 1402, "info": "me must pay", "reason": "PAY", "status": 1},
        "path": PATHS[kind],
    }
    assert answer.headers["Seldon-Puid"] == "p-1"


@pytest.mark.parametrize("kind", [Handled, HandledAsync])
@pytest.mark.parametrize(
    ("how", "status", "body"),
    [
        ("text", 451, b"no, me"),
        ("broken", 500, b"{"),
        (
            "abort",
            409,
            {"status": {"code": -1, "info": "409 Conflict: not now", "reason": "MICROSERVICE_BAD_DATA", "status": 1}},
        ),
        ("told", 404, failure("no row", "NO_ROW")),
        (
            "unhandled",
            500,
            failure("'nobody handles this'", "MICROSERVICE_INTERNAL_ERROR"),
        ),
        (
            "again",
            500,
            failure("the handler fails as well", "MICROSERVICE_INTERNAL_ERROR"),
        ),
    ],
)  # fmt: skip
def test_failures_come_out_as_the_component_wants_them(kind: Any, how: str, status: int, body: Any) -> None:
    answer = answer_of(node("in", "TRANSFORMER", node("n")), {"in": Add(1), "n": kind(how)})
    assert (answer.status_code, answer.body) == (status, body)
    assert answer.content_type == ("text/plain; charset=utf-8" if isinstance(body, bytes) else "application/json")


@pytest.mark.parametrize("kind", [Handled, HandledAsync])
def test_handler_that_answers_with_200_is_the_answer_of_its_node(kind: Any) -> None:
    graph = node("out", "OUTPUT_TRANSFORMER", node("n"))
    answer = answer_of(graph, {"out": Add(1, "out"), "n": kind("fallback")})
    assert answer.status_code == 200
    assert rows(answer.body) == [[8.0]]
    assert answer.body["meta"]["tags"] == {"fallback": True, "out": 1, "last": "out"}


def test_handler_answers_for_feedback_too() -> None:
    body = {"request": REQUEST, "response": {}, "reward": 1}
    answer = answer_of(node("n"), {"n": Handled()}, "/api/v1.0/feedback", body)
    assert (answer.status_code, answer.body["path"]) == (402, "/send-feedback")


def test_low_level_answer_with_a_status_is_an_error_of_the_deployment() -> None:
    class Raw:
        def predict_raw(self, request: Any) -> Any:
            return {"status": {"code": 418, "info": "short and stout", "status": 1}}

    answer = answer_of(node("pick", "ROUTER", node("n")), {"pick": Route(), "n": Raw()})
    assert (answer.status_code, answer.body["status"]["info"]) == (418, "short and stout")


def test_children_beside_one_that_is_handled_do_not_change_the_answer() -> None:
    graph = node("sum", "COMBINER", node("a"), node("n"))
    answer = answer_of(graph, {"sum": Add(0), "a": Add(1), "n": Handled("text")})
    assert (answer.status_code, answer.body) == (451, b"no, me")


# -- over the wire -----------------------------------------------------------------------------------------------------


def test_handled_errors_of_a_node_over_http_and_grpc() -> None:
    grpc = pytest.importorskip("grpc")
    from servegraph.serving.seldon.proto import prediction_pb2 as pb
    from servegraph.serving.seldon.proto import prediction_pb2_grpc

    graph = node("in", "TRANSFORMER", node("n"))
    function = function_from_deployment(deployment(predictor(graph)), components={"in": Add(1), "n": Handled()})
    told = function_from_deployment(deployment(predictor(node("n"))), components={"n": Handled("told")})
    with function.serve(http_port=0, grpc_port=0, block=False) as running:
        connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=20)
        for _ in range(30):  # enough for the short way, which trusted code goes
            connection.request(
                "POST", PREDICTIONS, json.dumps(REQUEST), {"Content-Type": "application/json", "X-User": "me"}
            )
            response = connection.getresponse()
            body = json.loads(response.read())
            assert (response.status, body["status"]["info"], body["path"]) == (402, "me must pay", "/predict")
        connection.close()
        request = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[1.0])))
        with grpc.insecure_channel(f"127.0.0.1:{running.addresses['grpc'][1]}") as channel:
            stub: Any = prediction_pb2_grpc.SeldonStub(channel)
            with pytest.raises(grpc.RpcError) as failed:  # handlers of Flask answer no gRPC, as ever
                stub.Predict(request, timeout=20)
            assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INTERNAL, "node 'n': json")
    with told.serve(http_port=0, grpc_port=0, block=False) as running:
        with grpc.insecure_channel(f"127.0.0.1:{running.addresses['grpc'][1]}") as channel:
            stub = prediction_pb2_grpc.SeldonStub(channel)
            with pytest.raises(grpc.RpcError) as failed:
                stub.Predict(request, timeout=20)
        assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "node 'n': no row")
        assert dict(failed.value.trailing_metadata())["reason"] == "NO_ROW"
