"""SeldonDeployments from files: where their code is found, how they are written, and served over HTTP and gRPC."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any

import pytest
from served_command import Served

from servegraph.errors import NotFoundError, SpecError
from servegraph.graph.plot import plot
from servegraph.runtimes.function_spec import function_from_dict, function_to_dict, function_to_yaml
from servegraph.runtimes.seldon.deployment import function_from_text
from servegraph.runtimes.serving_spec import function_from_spec
from servegraph.runtimes.source import load_function

PREDICTIONS = "/api/v1.0/predictions"
ONE = {"data": {"ndarray": [[1.0]]}}

HEAD = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: sums, namespace: ns}
spec:
  predictors:
"""
TREE = (
    HEAD
    + """
    - name: main
      componentSpecs:
        - spec:
            containers:
              - {name: plus, image: "registry:5000/me/plus:1.2"}
              - {name: times, image: "me/times:0.1", env: [{name: MODEL_NAME, value: Times.Twice}]}
      graph:
        name: plus
        type: TRANSFORMER
        parameters: [{name: by, value: "3", type: INT}]
        children: [{name: times}]
"""
)
PLUS = """
class Plus:
    def __init__(self, by=1):
        self.by = by
    def transform_input(self, X, names):
        return X + self.by
    def metrics(self):
        return [{"type": "COUNTER", "key": "added", "value": 1}]
"""
TIMES = """
class Twice:
    def predict(self, X, names):
        return X * 2
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, **{"deployment.yaml": TREE, "plus__Plus.py": PLUS, "times__Times.py": TIMES})


def answered(function: Any, body: Any = None) -> Any:
    with function.to_mock_server() as server:
        return server.test(PREDICTIONS, body or ONE)["data"]["ndarray"].tolist()


def test_deployment_file_is_a_function_with_code_from_its_folders(folder: Path) -> None:
    function = load_function(str(folder / "deployment.yaml"))
    assert (function.name, function.project, function.spec.workdir) == ("sums", "ns", str(folder))
    assert answered(function) == [[8.0]]


def test_function_of_a_deployment_reads_back_equal_and_is_drawn(folder: Path) -> None:
    function = load_function(str(folder / "deployment.yaml"))
    again = function_from_dict(function_to_dict(function))
    assert function_to_yaml(again) == function_to_yaml(function)
    assert answered(again) == [[8.0]]
    write(folder, **{"function.yaml": function_to_yaml(function)})
    assert answered(load_function(str(folder / "function.yaml"))) == [[8.0]]
    text = plot(function.graph).mermaid
    assert all(name in text for name in ("main", "plus", "times"))
    assert [p for p in function.validate() if p.level == "error"] == []


@pytest.mark.parametrize(
    ("name", "code"),
    [("plus", "plus/Other.py:Other"), ("registry:5000/me/plus:1.2", "plus/Other.py"), ("plus", "other_plus:Other"),
     ("registry:5000/me/plus", "plus/Other.py"), ("plus", "other_plus.Other")],
)  # fmt: skip
def test_code_is_named_by_node_or_image(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = PLUS.replace("Plus", "Other").replace("X + self.by", "X + 10 * self.by")
    write(folder, **{"plus__Other.py": other, "other_plus.py": other})
    monkeypatch.syspath_prepend(str(folder))
    function = load_function(str(folder / "deployment.yaml"), components={name: code})
    assert answered(function) == [[62.0]]


def test_components_file_names_code_and_parameters(folder: Path) -> None:
    components = "components:\n  plus: {class: 'plus/Plus.py', parameters: {by: 100}}\n"
    write(folder, **{"components.yaml": components})
    assert answered(load_function(str(folder / "deployment.yaml"))) == [[202.0]]
    # What is given by hand goes over the file.
    function = load_function(str(folder / "deployment.yaml"), components={"plus": "plus/Plus.py"})
    assert answered(function) == [[8.0]]


def test_annotation_names_code(folder: Path) -> None:
    annotated = TREE.replace(
        "- name: main", '- name: main\n      annotations: {servegraph.io/class.plus: "code/P.py:Plus"}'
    )
    write(folder, **{"deployment.yaml": annotated, "code__P.py": PLUS.replace("X + self.by", "X - self.by")})
    assert answered(load_function(str(folder / "deployment.yaml"))) == [[-4.0]]


def test_two_components_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    text = HEAD + "    - {name: main, graph: {name: a, type: MODEL, children: [{name: b}]}}\n"
    model = "class Model:\n    def predict(self, X, names):\n        return X + {}\n"
    write(tmp_path, **{"d.yaml": text, "a__Model.py": model.format(1), "b__Model.py": model.format(10)})
    assert answered(load_function(str(tmp_path / "d.yaml"))) == [[12.0]]


def test_s2i_folder_names_its_component(tmp_path: Path) -> None:
    text = HEAD + "    - {name: main, graph: {name: a}}\n"
    model = "class Mine:\n    def predict(self, X, names):\n        return X + 1\n"
    files = {"d.yaml": text, "a__Mine.py": model, "a__helpers.py": "", "a__.s2i__environment": "MODEL_NAME=Mine\n"}
    write(tmp_path, **files)
    assert answered(load_function(str(tmp_path / "d.yaml"))) == [[2.0]]


def test_class_itself_may_be_given_in_a_notebook() -> None:
    class Mine:
        def predict(self, X: Any, names: Any) -> Any:
            return X + 1

    text = HEAD + "    - {name: main, graph: {name: a}}\n"
    assert answered(function_from_text(text, components={"a": Mine})) == [[2.0]]
    assert answered(function_from_text(text, components={"a": Mine()})) == [[2.0]]


def test_packaged_server_finds_its_model_beside_the_deployment(tmp_path: Path) -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    import joblib

    model = sklearn.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    (tmp_path / "model").mkdir()
    joblib.dump(model, tmp_path / "model" / "model.joblib")
    parameters = (
        "parameters: [{name: method, value: predict, type: STRING}, {name: allow_pickle, value: 'true', type: BOOL}]"
    )
    graph = f"{{name: m, implementation: SKLEARN_SERVER, modelUri: model, {parameters}}}"
    write(tmp_path, **{"d.yaml": HEAD + f"    - {{name: main, graph: {graph}}}\n"})
    function = load_function(str(tmp_path / "d.yaml"))
    assert answered(function, {"data": {"ndarray": [[3.0]]}}) == pytest.approx([6.0])


def alone(graph: str) -> dict[str, str]:
    return {"deployment.yaml": HEAD + f"    - {{name: main, graph: {graph}}}\n"}


FILE = {"deployment.yaml": TREE}
WRONG: list[Any] = [
    (
        alone("{name: a}"),
        None,
        r"spec\.predictors\[0\]\.graph\.name: there is no code here for node 'a': give --component a=module:Class",
    ),
    (
        alone("{name: a, implementation: SKLAERN_SERVER, modelUri: x}"),
        None,
        r"graph\.implementation: there is no packaged server 'SKLAERN_SERVER'; did you mean 'SKLEARN_SERVER'",
    ),
    (FILE, {"plus": "a:B", "times": "a:B", "tims": "a:B"}, "component 'tims' is given, and no node, container"),
    (FILE | {"components.yaml": "plus: 3"}, None, r"components\.plus: must be module:Class"),
    (FILE | {"components.yaml": "plus: {clas: x}"}, None, r"components\.plus: has no 'clas'; did you mean 'class'"),
    (FILE | {"components.yaml": "- x"}, None, "components.yaml: must be an object"),
    (FILE, {"plus": "http://nowhere"}, "'http://nowhere' is no address"),
    (FILE, {"plus": ""}, r"components\.plus: must be module:Class"),
]


@pytest.mark.parametrize(("files", "components", "message"), WRONG)
def test_what_cannot_be_found_is_told_with_the_file(tmp_path: Path, files: Any, components: Any, message: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(SpecError, match=message) as failed:
        load_function(str(tmp_path / "deployment.yaml"), components=components)
    assert not failed.value.message.startswith("$")


def test_file_with_several_deployments_asks_which(tmp_path: Path) -> None:
    graph = "    - {name: main, graph: {name: m, implementation: SIMPLE_MODEL}}\n"
    write(tmp_path, **{"d.yaml": HEAD + graph + "---" + HEAD.replace("sums", "second") + graph})
    with pytest.raises(NotFoundError, match="holds 2 deployments, sums, second: say which one with --name"):
        load_function(str(tmp_path / "d.yaml"))
    assert load_function(str(tmp_path / "d.yaml"), "second").name == "second"
    with pytest.raises(NotFoundError, match="no deployment 'third'"):
        load_function(str(tmp_path / "d.yaml"), "third")


def test_deployment_as_dictionary_is_a_function_too() -> None:
    spec = {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": "d"},
        "spec": {"predictors": [{"name": "main", "graph": {"name": "m", "implementation": "SIMPLE_MODEL"}}]},
    }
    assert function_from_spec(spec).name == "d"


# -- over the wire -----------------------------------------------------------------------------------------------------


def test_deployment_serves_http_grpc_and_metrics(folder: Path) -> None:
    function = load_function(str(folder / "deployment.yaml"))
    with function.serve(http_port=0, grpc_port=0, block=False) as running:
        port = int(running.url.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

        def send(method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[Any, bytes]:
            raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
            connection.request(method, path, raw, {"content-type": kind} if body is not None else {})
            response = connection.getresponse()
            return response, response.read()

        for _ in range(30):  # enough for the short way, which trusted code goes
            response, raw = send("POST", f"/seldon/ns/sums{PREDICTIONS}", ONE)
            answer = json.loads(raw)
            assert (response.status, answer["data"]) == (200, {"names": ["t:0"], "ndarray": [[8.0]]})
            assert response.headers["Seldon-Puid"] == answer["meta"]["puid"]
        assert answer["meta"]["requestPath"] == {"plus": "registry:5000/me/plus:1.2", "times": "me/times:0.1"}
        response, raw = send("POST", PREDICTIONS, b"{broken")
        assert (response.status, json.loads(raw)["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")
        response, raw = send("POST", PREDICTIONS, {"data": {"ndarray": [["x"]]}})
        assert (response.status, json.loads(raw)["status"]["status"]) == (500, 1)
        assert json.loads(raw)["status"]["info"].startswith("node 'plus': ")
        assert send("GET", "/ready")[0].status == 200
        assert send("GET", "/live")[0].status == 200
        assert send("GET", "/api/v1.0/metadata/plus")[0].status == 200
        response, raw = send("POST", "/api/v1.0/feedback", {"request": ONE, "response": answer, "reward": 1})
        assert response.status == 200
        text = send("GET", "/prometheus")[1].decode()
        connection.close()
        _ask_over_grpc(running.addresses["grpc"][1])
    assert _value(text, "seldon_api_executor_server_requests_seconds_count", service="predictions", code="200") == 30
    assert _value(text, "seldon_api_executor_server_requests_seconds_count", service="feedback", code="200") == 1
    client = "seldon_api_executor_client_requests_seconds_count"
    assert _value(text, client, model_name="plus", code="200", service="/transform-input") == 30
    assert (
        _value(text, client, model_name="plus", code="500", model_image="registry:5000/me/plus", model_version="1.2")
        == 1
    )
    assert _value(text, "added_total", model_name="plus") == 30


def _value(text: str, name: str, **labels: str) -> float:
    """The value of the one sample with these labels."""
    found = []
    for line in text.splitlines():
        match = re.match(rf"{name}\{{(.*)\}} (\S+)", line)
        if match and all(f'{k}="{v}"' in match.group(1) for k, v in labels.items()):
            found.append(float(match.group(2)))
    assert len(found) == 1, (name, labels, found)
    return found[0]


def _ask_over_grpc(port: int) -> None:
    grpc = pytest.importorskip("grpc")
    from servegraph.serving.seldon.proto import prediction_pb2 as pb
    from servegraph.serving.seldon.proto import prediction_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = prediction_pb2_grpc.SeldonStub(channel)
        request = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[1.0])))
        reply = stub.Predict(request, timeout=20)
        assert list(reply.data.tensor.values) == [8.0]
        assert reply.meta.puid
        assert dict(reply.meta.routing) == {"plus": -1}
        stub.SendFeedback(pb.Feedback(response=reply, reward=1.0), timeout=20)
        bad = pb.SeldonMessage(strData="x")
        with pytest.raises(grpc.RpcError) as failed:
            stub.Predict(bad, timeout=20)
        assert "node 'plus'" in failed.value.details()


@pytest.mark.slow
def test_command_serves_a_deployment_with_code_given_by_hand(folder: Path) -> None:
    (folder / "plus" / "Plus.py").rename(folder / "somewhere.py")
    arguments = ["--component", "plus=somewhere.py:Plus", "--set", "grpc_port=off"]
    with Served(folder / "deployment.yaml", *arguments) as served:
        status, answer = served.ask(PREDICTIONS, ONE)
        assert (status, answer["data"]["ndarray"]) == (200, [[8.0]])
        assert served.stop() == 0
