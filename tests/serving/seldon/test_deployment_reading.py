"""SeldonDeployments from YAML: defaults, what is tolerated, and what is told about what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree_kit import deployment, hard, node, predictor

from servegraph.errors import SpecError
from servegraph.serving.seldon.deployment import Deployment
from servegraph.serving.seldon.deployment_reading import parse_deployment, read_deployments

IRIS = """
apiVersion: machinelearning.seldon.io/v1alpha2
kind: SeldonDeployment
metadata:
  name: iris
  namespace: models
  labels: {app: seldon}
spec:
  name: old-name
  annotations: {seldon.io/rest-timeout: "1500"}
  predictors:
    - name: main
      replicas: 2
      annotations: {seldon.io/grpc-timeout: 7}
      labels: {version: v3}
      svcOrchSpec:
        env: [{name: REQUEST_LOGGER_DEFAULT_ENDPOINT, value: http://logs}]
      componentSpecs:
        - metadata: {annotations: {servegraph.io/class: "models:Iris"}}
          hpaSpec: {maxReplicas: 3}
          spec:
            terminationGracePeriodSeconds: 1
            containers:
              - name: classifier
                image: me/iris:0.1
                env: [{name: MODEL_NAME, value: Iris}, {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}]
                resources: {requests: {memory: 1Mi}}
      graph:
        name: scale
        type: transformer
        parameters: {name: n, value: 3, type: INT}
        children:
          name: classifier
          endpoint: {type: REST}
          logger: {mode: all, url: "http://logger"}
          parameters:
            - {name: flag, value: true, type: BOOL}
            - {name: text, value: x}
"""


def one(text: str) -> Deployment:
    (found,) = read_deployments(text)
    return found


def test_deployment_is_read_with_its_defaults() -> None:
    found = one(IRIS)
    assert (found.name, found.namespace, found.protocol, found.transport) == ("iris", "models", "seldon", "rest")
    (main,) = found.predictors
    assert (main.name, main.version, main.timeout_s(), main.timeout_s("GRPC")) == ("main", "v3", 1.5, 0.007)
    assert main.env == {"REQUEST_LOGGER_DEFAULT_ENDPOINT": "http://logs"}
    scale = main.graph
    assert (scale.type, [p.to_dict() for p in scale.parameters]) == (
        "TRANSFORMER",
        [{"name": "n", "value": "3", "type": "INT"}],
    )
    (classifier,) = scale.children
    assert (classifier.type, classifier.endpoint, classifier.image) == ("MODEL", None, "me/iris:0.1")
    assert classifier.path == "$.spec.predictors[0].graph.children"
    assert [(p.name, p.value, p.type) for p in classifier.parameters] == [
        ("flag", "true", "BOOL"),
        ("text", "x", "STRING"),
    ]
    assert classifier.logger is not None
    assert (classifier.logger.mode, classifier.logger.url) == ("all", "http://logger")
    assert classifier.container is not None
    assert classifier.container.env == {"MODEL_NAME": "Iris"}
    assert classifier.container.annotations == {"servegraph.io/class": "models:Iris"}


def test_text_with_several_documents_gives_its_deployments() -> None:
    other = "kind: Service\nmetadata: {name: x}\n"
    text = "---\n".join([other, IRIS, IRIS.replace("name: iris", "name: second").replace("v1alpha2", "v1"), "\n"])
    assert [d.name for d in read_deployments(text)] == ["iris", "second"]
    items = {"kind": "List", "items": [{"kind": "Pod"}, deployment(predictor(hard("m", "SIMPLE_MODEL")))]}
    import json

    assert [d.name for d in read_deployments(json.dumps(items))] == ["tree"]
    assert read_deployments(other) == []


def test_packaged_server_is_a_model() -> None:
    spec = deployment(predictor({"name": "m", "implementation": "sklearn_server", "modelUri": "models/iris"}))
    graph = parse_deployment(spec).predictors[0].graph
    assert (graph.implementation, graph.type, graph.packaged) == ("SKLEARN_SERVER", "MODEL", True)


SPLIT = [
    predictor(hard("a", "SIMPLE_MODEL"), "one", traffic=60),
    predictor(hard("a", "SIMPLE_MODEL"), "two", traffic=40),
]
MODEL = hard("m", "SIMPLE_MODEL")
RATIO = {"name": "ratioA", "value": 2}

WRONG: list[Any] = [
    (lambda: deployment(), r"\$\.spec\.predictors: the deployment has no predictors"),
    (lambda: {**deployment(predictor(MODEL)), "apiVersion": "v9"}, r"\$\.apiVersion: is 'v9'; valid: machinelearning"),
    (lambda: {**deployment(predictor(MODEL)), "metadata": {}}, r"\$\.metadata\.name: the deployment has no name"),
    (lambda: deployment(predictor(MODEL), protocol="v2"), r"\$\.spec\.protocol: is 'v2'"),
    (lambda: deployment(predictor(MODEL), protocol="v3"), r"\$\.spec\.protocol: is 'v3'; .*valid: kfserving"),
    (lambda: deployment(predictor(MODEL), serverType="kafka"), r"\$\.spec\.serverType: is kafka"),
    (lambda: deployment(predictor(MODEL), predictor=1), r"\$\.spec\.predictor: .*did you mean 'predictors'"),
    (lambda: deployment({"name": "x"}), r"\$\.spec\.predictors\[0\]\.graph: the predictor has no graph"),
    (lambda: deployment(predictor(MODEL), predictor(MODEL)), r"predictors\[1\]\.name: there are two predictors 'main'"),
    (lambda: deployment({"graph": MODEL}, predictor(MODEL)), r"predictors\[0\]\.name: a predictor needs a name"),
    (lambda: deployment(predictor(node("m", "MODAL"))), r"graph\.type: is 'MODAL'; did you mean 'MODEL'"),
    (lambda: deployment(predictor({**MODEL, "chidren": []})), r"graph\.chidren: .*did you mean 'children'"),
    (
        lambda: deployment(predictor(node("r", "ROUTER", MODEL, {"type": "MODEL"}))),
        r"\$\.spec\.predictors\[0\]\.graph\.children\[1\]\.name: a node needs a name",
    ),
    (
        lambda: deployment(predictor(node("r", "ROUTER", MODEL, MODEL))),
        r"graph\.children\[1\]\.name: there is a node 'm' already, at .*children\[0\]",
    ),
    (lambda: deployment(predictor(node("a/b"))), r"graph\.name: 'a/b' is no name of a node"),
    (lambda: deployment(predictor(node("u", "UNKNOWN_TYPE", implementation="X"))), r"graph\.type: node 'u' has no"),
    (lambda: deployment(predictor(node("r", "ROUTER"))), r"graph\.children: router 'r' has nothing to choose from"),
    (lambda: deployment(predictor(node("m", methods=["ROUT"]))), r"methods\[0\]: is 'ROUT'; did you mean 'ROUTE'"),
    (lambda: deployment(predictor(node("m", methods="ROUTE"))), r"graph\.methods: must be a list"),
    (lambda: deployment(predictor(node("m", children=3))), r"graph\.children: must be a list"),
    (lambda: deployment(predictor(node("m", children=[3]))), r"children\[0\]: a node of a graph must be an object"),
    (lambda: deployment(predictor(node("m", logger={}))), r"graph\.logger\.mode: a logger needs a mode"),
    (lambda: deployment(predictor(node("m", logger={"mode": "al"}))), r"logger\.mode: is 'al'"),
    (lambda: deployment(predictor(node("m", parameters=[{"value": 1}]))), r"parameters\[0\]\.name: a parameter needs"),
    (
        lambda: deployment(predictor(node("m", parameters=[{"name": "x", "type": "LONG"}]))),
        r"parameters\[0\]\.type: is 'LONG'",
    ),
    (lambda: deployment(predictor(node("m", endpoint={"httpPort": 70000}))), r"endpoint\.httpPort: must be a whole"),
    (
        lambda: deployment(predictor({"name": "m", "implementation": "SKLEARN_SERVER"})),
        r"graph\.modelUri: SKLEARN_SERVER needs the URI of a model",
    ),
    (lambda: deployment(predictor(hard("r", "RANDOM_ABTEST", MODEL))), r"graph\.children: RANDOM_ABTEST .* not of 1"),
    (
        lambda: deployment(
            predictor(
                hard("r", "RANDOM_ABTEST", MODEL, hard("n", "SIMPLE_MODEL"), parameters=[RATIO])
            )
        ),
        r"graph\.parameters: ratioA is '2'",
    ),
    (lambda: deployment(predictor(MODEL, traffic=50)), r"predictors\[0\]\.traffic: is 50"),
    (lambda: deployment(predictor(MODEL, traffic=101)), r"\.traffic: must be a whole number from 0 to 100"),
    (lambda: deployment(SPLIT[0], {**SPLIT[1], "traffic": 50}), r"traffic adds up to 110 \(one 60, two 50\)"),
    (lambda: deployment(predictor(MODEL, shadow=True)), r"shadow: a shadow cannot be the only predictor"),
    (lambda: deployment(predictor(MODEL, shadow="maybe")), r"shadow: must be true or false"),
    (
        lambda: deployment(predictor(MODEL), predictor(MODEL, "b", shadow=True), predictor(MODEL, "c", shadow=True)),
        r"predictors\[2\]\.shadow: there is a shadow already",
    ),
    (
        lambda: deployment(predictor(MODEL, annotations={"seldon.io/rest-timeout": "soon"})),
        r"annotations: the annotation seldon.io/rest-timeout is a number of milliseconds",
    ),
    (
        lambda: deployment(predictor(MODEL, annotations={"seldon.io/grpc-max-message-size": "10MB"})),
        r"annotations: the annotation seldon.io/grpc-max-message-size is a number of bytes above 0, not '10MB'",
    ),
    (
        lambda: deployment(predictor(node("t", "TRANSFORMER", MODEL), annotations={"seldon.io/no-engine": "true"})),
        r"graph: seldon.io/no-engine is for graphs of one node",
    ),
    (
        lambda: deployment(predictor(MODEL, explainer={"type": "AnchorTabular"})),
        r"explainer\.type: explainers do not run in a graph",
    ),
    (
        lambda: deployment(
            predictor(MODEL, componentSpecs=[{"spec": {"containers": [{"name": "c"}]}}] * 2),
        ),
        r"componentSpecs\[1\]\.spec\.containers\[0\]\.name: there are two containers 'c'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_is_wrong_is_told_with_its_path(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as failed:
        parse_deployment(make())
    assert failed.value.message.startswith("$.")


def test_two_predictors_that_share_all_traffic_are_right() -> None:
    found = parse_deployment(deployment(*SPLIT, predictor(MODEL, "dark", shadow=True)))
    assert [(p.name, p.traffic) for p in found.split] == [("one", 60), ("two", 40)]


def test_message_about_yaml_has_the_line_and_the_path() -> None:
    with pytest.raises(SpecError) as failed:
        read_deployments(IRIS.replace("parameters: {name", "paramters: {name"))
    assert failed.value.message.startswith(
        "line 31: spec.predictors[0].graph.paramters: a node of a graph has no 'paramters'; did you mean 'parameters'?"
    )


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "type", "graph", "children", "x", "methods", "spec"]), inner, max_size=3
            )
        ),
        max_leaves=12,
    ),
    where=st.sampled_from(["graph", "name", "traffic", "componentSpecs", "annotations", "labels", "svcOrchSpec"]),
)
def test_whatever_stands_in_a_predictor_is_read_or_refused(value: Any, where: str) -> None:
    told = ""
    try:
        parse_deployment(deployment({**predictor(MODEL), where: value}))
    except SpecError as exc:
        told = exc.message
    assert told == "" or told.startswith("$.spec")


@pytest.mark.parametrize("implementation", ["TENSORFLOW", "tensorflow", "SKLEARN_SERVER", "MY_SERVER"])
def test_every_packaged_server_is_a_model_that_needs_its_uri(implementation: str) -> None:
    node = {"name": "a", "implementation": implementation, "modelUri": "gs://b/m"}
    data = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment", "metadata": {"name": "d"},
            "spec": {"predictors": [{"name": "p", "graph": node}]}}  # fmt: skip
    assert parse_deployment(data).predictors[0].graph.type == "MODEL"
    del node["modelUri"]
    with pytest.raises(SpecError, match="needs the URI of a model"):
        parse_deployment(data)
