"""What a deployment tells of itself: the example request, the rows of the banner, the OpenAPI document."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from servegraph import jsoncodec
from servegraph.runtimes.banner import Example, describe, example
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.openapi import docs_page, openapi
from servegraph.runtimes.seldon.deployment import function_from_text

HEAD = """apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: flowers, namespace: garden}
spec:
  predictors:
"""
TWO = "{name: t, type: TRANSFORMER, children: [{name: m, type: MODEL}]}"
PREDICTIONS = "/api/v1.0/predictions"
OUTER = "/seldon/garden/flowers"


class Model:
    def predict(self, X: Any, names: Any) -> Any:
        return X


class Transformer:
    def transform_input(self, X: Any, names: Any) -> Any:
        return X


def of(**members: Any) -> type:
    return type("Of", (Model,), members)


def with_input(**given: Any) -> type:
    return of(init_metadata=lambda self: {"inputs": [given]})


def function(graph: str, **components: Any) -> ServingFunction:
    return function_from_text(f"{HEAD}  - {{name: main, graph: {graph}}}\n", components=components)


def example_of(graph: str, **components: Any) -> Any:
    """The body of the example request, which the server must answer."""
    with function(graph, **components).to_mock_server() as server:
        request = example(server)
        assert (request.path, request.also) == (PREDICTIONS, OUTER + PREDICTIONS)
        assert request.body is not None
        body = jsoncodec.loads(request.body)
        server.test(request.path, body)
        server.test(request.also, body)
        return body


ONE = "{name: m, type: MODEL}"
KINDS: list[Any] = [
    pytest.param(Model, {"data": {"ndarray": [[1.0, 2.0]]}}, id="nothing known"),
    pytest.param(of(example_inputs=[[1, 2, 3]]), {"data": {"ndarray": [[1, 2, 3]]}}, id="example"),
    pytest.param(of(example_inputs=np.ones((1, 2))), {"data": {"ndarray": [[1.0, 1.0]]}}, id="array"),
    pytest.param(of(example_inputs="no rows"), {"data": {"ndarray": [[1.0, 2.0]]}}, id="no example"),
    pytest.param(
        with_input(messagetype="tensor", schema={"names": ["a", "b", "c"]}),
        {"data": {"ndarray": [[0.0, 0.0, 0.0]]}},
        id="names",
    ),
    pytest.param(
        with_input(messagetype="ndarray", schema={"shape": [2]}),
        {"data": {"ndarray": [[0.0, 0.0]]}},
        id="shape of a row",
    ),
    pytest.param(
        with_input(name="x", datatype="FP32", shape=[-1, 2, 2]),
        {"data": {"ndarray": [[[0.0, 0.0], [0.0, 0.0]]]}},
        id="any number of rows",
    ),
    pytest.param(
        with_input(name="x", datatype="FP32", shape=[1, 224, 224, 3]), {"data": {"ndarray": [[1.0, 2.0]]}}, id="large"
    ),
    pytest.param(with_input(messagetype="strData"), {"strData": ""}, id="text"),
    pytest.param(with_input(messagetype="jsonData"), {"jsonData": {}}, id="json"),
    pytest.param(of(init_metadata=lambda self: {"inputs": 3}), {"data": {"ndarray": [[1.0, 2.0]]}}, id="invalid"),
]


@pytest.mark.parametrize(("model", "body"), KINDS)
def test_example_is_a_message_that_the_node_takes(model: type, body: Any) -> None:
    assert example_of(ONE, m=model) == body


def test_example_is_that_of_the_first_node_on_the_way_that_says_one() -> None:
    first = type("First", (Transformer,), {"example_inputs": [[7]]})
    assert example_of(TWO, t=first, m=of(example_inputs=[[8]])) == {"data": {"ndarray": [[7]]}}
    assert example_of(TWO, t=Transformer, m=of(example_inputs=[[8]])) == {"data": {"ndarray": [[8]]}}


def test_example_of_the_function_comes_first() -> None:
    fn = function(ONE, m=of(example_inputs=[[8]]))
    fn.spec.parameters["example_body"] = {"strData": "x"}
    with fn.to_mock_server() as server:
        assert example(server) == Example(PREDICTIONS, b'{"strData":"x"}', OUTER + PREDICTIONS)


def test_example_of_an_estimator_has_its_columns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    from servegraph.serving.seldon.servers.sklearn_server import SKLearnServer

    server = SKLearnServer("nowhere")
    assert server.example_inputs is None
    server._model = linear.LinearRegression().fit([[0.0, 1.0, 2.0]], [0.0])
    assert server.example_inputs == [[0.0, 0.0, 0.0]]


def test_banner_names_predictors_and_both_addresses() -> None:
    text = (
        f"{HEAD}  - {{name: a, traffic: 90, graph: {TWO}}}\n"
        "  - {name: b, traffic: 10, graph: {name: s, implementation: SIMPLE_MODEL}}\n"
        "  - {name: c, shadow: true, graph: {name: s, implementation: SIMPLE_MODEL}}\n"
    )
    with function_from_text(text, components={"t": Transformer, "m": Model}).to_mock_server() as server:
        shown = describe(server, "http://h:1")
    lines = [line.split(maxsplit=1) for line in shown.splitlines() if line.startswith("  ")]
    assert lines[:3] == [["predictor", "a, 90 %: t, m"], ["predictor", "b, 10 %: s"], ["shadow", "c: s"]]
    assert f"  try        curl -s http://h:1{PREDICTIONS} -H" in shown
    assert f"  also at    http://h:1{OUTER}{PREDICTIONS}\n" in shown


def test_documents_list_the_outer_paths_and_each_is_there() -> None:
    with function(TWO, t=Transformer, m=Model).to_mock_server() as server:
        document = openapi(server)
        assert server.test("/api/v1.0/doc/", method="GET")["paths"].items() <= document["paths"].items()
        page = docs_page(server, "http://h:1").decode()
        for base in ("", OUTER):
            for version in ("v1.0", "v0.1"):
                for what in ("predictions", "feedback"):
                    assert list(document["paths"][f"{base}/api/{version}/{what}"]) == ["post"]
                    assert f"<code>{base}/api/{version}/{what}</code>" in page
            pages = [p for p, verbs in document["paths"].items() if p.startswith(base or "/api") and "get" in verbs]
            assert len(pages) >= 6
            for path in pages:
                server.test(path.replace("{node}", "m"), method="GET")
    assert "/" not in document["paths"]
    assert document["paths"]["/api/v1.0/metadata/{node}"]["get"]["parameters"][0]["schema"]["enum"] == ["t", "m"]
    assert f"Also at <code>http://h:1{OUTER}{PREDICTIONS}</code>" in page
    used = {text.partition('"')[0] for text in jsoncodec.dumps(document).decode().split("#/components/schemas/")[1:]}
    assert used <= set(document["components"]["schemas"])
