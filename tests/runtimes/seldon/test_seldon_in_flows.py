"""Deployments inside of other graphs, and servegraph's own models inside of deployments."""

from __future__ import annotations

import http.client
import json
from typing import Any

import numpy as np
import pytest

import servegraph
from servegraph.errors import RequestFailedError
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.function_spec import function_from_dict, function_to_dict
from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.step import ComponentStep

REQUEST: dict[str, Any] = {"data": {"ndarray": [[1.0, 2.0]]}}
engines = pytest.mark.parametrize("engine", ["sync", "async"])


class Add:
    def __init__(self, by: float = 1.0) -> None:
        self.by = by
        self.rewards: list[float] = []

    def predict(self, X: Any, names: Any) -> Any:
        if X[0][0] < 0:
            raise SeldonMicroserviceException("below zero", status_code=422, reason="BELOW")
        return X + self.by

    transform_input = predict

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        self.rewards.append(reward)

    def tags(self) -> dict[str, Any]:
        return {"by": self.by}

    def get_state(self) -> dict[str, Any]:
        return {"rewards": self.rewards}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rewards = state["rewards"]


class AddAsync(Add):
    async def predict(self, X: Any, names: Any) -> Any:
        return Add.predict(self, X, names)


class Doubler(servegraph.V2ModelServer):
    def load(self) -> None:
        self.model = 2

    def predict(self, request: Any) -> Any:
        return [[x * self.model for x in row] for row in request["inputs"]]


def deployed(components: Any = None, **annotations: str) -> ServingFunction:
    """A transformer in front of an A/B test whose first branch is always taken."""
    ab = {
        "name": "ab",
        "implementation": "RANDOM_ABTEST",
        "parameters": [{"name": "ratioA", "value": "1.0", "type": "FLOAT"}],
        "children": [{"name": "a"}, {"name": "b"}],
    }
    graph = {"name": "in", "type": "TRANSFORMER", "children": [ab]}
    document = {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "d", "annotations": annotations},
        "spec": {"predictors": [{"name": "main", "graph": graph}]},
    }
    return function_from_deployment(document, components=components or {"in": Add(1), "a": Add(10), "b": Add(100)})


def parse(body: Any) -> Any:
    return body.get("body", body) if isinstance(body, dict) else body


def wrap(body: Any) -> Any:
    return {"answer": body}


def flow_of(step: Any, engine: str = "sync") -> ServingFunction:
    """A flow that has a deployment's step in its middle."""
    function = servegraph.new_function("outer")
    graph = function.set_topology("flow", engine=engine)
    graph.to(name="parse", handler=parse).to(step).to(name="wrap", handler=wrap).respond()
    return function


def post(function: ServingFunction, path: str, *bodies: Any) -> list[tuple[int, Any]]:
    """What a real server answers to each body."""
    with function.serve(http_port=0, grpc_port="off", block=False) as running:
        connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=20)
        found = []
        for body in bodies:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            found.append((response.status, json.loads(response.read())))
        connection.close()
    return found


# -- a deployment inside of a flow -------------------------------------------------------------------------------------


@engines
@pytest.mark.parametrize("whole", [True, False], ids=["predictor", "tree"])
def test_deployment_is_a_step_of_a_flow(engine: str, whole: bool) -> None:
    inner = deployed().graph["main"]
    function = flow_of(inner if whole else inner["in"], engine)
    with function.to_mock_server() as server:
        answer = server.test("/", {"body": REQUEST})["answer"]
        assert answer["data"]["ndarray"].tolist() == [[12.0, 13.0]]
        assert answer["meta"]["routing"] == {"in": -1, "ab": 0}
        assert answer["meta"]["requestPath"] == {"in": "Add", "ab": "RANDOM_ABTEST", "a": "Add"}
        assert answer["meta"]["tags"] == {"by": 10}
        rows = server.test("/", {"inputs": [[1.0]], "id": "7"})["answer"]
        assert rows == {"model_name": "main" if whole else "in", "outputs": [[12.0]], "id": "7"}
        message = server.test("/", Message("data", np.array([[5.0]]), encoding="tensor"))["answer"]
        assert isinstance(message, Message)
        assert (message.value.tolist(), message.encoding) == ([[16.0]], "tensor")


@engines
def test_flow_with_a_deployment_is_served(engine: str) -> None:
    bodies = [REQUEST] * 20 + [{"data": {"ndarray": [[-1.0]]}}, {"nothing": 1}, {"data": {"tensor": {"shape": [3]}}}]
    *good, below, nothing, malformed = post(flow_of(deployed().graph["main"], engine), "/", *bodies)
    assert all(status == 200 and body["answer"]["data"]["ndarray"] == [[12.0, 13.0]] for status, body in good)
    assert (below[0], below[1]["detail"], below[1]["step"]) == (422, "node 'in': below zero", "in")
    assert (nothing[0], malformed[0]) == (400, 400)
    assert nothing[1]["detail"].startswith("node 'main': Invalid request data type")


def test_deployment_is_a_route_of_a_router() -> None:
    function = servegraph.new_function("models")
    graph = function.set_topology("router")
    graph.add_route("tree", deployed().graph["main"])
    graph.add_route("double", class_name=Doubler)
    with function.to_mock_server() as server:
        assert server.test("/v2/models/tree/infer", {"inputs": [[1.0, 2.0]]})["outputs"] == [[12.0, 13.0]]
        assert server.test("/v2/models/double/infer", {"inputs": [[1.0]]})["outputs"] == [[2.0]]


@pytest.mark.parametrize("whole", [True, False], ids=["predictor", "tree"])
def test_deployment_learns_from_feedback_as_a_step_of_a_flow(whole: bool) -> None:
    components = {"in": Add(1), "a": Add(10), "b": Add(100)}
    inner = deployed(components).graph["main"]
    function = flow_of(inner if whole else inner["in"])
    with function.to_mock_server() as server:
        answer = server.test("/", REQUEST)["answer"]
        server.test("/", {"request": REQUEST, "response": answer, "reward": 0.5})
        with pytest.raises(RequestFailedError) as failed:
            server.test("/", {"request": REQUEST, "reward": "much"})
        assert failed.value.status == 400
    assert [c.rewards for c in components.values()] == [[], [0.5], []]


def test_flow_with_a_deployment_is_written_and_read_back() -> None:
    components = dict.fromkeys(("in", "a", "b"), "servegraph.serving.seldon.outliers.MahalanobisDetector")
    function = servegraph.new_function("outer")
    graph = function.set_topology("flow", engine="sync")
    graph.to(deployed(components).graph["main"]).respond()
    again = function_from_dict(function_to_dict(function))
    for one in (function, again):
        with one.to_mock_server() as server:
            answer = server.test("/", REQUEST)
        assert answer["meta"]["routing"] == {"in": -1, "ab": 0}


def test_nodes_keep_their_state_inside_of_a_flow() -> None:
    place = "memory://flow-with-a-deployment"
    for times in (1, 2):
        components = {"in": Add(1), "a": Add(10), "b": Add(100)}
        inner = deployed(components, **{"servegraph.io/state-store": place}).graph["main"]["in"]
        with flow_of(inner).to_mock_server() as server:
            answer = server.test("/", REQUEST)["answer"]
            server.test("/", {"request": REQUEST, "response": answer, "reward": 1})
        assert components["a"].rewards == [1.0] * times


# -- a component inside of a flow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Add, AddAsync])
def test_component_of_a_flow_fails_with_the_status_that_it_chooses(kind: type[Add]) -> None:
    bodies: list[Any] = [{"inputs": [[-1.0]]}, {"data": {"ndarray": [[-1.0]]}}, {"data": 3}, [1], {"inputs": [[1.0]]}]
    function = servegraph.new_function("outer")
    graph = function.set_topology("flow", engine="async")
    graph.to(ComponentStep, name="model", component=kind()).respond()
    *failed, good = post(function, "/", *bodies)
    assert [status for status, _ in failed] == [422, 422, 400, 400]
    assert failed[0][1]["detail"] == "node 'model': below zero"
    assert good == (200, {"id": good[1]["id"], "model_name": "model", "outputs": [[2.0]], "tags": {"by": 1.0}})


def test_exception_of_the_real_package_counts_as_ours() -> None:
    class Foreign(Exception):
        """As ``seldon_core`` has it: nothing in its text."""

        def __init__(self, message: str, status_code: int, reason: str) -> None:
            super().__init__()
            self.message, self.status_code, self.reason = message, status_code, reason

    Foreign.__name__ = "SeldonMicroserviceException"

    class Refuses:
        def predict(self, X: Any, names: Any) -> Any:
            raise Foreign("no such row", 404, "NO_ROW")

    with deployed({"in": Add(), "a": Refuses(), "b": Add()}).to_mock_server() as server:
        answer = server.test("/api/v1.0/predictions", REQUEST, silent=True)
    assert answer.status_code == 404
    assert answer.body == {"status": {"code": -1, "info": "node 'a': no such row", "reason": "NO_ROW", "status": 1}}


# -- a model of servegraph inside of a deployment ----------------------------------------------------------------------


def test_v2_model_is_a_leaf_over_http_and_grpc() -> None:
    grpc = pytest.importorskip("grpc")
    from servegraph.serving.seldon.proto import prediction_pb2 as pb
    from servegraph.serving.seldon.proto import prediction_pb2_grpc

    function = deployed()
    function.graph["main"]["in"]["ab"].add_route("a", class_name=Doubler)
    with function.serve(http_port=0, grpc_port=0, block=False) as running:
        connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]), timeout=20)
        for _ in range(20):
            connection.request(
                "POST", "/api/v1.0/predictions", json.dumps(REQUEST), {"content-type": "application/json"}
            )
            answer = json.loads(connection.getresponse().read())
            assert answer["data"]["ndarray"] == [[4.0, 6.0]]
            assert answer["meta"]["requestPath"]["a"] == "Doubler"
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200
        connection.close()
        with grpc.insecure_channel(f"127.0.0.1:{running.addresses['grpc'][1]}") as channel:
            stub: Any = prediction_pb2_grpc.SeldonStub(channel)
            tensor = pb.Tensor(shape=[1, 2], values=[1.0, 2.0])
            reply = stub.Predict(pb.SeldonMessage(data=pb.DefaultData(tensor=tensor)), timeout=20)
            assert list(reply.data.tensor.values) == [4.0, 6.0]
            assert dict(reply.meta.routing) == {"in": -1, "ab": 0}
