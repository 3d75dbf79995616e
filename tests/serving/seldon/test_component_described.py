"""What a component tells of itself: the banner, the example request, the OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest

import servegraph
from servegraph import jsoncodec
from servegraph.runtimes.banner import describe, example
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.openapi import docs_page, openapi
from servegraph.serving.seldon.component_described import own_methods
from servegraph.serving.seldon.endpoint import ComponentEndpoint
from servegraph.serving.seldon.user_model import SeldonComponent

ROWS = {"data": {"ndarray": [[1.0, 2.0]]}}


def function(component: Any) -> ServingFunction:
    fn = servegraph.new_function("shown")
    graph = fn.set_topology("flow", engine="async")
    graph.to(ComponentEndpoint, name="Shown", component=component).respond()
    return fn


def same(self: Any, X: Any, names: Any) -> Any:
    return X


def of(*names: str, **members: Any) -> Any:
    return type("Shown", (SeldonComponent,), {**dict.fromkeys(names, same), **members})()


def route(self: Any, X: Any, names: Any) -> int:
    return 0


def learn(self: Any, X: Any, names: Any, reward: float, truth: Any) -> None:
    raise AssertionError("an example teaches nothing")


def joined(self: Any, values: Any, names: Any) -> Any:
    return values[0]


EXAMPLES: list[Any] = [
    pytest.param(of("predict", "transform_input"), "/predict", ROWS, id="predict"),
    pytest.param(of("transform_input"), "/transform-input", ROWS, id="transform_input"),
    pytest.param(of("transform_output"), "/transform-output", ROWS, id="transform_output"),
    pytest.param(of(route=route, send_feedback=learn), "/route", ROWS, id="route"),
    pytest.param(of(aggregate=joined), "/aggregate", {"seldonMessages": [ROWS]}, id="aggregate"),
    pytest.param(of(send_feedback=learn), "/health/status", None, id="nothing to try"),
    pytest.param(of("predict", example_inputs=[[7]]), "/predict", {"data": {"ndarray": [[7]]}}, id="example"),
    pytest.param(
        of("predict", init_metadata=lambda self: {"inputs": [{"messagetype": "strData"}]}),
        "/predict",
        {"strData": ""},
        id="metadata",
    ),
]


@pytest.mark.parametrize(("component", "path", "body"), EXAMPLES)
def test_example_is_a_request_that_the_component_answers(component: Any, path: str, body: Any) -> None:
    with function(component).to_mock_server() as server:
        request = example(server)
        assert request.path == path
        assert (None if request.body is None else jsoncodec.loads(request.body)) == body
        server.test(path, body)
        if request.also:
            server.test(request.also, body)


def test_outlier_detector_of_old_is_tried_by_its_score() -> None:
    class Detector:
        def score(self, X: Any, names: Any) -> Any:
            return [0.5]

    assert own_methods(Detector()) == ["score"]
    with function(Detector()).to_mock_server() as server:
        assert example(server).path == "/transform-input"


def test_own_methods_are_those_of_any_form_but_none_of_the_base_class() -> None:
    assert own_methods(SeldonComponent()) == []
    assert own_methods(of(predict_raw=same, send_feedback_rest=learn)) == ["predict", "send_feedback"]
    put = of("predict")
    put.route = route
    assert own_methods(put) == ["predict", "route"]


def test_banner_and_pages_name_the_component_and_show_its_paths() -> None:
    with function(of("predict", route=route)).to_mock_server() as server:
        shown = describe(server, "http://h:1", {"grpc": 2}, "0.0.0.0")
        document = openapi(server)
        page = docs_page(server, "http://h:1").decode()
    assert f"servegraph {servegraph.__version__} serves Shown\n" in shown
    assert "  component  Shown: predict, route\n" in shown
    assert "  try        curl -s http://h:1/predict -H" in shown
    assert "  also at    http://h:1/api/v1.0/predictions\n" in shown
    assert document["info"]["title"] == "Shown"
    assert {"/predict", "/api/v1.0/predictions", "/send-feedback", "/health/status"} <= document["paths"].keys()
    assert "/api/v1.0/predictions" in page
