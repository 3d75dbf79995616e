"""A component as a step of a flow, beside other steps."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import servegraph
from servegraph.errors import DeadlineError, GraphError, ModelLoadError, ModelNotReadyError, RequestFailedError
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event, Trigger
from servegraph.runtimes.function import ServingFunction
from servegraph.serving.seldon import wire
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.custom_metrics import CustomMetric
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.step import METRIC_SINKS, ComponentStep, message_of
from servegraph.serving.seldon.tree_errors import PassedThroughError
from servegraph.serving.seldon.user_model import SeldonResponse

ROWS: dict[str, Any] = {"data": {"names": ["a", "b"], "ndarray": [[1, 2]]}}


class Double:
    def __init__(self, by: int = 2) -> None:
        self.by = by
        self.seen: list[Any] = []

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        self.seen.append(names)
        return SeldonResponse(X * self.by, tags={"by": self.by})

    def transform_input(self, X: Any, names: Any) -> Any:
        return X + 1

    def aggregate(self, X: Any, names: Any) -> Any:
        return sum(X)

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> Any:
        self.seen.append((X.tolist(), reward, truth.tolist(), routing))
        return [[1]]


class DoubleAsync(Double):
    async def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return super().predict(X, names, meta)


@pytest.fixture(params=[Double, DoubleAsync], ids=["plain", "async"])
def double(request: pytest.FixtureRequest) -> Double:
    made: Double = request.param()
    return made


def flow(component: Any, **options: Any) -> ServingFunction:
    fn = servegraph.new_function("flow")
    fn.set_topology("flow", engine="async").to(ComponentStep, name="model", component=component, **options).respond()
    return fn


def run(component: Any, body: Any, path: str = "/", **options: Any) -> Any:
    with flow(component, **options).to_mock_server() as server:
        return server.test(path, body)


def plain(answer: dict[str, Any]) -> Any:
    return np.asarray(answer["data"]["ndarray"]).tolist()


# -- what goes in decides what comes out -------------------------------------------------------------------------------


def test_seldon_body_has_a_seldon_answer(double: Double) -> None:
    answer = run(double, {**ROWS, "meta": {"puid": "p"}})
    assert (plain(answer), answer["meta"]) == ([[2, 4]], {"puid": "p", "tags": {"by": 2}})
    assert double.seen == [["a", "b"]]


def test_rows_of_servegraph_have_such_an_answer(double: Double) -> None:
    with flow(double).to_mock_server() as server:
        answer = server.test("/", {"inputs": [[1, 2]], "names": ["a", "b"]}, event_id="7")
    assert answer.pop("outputs").tolist() == [[2, 4]]
    assert answer == {"id": "7", "model_name": "model", "tags": {"by": 2}}
    assert double.seen == [["a", "b"]]


def test_rows_that_are_an_array_go_in_as_they_are(double: Double) -> None:
    assert run(double, {"inputs": np.array([[0.5]])})["outputs"].tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"inputs": [[1], [2, 3]]}, "data.ndarray is not rectangular"),
        ({"inputs": [1], "names": "a"}, "names must be a list"),
        ([1, 2], "a JSON object is wanted, not a list"),
    ],
)
def test_malformed_body_is_the_callers_fault(double: Double, body: Any, problem: str) -> None:
    with pytest.raises(RequestFailedError, match=problem):
        run(double, body)


def test_rows_for_what_takes_messages_or_feedback_are_refused(double: Double) -> None:
    with pytest.raises(RequestFailedError, match="a list of messages"):
        run(double, {"inputs": [[1]]}, operation="aggregate")
    with pytest.raises(RequestFailedError, match="feedback is an object, not Message"):
        run(double, {"inputs": [[1]]}, operation="send_feedback")


def test_message_has_a_message_as_answer(double: Double) -> None:
    answer = run(double, Message("data", np.array([[3]]), encoding="tensor", meta=Meta("p")))
    assert isinstance(answer, Message)
    assert (answer.value.tolist(), answer.encoding, answer.meta) == ([[6]], "tensor", Meta("p", tags={"by": 2}))
    joined = run(double, [Message("data", np.array([1])), Message("data", np.array([2]))], operation="aggregate")
    assert isinstance(joined, Message)
    assert joined.value.tolist() == [3]


def test_bytes_of_grpc_have_a_message_as_answer(double: Double) -> None:
    source = wire.message_to_wire(Message("data", np.array([[3.0]]), encoding="ndarray"))
    with flow(double).to_mock_server() as server:
        answer = server.run(Event(source, path="/predict", trigger=Trigger("grpc")), get_body=True)
    assert isinstance(answer, Message)
    assert answer.value.tolist() == [[6.0]]


# -- which operation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "path", "expected"),
    [
        ("predict", "/", [[2, 4]]),
        ("transform_input", "/", [[2, 3]]),
        ("transform_output", "/anything/else", [[1, 2]]),
        ("predict", "/transform-input", [[2, 3]]),
        ("predict", "transform_input/", [[2, 3]]),
        ("transform_input", "/predict", [[2, 4]]),
    ],
)
def test_path_that_is_an_operation_wins_over_that_of_the_step(
    double: Double, operation: str, path: str, expected: Any
) -> None:
    assert plain(run(double, ROWS, path, operation=operation)) == expected


@pytest.mark.parametrize("as_object", [False, True])
def test_feedback_reaches_the_step(double: Double, as_object: bool) -> None:
    truth = Message("data", np.array([[5.0]]))
    body: Any = {"request": ROWS, "reward": 0.5, "truth": {"data": {"ndarray": [[5]]}}, "response": {}}
    body["response"] = {"meta": {"routing": {"node": 3}}}
    if as_object:
        request = Message("data", np.array([[1.0, 2.0]]), encoding="ndarray")
        body = Feedback(request, Message(meta=Meta(routing={"node": 3})), truth, 0.5)
    answer = run(double, body, "/send-feedback", unit={"unit_id": "node"})
    assert double.seen == [([[1.0, 2.0]], 0.5, [[5.0]], 3)]
    if as_object:
        assert isinstance(answer, Message)
        assert answer.value == [[1]]
    else:
        assert (plain(answer), type(answer["data"]["ndarray"][0][0])) == ([[1.0]], float)


# -- parts of a body ---------------------------------------------------------------------------------------------------


def test_step_reads_and_writes_where_its_paths_say(double: Double) -> None:
    body = {"request": {"model": ROWS, "user": "ann"}, "kept": [1]}
    answer = run(double, body, input_path="request.model", result_path="answers.double")
    assert plain(answer["answers"]["double"]) == [[2, 4]]
    assert (answer["request"], answer["kept"]) == ({"model": ROWS, "user": "ann"}, [1])
    assert body == {"request": {"model": ROWS, "user": "ann"}, "kept": [1]}


def test_rows_below_a_path_are_answered_in_their_form(double: Double) -> None:
    answer = run(double, {"rows": {"inputs": [[1]]}}, input_path="rows", result_path="rows")
    assert answer["rows"]["outputs"].tolist() == [[2]]


def test_components_work_one_behind_the_other() -> None:
    fn = servegraph.new_function("flow")
    graph = fn.set_topology("flow", engine="async")
    first = graph.to(
        ComponentStep, name="scale", component=Double(10), operation="transform_input", input_path="x", result_path="x"
    )
    first.to(ComponentStep, name="model", component=Double(3), input_path="x", result_path="y").respond()
    with fn.to_mock_server() as server:
        answer = server.test("/", {"x": ROWS})
    assert (plain(answer["x"]), plain(answer["y"])) == ([[2, 3]], [[6, 9]])


@pytest.mark.parametrize("kind", [Double, DoubleAsync])
def test_handler_of_a_failure_sees_the_body_as_it_came(kind: type[Double]) -> None:
    seen: list[Any] = []

    def rescue(event: Event) -> Event:
        seen.append(event.body)
        event.body = {"rescued": type(event.error).__name__}
        return event

    fn = servegraph.new_function("flow")
    graph = fn.set_topology("flow", engine="async")
    step = graph.to(ComponentStep, name="model", component=kind(), input_path="x", result_path="y")
    step.error_handler("rescue", handler=rescue, full_event=True)
    step.respond()
    body = {"x": {"strData": {"no": "text"}}, "kept": 1}
    with fn.to_mock_server() as server:
        assert server.test("/", body) == {"rescued": "TypeError"}
    assert seen == [body]


# -- parameters of the step --------------------------------------------------------------------------------------------


def test_component_is_made_of_its_class_and_its_typed_parameters() -> None:
    parameters = [{"name": "by", "value": "5", "type": "INT"}]
    assert plain(run(Double, ROWS, parameters=parameters)) == [[5, 10]]
    assert plain(run(Double, ROWS, parameters={"by": 4})) == [[4, 8]]


def test_step_knows_its_names() -> None:
    step = ComponentStep(component=Double, unit=UnitIdentity("node"))
    assert (step.name, step.component.identity.unit_id) == ("Double", "node")
    assert ComponentStep(name="own", component=Double).name == "own"
    named = run(Double(), ROWS, unit={"unit_id": "node", "image": "img:1"})
    assert named["meta"]["requestPath"] == {"node": "img:1"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "a Seldon component is needed: component=<class, name or object>"),
        ({"component": Double, "operation": "predikt"}, "'predikt' is no operation of a Seldon component"),
        ({"component": Double, "threads": -1}, r"threads must be 0 \(any number\) or more, not -1"),
        ({"component": Double, "parameters": {"of": 1}}, "Double cannot be made with parameters of"),
        ({"component": Double, "input_path": "a..b"}, r"input_path 'a\.\.b' has an empty part"),
    ],
)
def test_step_that_is_wrong_is_told_when_it_is_made(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        ComponentStep(**options)


def test_step_is_not_ready_before_its_model_is_loaded() -> None:
    loads: list[int] = []

    class Loaded(Double):
        def load(self) -> None:
            loads.append(1)

    step = ComponentStep(component=Loaded)
    assert loads == []
    with pytest.raises(ModelNotReadyError, match="component 'Loaded' is not loaded yet"):
        step.do_event(Event(dict(ROWS)))
    step.post_init()
    assert loads == [1]
    assert plain(step.do_event(Event(dict(ROWS))).body) == [[2, 4]]


def test_metrics_go_to_the_sink_of_the_runtime_and_are_shown_where_they_are_to_be() -> None:
    class Counting(Double):
        def metrics(self) -> Any:
            return [{"type": "COUNTER", "key": "calls", "value": 1}]

    class Kept:
        def __init__(self, identity: UnitIdentity) -> None:
            self.identity = identity
            self.metrics: list[tuple[CustomMetric, str]] = []
            sinks.append(self)

        def record(self, metric: CustomMetric, method: str) -> None:
            self.metrics.append((metric, method))

        def reject(self, method: str) -> None:
            raise AssertionError("rejected")

        def feedback(self, reward: float) -> None:
            raise AssertionError("no feedback")

    sinks: list[Kept] = []
    for shown in (True, False):
        context = GraphContext()
        context.services[METRIC_SINKS] = Kept
        step = ComponentStep(context, component=Counting, unit={"unit_id": "n"}, metrics_in_response=shown)
        step.post_init()
        meta = step.do_event(Event(dict(ROWS))).body["meta"]
        assert meta.get("metrics") == ([{"type": "COUNTER", "key": "calls", "value": 1}] if shown else None)
    assert [(sink.identity.unit_id, sink.metrics) for sink in sinks] == [
        ("n", [(CustomMetric("COUNTER", "calls", 1.0), "predict")])
    ] * 2


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 2), (0, 4)])
def test_no_more_calls_run_at_once_than_the_component_takes(threads: int, most: int) -> None:
    class Watched:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.inside = self.highest = 0
            self.full = threading.Event()
            self.go = threading.Event()

        def predict(self, X: Any, names: Any) -> Any:
            with self.lock:
                self.inside += 1
                self.highest = max(self.highest, self.inside)
                if self.inside == most:
                    self.full.set()
            assert self.go.wait(60)
            with self.lock:
                self.inside -= 1
            return X

    watched = Watched()
    step = ComponentStep(component=watched, threads=threads)
    step.post_init()
    assert step.gate_is_free()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(step.do_event, Event(dict(ROWS))) for _ in range(4)]
        assert watched.full.wait(60)
        assert step.gate_is_free() is (threads == 0)
        watched.go.set()
        assert [plain(call.result(60).body) for call in calls] == [[[1, 2]]] * 4
    assert watched.highest == most
    assert step.gate_is_free()


def test_call_whose_time_is_up_when_its_turn_comes_does_not_run() -> None:
    class Counts:
        calls = 0

        def predict(self, X: Any, names: Any) -> Any:
            self.calls += 1
            return X

    step = ComponentStep(name="counts", component=Counts(), threads=1)
    step.post_init()
    event = Event(dict(ROWS))
    event.deadline = time.monotonic()
    with pytest.raises(DeadlineError, match="before 'counts' had its turn"):
        step.do_event(event)
    assert step.user_object.calls == 0
    assert step.gate_is_free()


def test_method_that_load_makes_a_coroutine_function_is_told_when_it_is_loaded() -> None:
    class Changes:
        def predict(self, X: Any, names: Any) -> Any:
            return X

        def load(self) -> None:
            async def predict(X: Any, names: Any) -> Any:
                return X

            self.predict = predict  # type: ignore[method-assign]

    step = ComponentStep(name="changes", component=Changes())
    with pytest.raises(ModelLoadError, match=r"component 'changes': load\(\) has put a coroutine function"):
        step.post_init()
    assert not step.ready


# -- low-level methods -------------------------------------------------------------------------------------------------


class Raw:
    def __init__(self, result: Any) -> None:
        self.result = result

    def predict_raw(self, msg: Any) -> Any:
        return self.result


RAW = {"data": {"ndarray": [[7]]}, "meta": {"puid": "p", "tags": {"t": 1}}}


@pytest.mark.parametrize("form", ["json", "proto"])
def test_low_level_answer_takes_the_form_of_the_request(form: str) -> None:
    result: Any = RAW if form == "json" else wire.message_to_proto(Message("data", [[7]], [], "ndarray", Meta("p")))
    component = Raw(result)
    answer = run(component, ROWS)
    assert (answer["data"]["ndarray"], answer["meta"]["puid"]) == ([[7]], "p")
    message = run(component, Message("strData", "x"))
    assert (message.value.tolist(), message.meta.puid) == ([[7]], "p")
    assert run(component, {"inputs": [[1]]})["outputs"].tolist() == [[7]]


@pytest.mark.parametrize("value", [5, None, [1], {"data": 5}], ids=repr)
def test_low_level_answer_that_is_no_message_is_the_components_fault(value: Any) -> None:
    with pytest.raises(SeldonMicroserviceException, match="the component's answer is no message") as caught:
        message_of(RawAnswer(value))
    assert caught.value.status_code == 500
    with pytest.raises(RequestFailedError, match="the component's answer is no message"):
        run(Raw(value), {"inputs": [[1]]})


def test_low_level_answer_that_is_an_error_stays_one() -> None:
    with pytest.raises(PassedThroughError) as caught:
        message_of(RawAnswer({"status": {"code": 404}}, 404))
    assert caught.value.status == 404
    empty = message_of(RawAnswer({"meta": {"puid": "p"}, "status": {"info": "learnt"}}))
    assert (empty.kind, empty.meta.puid, empty.status) == (None, "p", {"info": "learnt"})
