"""What a deployment says of its nodes and of its whole graph: the same over REST and gRPC."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import servegraph
from servegraph.errors import ModelLoadError
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.endpoint import ComponentEndpoint

grpc = pytest.importorskip("grpc")

from google.protobuf import empty_pb2, json_format  # noqa: E402

from servegraph.serving.seldon.proto import prediction_pb2 as pb  # noqa: E402
from servegraph.serving.seldon.proto import prediction_pb2_grpc  # noqa: E402

NOTHING = {"versions": [""], "platform": "", "inputs": [], "outputs": [], "custom": {}}


def in_graph(model: dict[str, Any]) -> dict[str, Any]:
    """A node's metadata as that of its graph has it, where Seldon's executor leaves out what is empty."""
    return {key: value for key, value in model.items() if value or key not in ("platform", "custom")}


TENSOR = {"messagetype": "tensor", "schema": {"names": ["a"], "shape": [1]}}
V2 = {"name": "out", "datatype": "FP64", "shape": [-1, 3]}


class Described:
    """Says what it is told to say."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def init_metadata(self) -> dict[str, Any]:
        return self.said

    def predict(self, X: Any, names: Any) -> Any:
        return X

    transform_input = transform_output = predict

    def route(self, X: Any, names: Any) -> int:
        return 0

    def aggregate(self, X: Any, names: Any) -> Any:
        return X[0]


class Silent:
    def predict(self, X: Any, names: Any) -> Any:
        return X


class Server:
    """A deployment that is served over HTTP and gRPC."""

    def __init__(self, running: Any) -> None:
        self._http = int(running.url.rpartition(":")[2])
        self._grpc = running.addresses["grpc"][1]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._http, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=dict(headers or {}))
            with connection.getresponse() as response:
                return response.status, json.loads(response.read())

    def call(self, method: str, request: Any, headers: Mapping[str, str] | None = None) -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{self._grpc}") as channel:
            stub: Any = prediction_pb2_grpc.SeldonStub(channel)
            return getattr(stub, method)(request, timeout=20, metadata=tuple((headers or {}).items()))

    def model(self, name: str, headers: Mapping[str, str] | None = None) -> Any:
        return self.call("ModelMetadata", pb.SeldonModelMetadataRequest(name=name), headers)

    def graph(self, headers: Mapping[str, str] | None = None) -> Any:
        return self.call("GraphMetadata", empty_pb2.Empty(), headers)


@contextlib.contextmanager
def serve(function: ServingFunction) -> Iterator[Server]:
    with function.serve(http_port=0, grpc_port=0, block=False) as running:
        yield Server(running)


def node(name: str, kind: str, *children: Any, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "children": list(children), **fields}


def deployed(graph: Any, components: Any, *further: Any, containers: Any = ()) -> ServingFunction:
    main = {"name": "main", "graph": graph, "componentSpecs": [{"spec": {"containers": list(containers)}}]}
    predictors = [main, *further]
    for predictor in predictors:
        predictor["traffic"] = 100 if predictor is main else 0
    document = {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "d", "namespace": "ns"},
        "spec": {"predictors": predictors},
    }
    return function_from_deployment(document, components=components)


def as_dict(message: Any) -> Any:
    return json_format.MessageToDict(message)


def test_nodes_and_graph_say_the_same_over_rest_and_grpc() -> None:
    graph = node("t", "TRANSFORMER", node("pick", "ROUTER", node("m", "MODEL"), node("other", "MODEL")))
    containers = [
        {
            "name": "m",
            "image": "me/m:1.2",
            "env": [{"name": "MODEL_METADATA", "value": "platform: ours\ncustom: {a: b}"}],
        }
    ]
    components = {
        "t": Described(inputs=[TENSOR], outputs=[]),
        "pick": Described(inputs=[{"messagetype": "strData"}]),
        "m": Described(name="iris", platform="theirs", outputs=[V2]),
        "other": Silent,
    }
    models: dict[str, dict[str, Any]] = {
        "t": {**NOTHING, "name": "t", "inputs": [TENSOR]},
        "pick": {**NOTHING, "name": "pick", "inputs": [{"messagetype": "strData"}]},
        "m": {
            "name": "iris",
            "versions": ["1.2"],
            "platform": "ours",
            "inputs": [],
            "outputs": [V2],
            "custom": {"a": "b"},
        },
        "other": {**NOTHING, "name": "other"},
    }
    with serve(deployed(graph, components, containers=containers)) as server:
        for prefix in ("/api/v1.0", "/api/v0.1", "/seldon/ns/d/api/v1.0"):
            assert server.get(f"{prefix}/metadata") == (
                200,
                {
                    "name": "main",
                    "models": {n: in_graph(m) for n, m in models.items()},
                    "graphinputs": [TENSOR],
                    "graphoutputs": [V2],
                },
            )
        for name, model in models.items():
            assert server.get(f"/api/v1.0/metadata/{name}") == (200, model)
            found = server.model(name)
            assert found == json_format.ParseDict(model, pb.SeldonModelMetadata())
            assert server.graph().models[name] == found
        whole = server.graph()
    assert (whole.name, set(whole.models)) == ("main", set(models))
    assert as_dict(whole)["inputs"] == [{"messagetype": "tensor", "schema": {"names": ["a"], "shape": [1.0]}}]
    assert as_dict(whole)["outputs"] == [{"name": "out", "datatype": "FP64", "shape": ["-1", "3"]}]


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [
        ("MODEL", "own", "child"),
        ("TRANSFORMER", "own", "child"),
        ("OUTPUT_TRANSFORMER", "child", "own"),
        ("COMBINER", "child", "own"),
        ("ROUTER", "child", "child"),
    ],
)
def test_inputs_and_outputs_of_the_graph_are_those_of_its_ends(kind: str, inputs: str, outputs: str) -> None:
    components = {
        name: Described(inputs=[{"name": f"{name}-in"}], outputs=[{"name": f"{name}-out"}]) for name in ("own", "child")
    }
    components["second"] = Described(inputs=[{"name": "never"}], outputs=[{"name": "never"}])
    function = deployed(node("own", kind, node("child", "MODEL"), node("second", "MODEL")), components)
    with function.to_mock_server() as server:
        found = server.test("/api/v1.0/metadata", method="GET")
    assert found["graphinputs"] == [{"name": f"{inputs}-in"}]
    assert found["graphoutputs"] == [{"name": f"{outputs}-out"}]


def test_header_names_the_predictor_and_a_node_is_found_in_any() -> None:
    canary = {"name": "canary", "graph": node("m", "MODEL", node("extra", "MODEL"))}
    shadow = {"name": "shadow", "shadow": True, "graph": node("hidden", "MODEL")}
    components = {name: Described(platform=name) for name in ("extra", "hidden")} | {"m": Described(platform="m")}
    with serve(deployed(node("m", "MODEL"), components, canary, shadow)) as server:
        wanted = {"seldon-predictor": "canary"}
        assert set(server.get("/api/v1.0/metadata")[1]["models"]) == set(server.graph().models) == {"m"}
        status, whole = server.get("/api/v1.0/metadata", wanted)
        assert (status, whole["name"], set(whole["models"])) == (200, "canary", {"m", "extra"})
        assert (server.graph(wanted).name, set(server.graph(wanted).models)) == ("canary", {"m", "extra"})
        for name in ("extra", "hidden"):
            assert server.get(f"/api/v1.0/metadata/{name}")[1]["platform"] == server.model(name).platform == name
        assert server.get("/api/v1.0/metadata/hidden", wanted)[0] == 404
        assert server.get("/api/v1.0/metadata", {"seldon-predictor": "canery"})[0] == 400


def test_node_that_is_not_there_is_not_found() -> None:
    with serve(deployed(node("m", "MODEL"), {"m": Silent})) as server:
        status, body = server.get("/api/v1.0/metadata/n")
        assert (status, body["status"]["info"]) == (404, "there is no node 'n'; valid: m")
        for name in ("n", ""):
            with pytest.raises(grpc.RpcError) as failed:
                server.model(name)
            assert failed.value.code() is grpc.StatusCode.NOT_FOUND
            assert f"there is no node {name!r}" in failed.value.details()
        with pytest.raises(grpc.RpcError) as failed, grpc.insecure_channel(f"127.0.0.1:{server._grpc}") as channel:
            channel.unary_unary("/seldon.protos.Seldon/ModelMetadata")(b"\xff\xff", timeout=20)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_invalid_metadata_is_told_with_its_node_and_the_graph_serves() -> None:
    components = {"m": Described(outputs=3), "n": Silent}
    with serve(deployed(node("m", "MODEL", node("n", "MODEL")), components)) as server:
        for path in ("/api/v1.0/metadata", "/api/v1.0/metadata/m"):
            status, body = server.get(path)
            assert (status, body["status"]["reason"]) == (500, "MICROSERVICE_BAD_METADATA")
            assert body["status"]["info"] == "node 'm': Model metadata unavailable"
        assert server.get("/api/v1.0/metadata/n")[0] == 200
        calls: list[Any] = [server.graph, lambda: server.model("m")]
        for call in calls:
            with pytest.raises(grpc.RpcError) as failed:
                call()
            assert failed.value.code() is grpc.StatusCode.INTERNAL
            assert failed.value.details() == "node 'm': Model metadata unavailable"
        request = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[2.0])))
        assert list(server.call("Predict", request).data.tensor.values) == [2.0]


def test_component_that_fails_to_describe_itself_ends_the_start() -> None:
    class Failing(Silent):
        def init_metadata(self) -> Any:
            raise OSError("no file")

    with (
        pytest.raises(ModelLoadError, match=r"^node 'm': no file"),
        deployed(node("m", "MODEL"), {"m": Failing}).to_mock_server(),
    ):
        pass


def test_nodes_without_code_have_their_names_and_images() -> None:
    children = [{"name": "m", "implementation": "SIMPLE_MODEL"}, {"name": "n", "implementation": "SIMPLE_MODEL"}]
    graph = {"name": "ab", "implementation": "RANDOM_ABTEST", "children": children}
    with deployed(graph, {}, containers=[{"name": "n", "image": "me/n:7"}]).to_mock_server() as server:
        models = server.test("/api/v1.0/metadata", method="GET")["models"]
    assert models == {
        "ab": {"name": "ab", "versions": [""], "inputs": [], "outputs": []},
        "m": {"name": "m", "versions": [""], "inputs": [], "outputs": []},
        "n": {"name": "me/n", "versions": ["7"], "inputs": [], "outputs": []},
    }


# -- nodes that run elsewhere ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def elsewhere(component: Any, kind: str) -> Iterator[str]:
    """The address of a component that is served alone."""
    if kind == "http":
        function = servegraph.new_function("component")
        graph = function.set_topology("flow", engine="async")
        graph.to(ComponentEndpoint, name="component", component=component).respond()
        with function.serve(http_port=0, block=False) as running:
            yield f"http://127.0.0.1:{running.url.rpartition(':')[2]}"
        return
    from concurrent import futures

    from servegraph.serving.seldon.metadata import ModelMetadata

    class Servicer:
        def Metadata(self, request: Any, context: Any) -> Any:
            if component.said.get("fails"):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
            return ModelMetadata.of(component).to_proto()

        Predict = SendFeedback = Metadata

    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer: Any = Servicer()
    prediction_pb2_grpc.add_ModelServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_node_that_runs_elsewhere_is_asked(kind: str) -> None:
    said = {
        "name": "far",
        "versions": ["3"],
        "inputs": [TENSOR],
        "outputs": [V2],
        "platform": "p",
        "custom": {"k": "v"},
    }
    graph = node("t", "TRANSFORMER", node("m", "MODEL"))
    with (
        elsewhere(Described(**said), kind) as address,
        serve(deployed(graph, {"t": Described(), "m": address})) as server,
    ):
        assert server.get("/api/v1.0/metadata/m") == (200, said)
        assert server.get("/api/v1.0/metadata")[1]["models"]["m"] == said
        assert server.get("/api/v1.0/metadata")[1]["graphoutputs"] == [V2]
        assert server.model("m") == server.graph().models["m"] == json_format.ParseDict(said, pb.SeldonModelMetadata())


def test_errors_of_a_node_that_runs_elsewhere_are_passed_on() -> None:
    with (
        elsewhere(Described(versions=3), "http") as address,
        serve(deployed(node("m", "MODEL"), {"m": address})) as server,
    ):
        status, body = server.get("/api/v1.0/metadata/m")
        assert (status, body["status"]["reason"]) == (500, "MICROSERVICE_BAD_METADATA")
    with (
        elsewhere(Described(fails=True), "grpc") as address,
        serve(deployed(node("m", "MODEL"), {"m": address})) as server,
    ):
        status, body = server.get("/api/v1.0/metadata")
        assert (status, body["status"]["info"]) == (403, "not for you")
        with pytest.raises(grpc.RpcError) as failed:
            server.model("m")
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "not for you" in failed.value.details()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_node_that_is_not_reached_is_named(kind: str, free_port: int) -> None:
    with serve(deployed(node("m", "MODEL"), {"m": f"{kind}://127.0.0.1:{free_port}"})) as server:
        status, body = server.get("/api/v1.0/metadata")
        assert status == 502
        assert body["status"]["info"].startswith("node 'm': ")
        assert "cannot be reached" in body["status"]["info"]
