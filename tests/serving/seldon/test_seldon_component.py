"""A component: what its methods are called with, and what stands for those that it has not."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from component_kit import NOT_DONE, ROW_OPERATIONS, ROWS, Recorder, answered, ask, giving

from servegraph.errors import GraphError
from servegraph.serving.seldon import wire
from servegraph.serving.seldon.answers import Transport
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.methods import OPERATIONS, Operation, check_operation
from servegraph.serving.seldon.rest import message_from_rest, message_to_rest
from servegraph.serving.seldon.user_model import SeldonComponent, SeldonResponse

# -- what methods are called with --------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [*ROW_OPERATIONS, "route"])
def test_method_for_rows_gets_array_names_and_meta_as_sent(op: Operation) -> None:
    recorder = Recorder()
    ask(recorder, op, {**ROWS, "meta": {"puid": "p", "own": {"x": 1}, "tags": {"t": 1}}})
    ((values, names, meta),) = recorder.calls
    assert (values.tolist(), values.dtype.kind, names) == ([[1, 2], [3, 4]], "i", ["a", "b"])
    assert meta == {"puid": "p", "own": {"x": 1}, "tags": {"t": 1}}


def test_method_gets_an_empty_meta_where_none_was_sent() -> None:
    recorder = Recorder()
    component = Component(recorder)
    component.call("predict", ROWS)
    component.call("predict", wire.message_to_wire(message_from_rest(ROWS)), "grpc")
    assert [meta for _, _, meta in recorder.calls] == [{}, {}]


def test_method_on_grpc_gets_floats_a_plain_list_of_names_and_the_meta() -> None:
    recorder = Recorder()
    sent = wire.message_to_wire(message_from_rest({**ROWS, "meta": {"puid": "p", "tags": {"t": "x"}}}))
    Component(recorder).call("predict", sent, "grpc")
    ((values, names, meta),) = recorder.calls
    assert (values.tolist(), values.dtype.kind) == ([[1.0, 2.0], [3.0, 4.0]], "f")
    assert (type(names), names, meta) == (list, ["a", "b"], {"puid": "p", "tags": {"t": "x"}})


@pytest.mark.parametrize("op", ROW_OPERATIONS)
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_what_a_method_does_to_its_meta_shows_nowhere(op: Operation, transport: Transport) -> None:
    class Careless:
        def predict(self, X: Any, names: Any, meta: Any) -> Any:
            meta["tags"]["mine"] = 1
            meta["tags"].pop("t")
            return X

        transform_input = transform_output = predict

    message = message_from_rest({**ROWS, "meta": {"tags": {"t": "x"}}})
    source = message_to_rest(message) if transport == "rest" else wire.message_to_wire(message)
    answer = Component(Careless()).call(op, source, transport)
    assert isinstance(answer, Message)
    assert answer.meta.tags == {"t": "x"}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"strData": "text"}, "text"),
        ({"binData": "AAH/"}, b"\x00\x01\xff"),
        ({"jsonData": {"a": [1, None]}}, {"a": [1, None]}),
        ({"jsonData": 5}, 5),
    ],
)
def test_method_gets_other_payloads_as_they_are_and_no_names(payload: Any, expected: Any) -> None:
    recorder = Recorder()
    component = Component(recorder)
    component.call("predict", payload)
    component.call("send_feedback", {"request": payload, "truth": payload})
    assert recorder.calls == [(expected, [], {}), (expected, [], 0.0, expected, None)]


def test_aggregate_gets_lists_of_values_and_of_names() -> None:
    recorder = Recorder()
    ask(recorder, "aggregate", {"seldonMessages": [ROWS, {"strData": "x"}]})
    ((features, names),) = recorder.calls
    assert (features[0].tolist(), features[1], names) == ([[1, 2], [3, 4]], "x", [["a", "b"], []])


@pytest.mark.parametrize(
    ("identity", "routing", "expected"),
    [
        ({}, {"0": 2, "node": 1}, 2),
        ({"unit_id": "node"}, {"0": 2, "node": 1}, 1),
        ({"unit_id": "node"}, {"other": 1}, None),
        ({"unit_id": "node"}, {"node": -1}, -1),
        ({}, {}, None),
    ],
)
def test_send_feedback_gets_reward_truth_and_the_branch_of_its_own_node(
    identity: dict[str, str], routing: dict[str, int], expected: int | None
) -> None:
    recorder = Recorder()
    body = {"request": ROWS, "response": {"meta": {"routing": routing}}, "truth": ROWS, "reward": 0.1}
    assert ask(recorder, "send_feedback", body, **identity)["data"] == {"names": [], "ndarray": []}
    ((values, names, reward, truth, branch),) = recorder.calls
    assert (values.dtype.kind, values.tolist(), names) == ("f", [[1.0, 2.0], [3.0, 4.0]], ["a", "b"])
    assert (reward, truth.tolist(), branch) == (float(np.float32(0.1)), [[1.0, 2.0], [3.0, 4.0]], expected)


def test_send_feedback_without_request_and_truth_gets_empty_arrays() -> None:
    recorder = Recorder()
    ask(recorder, "send_feedback", {"reward": 1})
    values, names, reward, truth, _ = recorder.calls[0]
    assert (values.tolist(), values.dtype.kind, names, reward, truth.tolist()) == ([], "f", [], 1.0, [])


@pytest.mark.parametrize("op", [*ROW_OPERATIONS, "route", "aggregate", "send_feedback"])
def test_type_error_of_a_method_is_raised_and_the_method_called_once(op: Operation) -> None:
    calls: list[Any] = []

    class Failing:
        def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
            calls.append(X)
            raise TypeError("got an unexpected keyword argument 'meta'")

        transform_input = transform_output = route = predict

        def aggregate(self, features: Any, names: Any) -> Any:
            return self.predict(features, names)

        def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> Any:
            return self.predict(X, names)

    body: Any = [ROWS] if op == "aggregate" else {"request": ROWS} if op == "send_feedback" else ROWS
    with pytest.raises(TypeError, match="unexpected keyword argument 'meta'"):
        ask(Failing(), op, body)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("op", "source", "problem"),
    [
        ("predict", Feedback(), "Invalid request data type: a JSON object is wanted, not Feedback"),
        ("send_feedback", Message("strData", "x"), "Invalid JSON: feedback is an object, not Message"),
        ("aggregate", Message("strData", "x"), "a list of messages (seldonMessages) is wanted"),
        ("aggregate", [], "seldonMessages is empty: there is nothing to aggregate"),
        ("aggregate", wire.messages_to_proto([]).SerializeToString(), "seldonMessages is empty"),
        ("predict", wire.message_to_wire(Message()), "Invalid request data type: the message has no payload"),
    ],
)
def test_source_of_another_operation_is_refused(op: Operation, source: Any, problem: str) -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        Component(Recorder()).call(op, source, "grpc" if isinstance(source, bytes) else "rest")
    assert problem in str(caught.value)
    assert caught.value.status_code == 400


# -- what stands for missing methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("user_object", [object(), SeldonComponent(), giving(NOT_DONE)], ids=["none", "base", "raise"])
def test_methods_that_are_missing_have_something_in_their_place(user_object: Any) -> None:
    assert ask(user_object, "predict") == {"data": {"names": [], "ndarray": []}, "meta": {}}
    for op in ("transform_input", "transform_output"):
        assert ask(user_object, check_operation(op)) == {
            "data": {"names": ["t:0", "t:1"], "ndarray": [[1, 2], [3, 4]]},
            "meta": {},
        }
    assert ask(user_object, "send_feedback", {"reward": 0}) == {
        "data": {"names": [], "tensor": {"shape": [0], "values": []}},
        "meta": {},
    }


@pytest.mark.parametrize(
    ("user_object", "op", "message"),
    [
        (object(), "route", "Route not defined"),
        (object(), "aggregate", "Aggregate not defined"),
        (SeldonComponent(), "route", "route is not implemented"),
        (SeldonComponent(), "aggregate", "aggregate is not implemented"),
        (giving(NOT_DONE), "route", "not done"),
    ],
)
def test_route_and_aggregate_that_are_missing_are_the_callers_fault(
    user_object: Any, op: Operation, message: str
) -> None:
    with pytest.raises(SeldonMicroserviceException, match=message) as caught:
        ask(user_object, op, [ROWS] if op == "aggregate" else ROWS)
    assert (caught.value.status_code, caught.value.reason) == (400, "MICROSERVICE_BAD_DATA")


def test_not_implemented_of_the_real_package_counts_too() -> None:
    foreign = type("SeldonNotImplementedError", (Exception,), {"__module__": "seldon_core.user_model"})
    assert ask(giving(foreign("x")))["data"]["ndarray"] == []
    with pytest.raises(NotImplementedError):
        ask(giving(NotImplementedError("of Python")))


@pytest.mark.parametrize(
    ("user_object", "expected"),
    [
        (object(), {"strData": "healthy", "meta": {}}),
        (SeldonComponent(), {"strData": "not implemented - assuming healthy", "meta": {}}),
        (giving("up"), {"strData": "up", "meta": {}}),
        (giving({"db": "up"}), {"jsonData": {"db": "up"}, "meta": {}}),
        (giving([[0.5, 1.5]]), {"data": {"names": ["t:0", "t:1"], "tensor": {"shape": [1, 2], "values": [0.5, 1.5]}}}),
        (giving(SeldonResponse("up", tags={"t": 1})), {"strData": "up", "meta": {"tags": {"t": 1}}}),
    ],
)
def test_health_status_is_a_message(user_object: Any, expected: dict[str, Any]) -> None:
    assert ask(user_object, "health_status") == {"meta": {}, **expected}


def test_health_status_that_wants_rows_gets_none() -> None:
    class Model:
        def health_status(self, X: Any) -> str:
            return f"up with {len(X)} rows"

    assert ask(Model(), "health_status") == {"strData": "up with 0 rows", "meta": {}}


def test_health_status_that_fails_is_raised() -> None:
    with pytest.raises(OSError, match="no model"):
        ask(giving(OSError("no model")), "health_status")


def test_component_knows_which_operations_it_has() -> None:
    class Some:
        predict = None

        def route(self, X: Any, names: Any) -> int:
            return 0

        def transform_input_raw(self, msg: Any) -> Any:
            return msg

        def predict_grpc(self, msg: Any) -> Any:
            return msg

    component = Component(Some())
    assert [op for op in OPERATIONS if component.has(op)] == ["predict", "transform_input", "route"]
    with pytest.raises(GraphError, match=r"'predikt' is no operation of a Seldon component; did you mean 'predict'"):
        check_operation("predikt")


# -- outlier detectors of 0.x ------------------------------------------------------------------------------------------


def test_score_of_an_outlier_detector_becomes_a_tag_of_the_input() -> None:
    class Detector:
        def score(self, X: Any, feature_names: Any) -> Any:
            assert feature_names == ["a", "b"]
            return X.sum(axis=1)

        def tags(self) -> dict[str, Any]:
            return {"threshold": 5}

    assert ask(Detector(), "transform_input") == {
        "data": {"names": ["t:0", "t:1"], "ndarray": [[1, 2], [3, 4]]},
        "meta": {"tags": {"outlierScore": [3, 7], "threshold": 5}},
    }
    assert ask(Detector(), "transform_output")["meta"] == {"tags": {"threshold": 5}}


def test_score_of_what_predicts_or_transforms_is_not_asked() -> None:
    class Model:
        def predict(self, X: Any, names: Any) -> Any:
            return X

        def score(self, X: Any, y: Any) -> float:
            raise AssertionError("asked for a score")

    class Transformer:
        def transform_input(self, X: Any, names: Any) -> Any:
            return X

        score = Model.score

    for user_object in (Model(), Transformer()):
        assert ask(user_object, "transform_input")["meta"] == {}


# -- what cannot be called ---------------------------------------------------------------------------------------------


def test_method_that_cannot_be_called_is_logged_and_fails_only_its_own_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Model:
        def predict(self, X: Any, names: Any) -> Any:
            return X

        def route(self, X: Any, names: Any, strategy: str) -> int:
            return 0

    component = Component(Model())
    with caplog.at_level(logging.ERROR, logger="servegraph"):
        component.load()
    problem = "Model.route() needs an argument 'strategy' that no request has"
    assert [problem in record.getMessage() for record in caplog.records] == [True]
    assert answered(component, "predict", ROWS)["data"]["ndarray"] == [[1, 2], [3, 4]]
    with pytest.raises(GraphError, match="needs an argument 'strategy'"):
        component.call("route", ROWS)


# -- loading and metadata ----------------------------------------------------------------------------------------------


def test_load_is_called_and_what_it_puts_in_place_of_methods_counts() -> None:
    class Late:
        def __init__(self) -> None:
            self.loads = 0

        def load(self) -> None:
            self.loads += 1
            self.predict = lambda X, names: X * 2
            self.tags = lambda: {"loaded": self.loads}

    late = Late()
    component = Component(late)
    assert answered(component, "predict", ROWS)["data"]["ndarray"] == []
    component.load()
    answer = answered(component, "predict", ROWS)
    assert (answer["data"]["ndarray"], answer["meta"]) == ([[2, 4], [6, 8]], {"tags": {"loaded": 1}})


@pytest.mark.parametrize("error", [NOT_DONE, NotImplementedError("nothing to load")])
def test_load_that_is_not_implemented_is_no_failure(error: Exception) -> None:
    asked = []

    def load(self: Any) -> None:
        asked.append(self)
        raise error

    model = type("Model", (), {"load": load})()
    Component(model).load()
    assert asked == [model]
    Component(type("Model", (), {"load": None})()).load()
    Component(SeldonComponent(any="parameter", at=1)).load()


def test_load_that_fails_is_raised() -> None:
    def load(self: Any) -> None:
        raise FileNotFoundError("model.joblib")

    with pytest.raises(FileNotFoundError, match=r"model\.joblib"):
        Component(type("Model", (), {"load": load})()).load()


def test_load_that_is_a_coroutine_function_is_waited_for_also_beside_a_running_loop() -> None:
    class Model:
        loads = 0

        async def load(self) -> None:
            await asyncio.sleep(0)
            self.loads += 1

    async def beside(component: Component) -> None:
        component.load()

    component = Component(Model())
    component.load()
    asyncio.run(beside(component))
    assert component.user_object.loads == 2


# -- the base class ----------------------------------------------------------------------------------------------------


def test_every_method_of_the_base_class_counts_as_missing() -> None:
    arguments = {"tags": 0, "class_names": 0, "feature_names": 0, "metrics": 0, "metadata": 0, "init_metadata": 0}
    arguments |= {"health_status": 0, "health_status_raw": 0, "send_feedback": 5, "send_feedback_raw": 1}
    arguments |= dict.fromkeys((*ROW_OPERATIONS, "route", "aggregate"), 2)
    arguments |= {f"{op}_raw": 1 for op in (*ROW_OPERATIONS, "route", "aggregate")}
    methods = {n for n, v in vars(SeldonComponent).items() if callable(v) and n not in ("__init__", "load")}
    assert methods == set(arguments)
    for name, count in arguments.items():
        said = {"health_status": "health", "health_status_raw": "health_raw"}.get(name, name)
        with pytest.raises(SeldonNotImplementedError, match=f"^{said} is not implemented$") as caught:
            getattr(SeldonComponent(), name)(*range(count))
        assert caught.value.status_code == 400


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_exception_of_seldon_has_the_envelope_of_every_failure() -> None:
    error = SeldonMicroserviceException("too many", status_code=429, payload={"x": 1}, reason="BUSY")
    assert (error.status_code, error.payload, str(error)) == (429, {"x": 1}, "too many")
    assert error.to_dict() == {"status": {"code": -1, "info": "too many", "reason": "BUSY", "status": 1}}
    plain = SeldonMicroserviceException("bad")
    assert (plain.status_code, plain.reason) == (400, "MICROSERVICE_BAD_DATA")
    assert SeldonNotImplementedError().message == "not implemented"
    assert isinstance(NOT_DONE, SeldonMicroserviceException)


@pytest.mark.parametrize(
    ("image", "name", "version"),
    [("img:0.1", "img", "0.1"), ("host:5000/img:0.1", "host:5000/img", "0.1"), ("img", "img", ""), ("", "", "")],
)
def test_identity_splits_its_image_at_the_last_colon(image: str, name: str, version: str) -> None:
    identity = UnitIdentity(image=image)
    assert (identity.image_name, identity.image_version) == (name, version)
