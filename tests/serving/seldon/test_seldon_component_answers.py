"""What the results of a component become: messages with names, tags, metrics and the meta so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from component_kit import COUNT, NODE, NOT_DONE, ROW_OPERATIONS, ROWS, Kept, answered, ask, giving

from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.custom_metrics import CustomMetric, CustomMetrics
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message, Meta
from servegraph.serving.seldon.methods import Operation
from servegraph.serving.seldon.user_model import SeldonComponent, SeldonResponse

# -- results -----------------------------------------------------------------------------------------------------------


def test_number_of_32_bits_is_written_as_in_an_array() -> None:
    for result in (np.float32(0.1), np.array([0.1], dtype=np.float32)):
        assert ask(giving(result))["data"]["ndarray"] == [0.1]


@pytest.mark.parametrize("result", [2, np.int64(2), np.uint8(2), SeldonResponse(2)], ids=repr)
def test_route_is_a_whole_number_in_an_array(result: Any) -> None:
    assert ask(giving(result), "route")["data"]["ndarray"] == [[2]]


@pytest.mark.parametrize("branch", [-1, -2, 0, 7, True])
def test_route_of_any_branch_is_answered(branch: int) -> None:
    assert ask(giving(branch), "route")["data"]["ndarray"] == [[int(branch)]]


@pytest.mark.parametrize("result", [1.0, "1", None, [1], np.float64(1), np.array([1])], ids=repr)
def test_route_that_is_no_whole_number_is_refused(result: Any) -> None:
    with pytest.raises(SeldonMicroserviceException, match="Routing response must be int but got") as caught:
        ask(giving(result), "route")
    assert type(result).__name__ in str(caught.value)
    assert caught.value.status_code == 400


def test_answer_of_feedback_is_encoded_as_its_request() -> None:
    tensor = {"data": {"tensor": {"shape": [1, 1], "values": [5]}}}
    answer = ask(giving(np.array([[7]])), "send_feedback", {"request": tensor, "reward": 1})
    assert answer["data"]["tensor"] == {"shape": [1, 1], "values": [7]}


# -- names of columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [*ROW_OPERATIONS, "aggregate", "send_feedback"])
@pytest.mark.parametrize(
    "source",
    [
        ["x", "y"],
        ("x", "y"),
        np.array(["x", "y"]),
        lambda self: ["x", "y"],
        staticmethod(lambda: ["x", "y"]),
        lambda self, X: ["x", "y"],
        property(lambda self: ["x", "y"]),
    ],
    ids=["list", "tuple", "array", "method", "static", "of the rows", "property"],
)
def test_class_names_of_method_or_attribute_name_the_columns(op: Operation, source: Any) -> None:
    bodies: dict[str, Any] = {"aggregate": [ROWS], "send_feedback": {"request": ROWS}}
    assert ask(giving(np.ones((2, 2)), class_names=source), op, bodies.get(op))["data"]["names"] == ["x", "y"]


def test_class_names_may_be_set_when_the_model_is_loaded() -> None:
    user_object = giving(np.ones((1, 1)))
    component = Component(user_object)
    assert answered(component, "predict", ROWS)["data"]["names"] == ["t:0"]
    user_object.class_names = [7]
    assert answered(component, "predict", ROWS)["data"]["names"] == ["7"]
    user_object.class_names = None
    assert answered(component, "predict", ROWS)["data"]["names"] == ["t:0"]


def test_class_names_that_are_not_implemented_are_generated_and_feature_names_never_asked() -> None:
    class Model(SeldonComponent):
        def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
            return X

        def feature_names(self) -> Any:
            raise AssertionError("asked for feature names")

    assert ask(Model())["data"]["names"] == ["t:0", "t:1"]


@pytest.mark.parametrize("result", ["text", b"bytes", {"a": 1}, [1, 2], np.array([1.0]), 5, ()], ids=repr)
@pytest.mark.parametrize("op", ROW_OPERATIONS)
def test_class_names_are_not_asked_for_what_has_no_columns(op: Operation, result: Any) -> None:
    def refuse(self: Any) -> Any:
        raise AssertionError("asked")

    assert ask(giving(result, class_names=refuse), op).get("data", {}).get("names", []) == []


def test_class_names_do_not_name_what_has_no_columns() -> None:
    assert ask(giving(np.ones(2), class_names=["x", "y"]))["data"]["names"] == []
    assert ask(giving("text", class_names=["x"])) == {"strData": "text", "meta": {}}


# -- tags and metrics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [lambda self: {"t": 1}, lambda self, X: {"t": len(X) - 1}, staticmethod(lambda: {"t": 1})],
    ids=["method", "of the rows", "static"],
)
@pytest.mark.parametrize("op", [*ROW_OPERATIONS, "route", "aggregate", "send_feedback"])
def test_tags_go_into_the_meta_of_every_operation(op: Operation, source: Any) -> None:
    bodies: dict[str, Any] = {"aggregate": [ROWS], "send_feedback": {"request": ROWS}}
    assert ask(giving(1, tags=source), op, bodies.get(op))["meta"] == {"tags": {"t": 1}}


def test_methods_that_take_the_rows_are_not_asked_where_there_are_none() -> None:
    def of_rows(self: Any, X: Any) -> Any:
        return {"rows": X.shape[0]}

    user_object = giving("up", tags=of_rows, metrics=of_rows, class_names=of_rows)
    assert ask(user_object, "health_status") == {"strData": "up", "meta": {}}
    assert ask(giving("up", tags=lambda self: {"t": 1}), "health_status")["meta"] == {"tags": {"t": 1}}
    assert ask(giving(None, tags=of_rows), "send_feedback", {"reward": 1})["meta"] == {"tags": {"rows": 0}}


def test_tags_of_the_rows_see_what_came_in_and_not_the_answer() -> None:
    class Model:
        def predict(self, X: Any, names: Any) -> Any:
            return X * 100

        def tags(self, X: Any) -> dict[str, Any]:
            return {"sum": int(X.sum())}

    assert ask(Model())["meta"] == {"tags": {"sum": 10}}


@pytest.mark.parametrize("nothing", [None, {}, NOT_DONE])
def test_tags_that_are_none_are_left_out(nothing: Any) -> None:
    def tags(self: Any) -> Any:
        if isinstance(nothing, Exception):
            raise nothing
        return nothing

    assert ask(giving("x", tags=tags))["meta"] == {}


def test_tags_that_are_no_dict_are_the_components_fault() -> None:
    with pytest.raises(SeldonMicroserviceException, match=r"tags\(\) must be a dict, not list") as caught:
        ask(giving("x", tags=lambda self: ["t"]))
    assert caught.value.status_code == 500
    with pytest.raises(SeldonMicroserviceException, match=r"the answer's tags must be a dict, not list"):
        ask(giving(SeldonResponse("x", tags=["t"])))  # type: ignore[arg-type]


def test_later_tags_win_and_earlier_ones_stay() -> None:
    user_object = giving(
        SeldonResponse("x", tags={"c": "answer", "d": "answer"}), tags=lambda self: {"b": "tags", "c": "tags"}
    )
    body = {"strData": "y", "meta": {"tags": {"a": "came", "b": "came", "c": "came"}}}
    tags = ask(user_object, body=body)["meta"]["tags"]
    assert tags == {"a": "came", "b": "tags", "c": "answer", "d": "answer"}
    assert body["meta"] == {"tags": {"a": "came", "b": "came", "c": "came"}}


@pytest.mark.parametrize(
    "wrapped",
    [[COUNT], (COUNT,), ([COUNT],), COUNT, [{**COUNT, "value": np.int64(1)}]],
    ids=["list", "tuple", "list in a tuple", "one", "numpy"],
)
def test_metrics_in_each_wrapping_are_recorded_and_shown(wrapped: Any) -> None:
    for user_object in (giving("x", metrics=lambda self: wrapped), giving(SeldonResponse("x", metrics=wrapped))):
        sink = Kept()
        assert answered(Component(user_object, NODE, CustomMetrics(sink)), "predict", ROWS)["meta"]["metrics"] == [
            COUNT
        ]
        assert sink.metrics == [(CustomMetric("COUNTER", "calls", 1.0), "predict")]


@pytest.mark.parametrize("nothing", [None, [], (), NOT_DONE])
def test_metrics_that_are_none_are_left_out(nothing: Any) -> None:
    def metrics(self: Any) -> Any:
        if isinstance(nothing, Exception):
            raise nothing
        return nothing

    assert ask(giving("x", metrics=metrics))["meta"] == {}


def test_bad_metric_is_left_out_and_counted_and_the_answer_stands() -> None:
    sink = Kept()
    bad: list[dict[str, Any]] = [{"type": "COUNTER", "key": "bad"}, COUNT]
    component = Component(giving(SeldonResponse("x", metrics=bad)), NODE, CustomMetrics(sink))
    answer = answered(component, "predict", ROWS)
    assert (answer["strData"], answer["meta"]["metrics"], sink.rejected) == ("x", [COUNT], ["predict"])


def test_metrics_of_others_come_first_and_are_shown_even_where_own_ones_are_not() -> None:
    came = {"type": "GAUGE", "key": "came", "value": 3}
    own = {"type": "TIMER", "key": "own", "value": 2.5}
    user_object = giving(SeldonResponse("x", metrics=[COUNT]), metrics=lambda self: [own])
    body = {"strData": "y", "meta": {"metrics": [came]}}
    assert ask(user_object, body=body)["meta"]["metrics"] == [came, own, COUNT]
    sink = Kept()
    hidden = Component(user_object, NODE, CustomMetrics(sink, in_response=False))
    assert answered(hidden, "predict", body)["meta"]["metrics"] == [came]
    assert [metric.key for metric, _ in sink.metrics] == ["own", "calls"]


@pytest.mark.parametrize(
    ("op", "label"),
    [
        ("transform_input", "inputtransform"),
        ("route", "router"),
        ("aggregate", "aggregate"),
        ("send_feedback", "feedback"),
    ],
)
def test_metrics_are_recorded_under_the_name_of_their_method(op: Operation, label: str) -> None:
    sink = Kept()
    bodies: dict[str, Any] = {"aggregate": [ROWS], "send_feedback": {"request": ROWS}}
    component = Component(giving(1, metrics=lambda self: [COUNT]), NODE, CustomMetrics(sink))
    component.call(op, bodies.get(op, ROWS))
    assert [method for _, method in sink.metrics] == [label]


# -- SeldonResponse ----------------------------------------------------------------------------------------------------


def test_response_has_tags_and_metrics_of_its_own_and_wraps_once() -> None:
    first, second = SeldonResponse("a"), SeldonResponse("b")
    first.tags["t"] = 1
    first.metrics.append(COUNT)
    assert (second.data, second.tags, second.metrics) == ("b", {}, [])
    assert SeldonResponse.create(first) is first
    assert SeldonResponse.create("c").data == "c"
    assert repr(first) == f"SeldonResponse('a', tags={{'t': 1}}, metrics=[{COUNT}])"


@pytest.mark.parametrize("op", [*ROW_OPERATIONS, "aggregate", "send_feedback"])
def test_response_of_any_operation_is_unwrapped(op: Operation) -> None:
    bodies: dict[str, Any] = {"aggregate": [ROWS], "send_feedback": {"request": ROWS}}
    answer = ask(giving(SeldonResponse([[9]], tags={"t": 1}, metrics=[COUNT])), op, bodies.get(op))
    assert answer["data"]["ndarray"] == [[9]]
    assert answer["meta"] == {"tags": {"t": 1}, "metrics": [COUNT]}


def test_response_of_the_real_package_is_unwrapped_too() -> None:
    foreign = type("SeldonResponse", (), {"data": "x", "tags": {"t": 1}, "metrics": []})
    assert ask(giving(foreign())) == {"strData": "x", "meta": {"tags": {"t": 1}}}


# -- meta --------------------------------------------------------------------------------------------------------------

CAME = {
    "puid": "p",
    "tags": {"t": 1},
    "routing": {"r": 1},
    "requestPath": {"before": "img:1"},
    "metrics": [COUNT],
    "other": 5,
}


@pytest.mark.parametrize("op", ROW_OPERATIONS)
def test_meta_goes_on_without_routing_and_unknown_parts(op: Operation) -> None:
    meta = ask(giving("x"), op, {"strData": "y", "meta": CAME, "status": {"code": 1}}, unit_id="node", image="img:0.1")[
        "meta"
    ]
    assert meta == {
        "puid": "p",
        "tags": {"t": 1},
        "requestPath": {"node": "img:0.1", "before": "img:1"},
        "metrics": [COUNT],
    }


def test_request_path_that_came_wins_over_the_nodes_own_image() -> None:
    body = {"strData": "y", "meta": {"requestPath": {"node": "earlier:1"}}}
    assert ask(giving("x"), body=body, unit_id="node", image="img:0.1")["meta"]["requestPath"] == {"node": "earlier:1"}
    assert ask(giving("x"), unit_id="n")["meta"]["requestPath"] == {"n": "NOT_IMPLEMENTED:NOT_IMPLEMENTED"}
    assert ask(giving("x"), image="img:0.1")["meta"] == {}


def test_route_and_feedback_go_on_with_the_id_alone() -> None:
    body = {"strData": "y", "meta": CAME}
    assert ask(giving(1), "route", body, unit_id="n", image="i")["meta"] == {"puid": "p", "requestPath": {"n": "i"}}
    feedback = {"request": body, "response": {"meta": {"puid": "other"}}, "reward": 1}
    assert ask(giving("x"), "send_feedback", feedback)["meta"] == {"puid": "p"}


def test_aggregate_joins_the_metas_of_all_messages_in_their_order() -> None:
    first = {"puid": "1", "tags": {"a": 1, "b": 1}, "requestPath": {"x": "1", "y": "1"}, "metrics": [COUNT]}
    second = {"puid": "2", "tags": {"b": 2, "c": 2}, "requestPath": {"y": "2", "z": "2"}, "metrics": [COUNT]}
    body = [{"strData": "a", "meta": first}, {"strData": "b", "meta": second}]
    user_object = giving("x", tags=lambda self: {"c": 3})
    assert ask(user_object, "aggregate", body, unit_id="n", image="i")["meta"] == {
        "puid": "1",
        "tags": {"a": 1, "b": 2, "c": 3},
        "requestPath": {"n": "i", "x": "1", "y": "2", "z": "2"},
        "metrics": [COUNT, COUNT],
    }


def test_messages_of_callers_in_process_are_not_changed_by_an_answer() -> None:
    meta = Meta("p", {"t": 1}, {"r": 1}, {"n": "i"}, [COUNT])
    message = Message("strData", "y", meta=meta)
    answer = Component(giving("x", tags=lambda self: {"u": 2}, metrics=lambda self: [COUNT]), NODE).call(
        "predict", message
    )
    assert isinstance(answer, Message)
    answer.meta.tags["v"] = 3
    assert meta == Meta("p", {"t": 1}, {"r": 1}, {"n": "i"}, [COUNT])
