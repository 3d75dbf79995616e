"""`VotingEnsemble` and `ParallelRun` in a running graph: paths, votes, failures, tracking, isolation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import servegraph
from servegraph.errors import GraphError, RequestFailedError
from servegraph.graph.context import Prediction
from servegraph.graph.events import Event, Response
from servegraph.graph.policies import StepPolicy
from servegraph.runtimes.mock import MockServer
from servegraph.serving import ParallelRun, V2ModelServer, VotingEnsemble


class Says(V2ModelServer):
    """Predicts what it was told to, for each row; or raises it."""

    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        value = self.get_param("value")
        if isinstance(value, Exception):
            raise value
        if self.get_param("as_is", False):
            return value
        return [value] * len(request["inputs"])


class Explains(Says):
    def explain(self, request: Any) -> Any:
        return {"because": self.get_param("value")}


class Together(V2ModelServer):
    """Answers once all models of its ensemble have been asked."""

    def load(self) -> None:
        pass

    async def predict(self, request: Any) -> Any:
        barrier = self.context.barrier  # type: ignore[attr-defined]
        await asyncio.wait_for(barrier.wait(), 5)
        return [1] * len(request["inputs"])


class TogetherOnThreads(Together):
    def predict(self, request: Any) -> Any:
        self.context.thread_barrier.wait(5)  # type: ignore[attr-defined]
        return [1] * len(request["inputs"])


def ensemble(
    models: Mapping[str, Any], class_name: Any = VotingEnsemble, model_class: Any = Says, **arguments: Any
) -> MockServer:
    fn = servegraph.new_function("votes", kind="serving")
    fn.set_topology("router", class_name, **arguments)
    for key, value in models.items():
        fn.add_model(
            key, class_name=model_class, model_path=".", **(value if isinstance(value, dict) else {"value": value})
        )
    return fn.to_mock_server()


def outputs(models: Mapping[str, Any], rows: int = 1, **arguments: Any) -> Any:
    with ensemble(models, **arguments) as server:
        return server.test("/v2/models/infer", {"inputs": [[0]] * rows})["outputs"]


def refused(server: MockServer, path: str = "/v2/models/infer", body: Any = None, method: str = "") -> Any:
    with pytest.raises(RequestFailedError) as caught:
        server.test(path, {"inputs": [1]} if body is None and method != "GET" else body, method)
    return caught.value


class Recorder:
    def __init__(self) -> None:
        self.records: list[Prediction] = []

    def record(self, prediction: Prediction) -> None:
        self.records.append(prediction)

    def names(self) -> list[str]:
        return sorted(r.model for r in self.records)


# -- votes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1, -1, 1], -1),
        (["cat", "dog", "dog"], "dog"),
        ([True, False, False], False),
        ([1, 2, 3], 1),  # a tie: the first route
        ([np.int64(4), 5, np.int64(4)], 4),
        ([1.0, 2.0, 6.0], 3.0),
        ([1, 2, 6.0], 3.0),
    ],
)
def test_ensemble_without_a_vote_type_votes_by_what_the_models_predict(values: list[Any], expected: Any) -> None:
    found = outputs({f"m{i}": v for i, v in enumerate(values)}, rows=2)
    assert found == [expected, expected]
    assert type(found[0]) is type(expected)


def test_ensemble_tells_the_vote_type_of_each_request_anew() -> None:
    class Echo(V2ModelServer):
        def load(self) -> None:
            pass

        def predict(self, request: Any) -> Any:
            return request["inputs"]

    with ensemble({"a": {}, "b": {}}, model_class=Echo) as server:
        assert server.test("/", {"inputs": [1, 2]})["outputs"] == [1, 2]
        assert server.test("/", {"inputs": [1.5]})["outputs"] == [1.5]
        assert server.test("/", {"inputs": ["x"]})["outputs"] == ["x"]


@pytest.mark.parametrize(
    ("weights", "expected"), [({"a": 3, "b": 1}, 1.5), ({"a": 0.3, "b": 0.1}, 1.5), ({"a": 1}, 1.0), (None, 2.0)]
)
def test_ensemble_with_weights_of_any_sum_gives_the_weighted_mean(weights: Any, expected: float) -> None:
    assert outputs({"a": 1.0, "b": 3.0}, weights=weights) == [expected]


def test_ensemble_with_weights_lets_the_heavier_label_win() -> None:
    assert outputs({"a": "x", "b": "y", "c": "y"}, weights={"a": 5, "b": 2, "c": 2}) == ["x"]


def test_ensemble_with_a_soft_vote_gives_labels_or_probabilities() -> None:
    models = {"a": [0.9, 0.1], "b": [0.2, 0.8], "c": [0.4, 0.6]}
    assert outputs(models, vote_type="soft") == [0]
    assert outputs(models, vote_type="soft", classes=["no", "yes"], weights={"b": 1, "c": 1}) == ["yes"]
    assert outputs(models, vote_type="soft", soft_output="probabilities") == [pytest.approx([0.5, 0.5])]


def test_ensemble_with_named_columns_reads_and_answers_them() -> None:
    found = outputs(
        {"a": {"value": {"p": [1]}, "as_is": True}, "b": {"value": [1]}, "c": 2},
        prediction_col_name="p",
        format_response_with_col_name_flag=True,
        vote_type="classification",
    )
    assert found == {"p": [1]}


def test_ensemble_with_a_logic_of_its_own_uses_it() -> None:
    class Largest(VotingEnsemble):
        def logic(self, predictions: Any, weights: Any) -> Any:
            assert weights == [0.25, 0.75]
            return [max(row) for row in predictions]

    assert outputs({"a": 1, "b": 9}, class_name=Largest, weights={"a": 1, "b": 3}) == [9]

    class Plus(VotingEnsemble):
        def logic(self, predictions: Any, weights: Any) -> Any:
            return [v + 100 for v in super().logic(predictions, weights)]

    assert outputs({"a": 1.0, "b": 3.0}, class_name=Plus) == [102.0]


def test_ensemble_whose_models_differ_in_rows_names_them() -> None:
    models = {"a": {"value": [1, 2], "as_is": True}, "b": {"value": [1], "as_is": True}}
    with ensemble(models) as server:
        error = refused(server)
    assert error.status == 500
    assert "a: 2, b: 1" in str(error)


def test_ensemble_whose_model_gives_no_rows_names_it() -> None:
    with ensemble({"a": {"value": "text", "as_is": True}}) as server:
        assert "model 'a' gave str" in str(refused(server))


def test_ensemble_with_a_tensor_request_answers_with_tensors() -> None:
    tensor = {"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1.0, 2.0]}
    with ensemble({"a": 1.0, "b": 2.0}) as server:
        answer = server.test("/v2/models/VotingEnsemble/infer", {"id": "7", "inputs": [tensor]})
    assert answer == {
        "id": "7",
        "model_name": "VotingEnsemble",
        "outputs": [{"name": "prediction", "shape": [2], "datatype": "FP64", "data": [1.5, 1.5]}],
    }


# -- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/", "VotingEnsemble"),
        ("/v2/models/infer", "VotingEnsemble"),
        ("/v2/models/predict", "VotingEnsemble"),
        ("/v2/models/VotingEnsemble", "VotingEnsemble"),
        ("/v2/models/VotingEnsemble/predict", "VotingEnsemble"),
        ("/v2/models/b/infer", "b"),
        ("/v2/models/c", "c"),
        ("/v2/models/c/versions/2/infer", "c"),
    ],
)
def test_ensemble_path_leads_to_the_ensemble_or_to_one_model(path: str, model: str) -> None:
    with ensemble({"a": 1, "b": 2, "c:1": 3, "c:2": 4}) as server:
        answer = server.test(path, {"inputs": [1]})
    assert answer["model_name"] == model
    assert answer["outputs"] == {"VotingEnsemble": [1], "b": [2], "c": [4]}[model]


def test_ensemble_body_names_the_model_and_the_operation() -> None:
    with ensemble({"a": 1, "b": 2}) as server:
        assert server.test("/", {"model": "b", "inputs": [1]})["outputs"] == [2]
        assert server.test("/", {"model": "VotingEnsemble", "operation": "predict", "inputs": [1]})["outputs"] == [1]


def test_ensemble_with_a_name_of_its_own_in_a_flow_answers_to_it() -> None:
    fn = servegraph.new_function("flow", kind="serving")
    graph = fn.set_topology("flow")
    router = graph.to("*servegraph.serving.VotingEnsemble", name="ens", vote_type="regression").respond()
    router.add_route("a", class_name=Says, value=1)
    router.add_route("b", class_name=Says, value=2)
    with fn.to_mock_server() as server:
        assert server.test("/v2/models/ens/infer", {"inputs": [1]})["outputs"] == [1.5]
        assert server.test("/v2/models/a/infer", {"inputs": [1]})["outputs"] == [1]


def test_ensemble_listing_and_metadata_tell_members_and_weights() -> None:
    with ensemble({"a": 1, "b": 2}, weights={"a": 1}) as server:
        assert server.test("/v2/models", method="GET") == {
            "models": ["a", "b", "VotingEnsemble"],
            "weights": {"a": 1},
        }
        about = server.test("/v2/models/VotingEnsemble", method="GET")
        assert (about["name"], about["members"], about["weights"]) == ("VotingEnsemble", ["a", "b"], {"a": 1})
        assert about["inputs"] == about["outputs"] == []


def test_ensemble_ready_is_that_of_all_its_members() -> None:
    with ensemble({"a": 1, "b": 2}) as server:
        path = "/v2/models/VotingEnsemble/ready"
        assert server.test(path, method="GET")["ready"] is True
        server.models["router/b"].ready = False
        error = refused(server, path, method="GET")
        assert error.status == 503
        assert "waiting for b" in str(error)
        assert refused(server, path).status == 405
        assert refused(server).status == 503


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v2/models/x/infer", {"inputs": [1]}, 404, "valid: VotingEnsemble, a, b"),
        ("/v2/models/VotingEnsemble/fly", {"inputs": [1]}, 404, "valid: explain, infer"),
        ("/other", {"inputs": [1]}, 404, "no such path"),
        ("/v2/models/infer", {"input": [1]}, 422, "'inputs'"),
        ("/v2/models/infer", {"inputs": 5}, 422, "'inputs'"),
        ("/v2/models/infer", [1], 422, "'inputs'"),
    ],
)
def test_ensemble_request_that_is_wrong_is_refused(path: str, body: Any, status: int, text: str) -> None:
    with ensemble({"a": 1, "b": 2}) as server:
        error = refused(server, path, body)
    assert error.status == status
    assert text in str(error)


def test_ensemble_explain_gives_the_explanation_of_each_model() -> None:
    with ensemble({"a": 1, "b": 2}, model_class=Explains) as server:
        found = server.test("/v2/models/explain", {"inputs": [1]})
    assert found["outputs"] == {"a": {"because": 1}, "b": {"because": 2}}


def test_ensemble_explain_of_models_that_cannot_is_a_422_that_names_them() -> None:
    with ensemble({"a": 1, "b": 2}) as server:
        error = refused(server, "/v2/models/explain")
    assert error.status == 422
    assert "a, b define no explain()" in str(error)


# -- failures -------------------------------------------------------------------------------------------------------


def test_ensemble_whose_model_fails_fails_and_names_it() -> None:
    with ensemble({"a": 1.0, "b": ValueError("secret")}) as server:
        error = refused(server)
    assert error.status == 500
    assert error.body["model"] == "b"
    assert error.body["step"] == "VotingEnsemble/b"
    assert "ValueError" in error.body["detail"]
    assert "secret" not in error.body["detail"]


def test_ensemble_that_takes_partial_answers_lets_the_survivors_vote_and_says_so() -> None:
    models = {"a": 1.0, "b": ValueError(), "c": 3.0}
    with ensemble(models, on_failure="partial", weights={"a": 1, "b": 2, "c": 1}) as server:
        answer = server.test("/v2/models/infer", {"inputs": [1]})
    assert answer["outputs"] == [2.0]
    assert (answer["partial"], answer["errors"]) == (True, {"b": "ValueError"})


def test_ensemble_that_is_whole_says_nothing_of_partial() -> None:
    with ensemble({"a": 1.0}, on_failure="partial") as server:
        assert set(server.test("/", {"inputs": [1]})) == {"id", "model_name", "outputs"}


def test_ensemble_of_which_all_models_failed_is_a_502() -> None:
    with ensemble({"a": ValueError(), "b": KeyError()}, on_failure="partial") as server:
        error = refused(server)
    assert error.status == 502
    assert "a (ValueError), b (KeyError)" in str(error)


def test_ensemble_whose_survivors_have_no_weight_is_a_502() -> None:
    with ensemble({"a": 1.0, "b": ValueError()}, on_failure="partial", weights={"b": 1}) as server:
        assert refused(server).status == 502


def test_ensemble_without_its_quorum_or_a_required_model_fails() -> None:
    models = {"a": 1.0, "b": ValueError(), "c": 3.0}
    with ensemble(models, quorum=3) as server:
        assert "2 of 3 routes answered, 3 are needed" in str(refused(server))
    with ensemble(models, required=["b"]) as server:
        assert refused(server).body["model"] == "b"
    with ensemble(models, required=["a"], quorum=2) as server:
        assert server.test("/", {"inputs": [1]})["outputs"] == [2.0]


def test_ensemble_whose_slow_model_runs_out_of_its_own_time_goes_on_without_it() -> None:
    class Slow(Says):
        async def predict(self, request: Any) -> Any:
            await asyncio.sleep(30)

    fn = servegraph.new_function("votes", kind="serving")
    fn.set_topology("router", VotingEnsemble, on_failure="partial")
    fn.add_model("a", class_name=Says, value=1)
    fn.add_model("b", class_name=Slow, policy=StepPolicy(timeout_s=0.05))
    with fn.to_mock_server() as server:
        answer = server.test("/", {"inputs": [1]})
    assert (answer["outputs"], answer["errors"]) == ([1], {"b": "DeadlineError"})


# -- at the same time -----------------------------------------------------------------------------------------------


def test_ensemble_asks_coroutine_models_at_the_same_time() -> None:
    with ensemble({"a": {}, "b": {}, "c": {}}, model_class=Together) as server:
        server.context.barrier = asyncio.Barrier(3)  # type: ignore[attr-defined]
        assert server.test("/", {"inputs": [1]})["outputs"] == [1]


def test_ensemble_asks_other_models_at_the_same_time_on_threads() -> None:
    with ensemble({"a": {}, "b": {}, "c": {}}, model_class=TogetherOnThreads) as server:
        server.context.thread_barrier = threading.Barrier(3)  # type: ignore[attr-defined]
        assert server.test("/", {"inputs": [1]})["outputs"] == [1]


def test_ensemble_with_the_array_executor_runs_in_the_callers_thread() -> None:
    threads = []

    class Where(Says):
        def predict(self, request: Any) -> Any:
            threads.append(threading.current_thread())
            return [1]

    with ensemble({"a": {}, "b": {}}, model_class=Where, executor_type="array") as server:
        assert server.plan.plain
        assert server.test("/", {"inputs": [1]})["outputs"] == [1]
    assert threads == [threading.current_thread()] * 2


@pytest.mark.parametrize("executor_type", ["thread", "array"])
def test_ensemble_models_that_change_their_body_do_not_see_each_other(executor_type: str) -> None:
    class Changes(V2ModelServer):
        def load(self) -> None:
            pass

        def predict(self, request: Any) -> Any:
            request["inputs"].append(1)
            request["seen"] = True
            return [len(request["inputs"])]

    with ensemble({"a": {}, "b": {}}, model_class=Changes, executor_type=executor_type) as server:
        body = {"inputs": [1, 2]}
        assert server.test("/", body)["outputs"] == [3]
    assert body == {"inputs": [1, 2]}


# -- tracking -------------------------------------------------------------------------------------------------------


def test_ensemble_records_itself_and_each_model_and_a_model_alone_only_itself() -> None:
    with ensemble({"a": 1, "b": 2}) as server:
        recorder = server.context.recorder = Recorder()
        server.test("/v2/models/infer", {"inputs": [1], "id": "x"})
        assert recorder.names() == ["VotingEnsemble", "a", "b"]
        mine = next(r for r in recorder.records if r.model == "VotingEnsemble")
        assert mine.request == {"inputs": [1], "id": "x"}
        assert mine.response == {"id": "x", "model_name": "VotingEnsemble", "outputs": [1]}
        assert (mine.op, mine.error, mine.model_class) == ("infer", None, "VotingEnsemble")
        recorder.records.clear()
        answer = server.test("/v2/models/infer", {"inputs": [1]})
        assert {r.request_id for r in recorder.records} == {answer["id"]}  # drawn by the server
        recorder.records.clear()
        server.test("/v2/models/a/infer", {"inputs": [1]})
        assert recorder.names() == ["a"]
        server.test("/", {"inputs": [1]})
        assert recorder.names() == ["VotingEnsemble", "a", "a", "b"]


def test_ensemble_that_fails_records_its_error() -> None:
    with ensemble({"a": ValueError("no")}) as server:
        recorder = server.context.recorder = Recorder()
        refused(server)
        assert recorder.names() == ["VotingEnsemble", "a"]
        assert all(r.error is not None for r in recorder.records)


# -- declaring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vote_type": "majority"}, "valid: classification, regression, soft"),
        ({"soft_output": "x"}, "valid: label, probabilities"),
        ({"weights": {"x": 1}}, "no route"),
        ({"executor_type": "process"}, "valid: array, thread"),
        ({"on_failure": "ignore"}, "valid: fail, partial"),
        ({"on_failure": "fail", "quorum": 1}, "on_failure='partial'"),
        ({"quorum": 3}, "from 1 to the number of routes"),
        ({"required": ["x"]}, "no route"),
        ({"vote_typ": "soft"}, "did you mean 'vote_type'"),
    ],
)
def test_ensemble_declared_wrongly_is_refused_when_it_is_built(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        ensemble({"a": 1, "b": 2}, **arguments)


@pytest.mark.parametrize("key", ["infer", "VotingEnsemble", "VotingEnsemble:v1"])
def test_ensemble_with_a_route_that_its_paths_hide_is_refused(key: str) -> None:
    with pytest.raises(GraphError, match="rename"):
        ensemble({key: 1})


# -- ParallelRun ----------------------------------------------------------------------------------------------------


def parallel(routes: Mapping[str, Any], class_name: Any = ParallelRun, **arguments: Any) -> MockServer:
    fn = servegraph.new_function("all", kind="serving")
    router = fn.set_topology("router", class_name, **arguments)
    for key, handler in routes.items():
        router.add_route(key, handler=handler)
    return fn.to_mock_server()


def failing(body: Any) -> Any:
    raise ValueError("secret")


@pytest.mark.parametrize("executor_type", [None, "thread", "array"])
def test_parallel_run_merges_in_route_order(executor_type: str | None) -> None:
    released = threading.Event()

    def slow(body: Any) -> Any:
        if executor_type != "array":
            released.wait(5)
        return {"x": "slow", "a": 1}

    def quick(body: Any) -> Any:
        released.set()
        return {"x": "quick", "b": 2}

    with parallel({"1": slow, "2": quick}, executor_type=executor_type) as server:
        assert list(server.test("/", {"in": 0}).items()) == [("x", "quick"), ("a", 1), ("b", 2)]


def test_parallel_run_that_extends_leaves_the_callers_body_alone() -> None:
    def add(body: Any) -> Any:
        body["mine"] = 1
        return {"n": len(body)}

    with parallel({"a": add, "b": add}, extend_event=True) as server:
        body = {"in": [1]}
        assert server.test("/", body) == {"in": [1], "n": 2}
        assert body == {"in": [1]}
        assert refused(server, "/", [1]).status == 422


def test_parallel_run_with_a_failing_route_fails_and_names_it() -> None:
    with parallel({"a": lambda body: {"a": 1}, "b": failing}) as server:
        error = refused(server, "/")
    assert (error.status, error.body["step"]) == (500, "ParallelRun/b")


def test_parallel_run_that_takes_partial_answers_says_what_is_missing() -> None:
    routes = {"a": lambda body: {"a": 1}, "b": failing, "c": lambda body: Response(body={"e": 1}, status_code=503)}
    with parallel(routes, on_failure="partial") as server:
        answer = server.test("/", {})
    assert answer == {"a": 1, "partial": True, "errors": {"b": "ValueError", "c": "StepError"}}


def test_parallel_run_of_which_all_routes_failed_is_a_502() -> None:
    with parallel({"a": failing, "b": failing}, on_failure="partial") as server:
        assert refused(server, "/").status == 502


def test_parallel_run_with_a_merger_of_its_own_uses_it() -> None:
    class Listed(ParallelRun):
        def merger(self, body: Any, results: dict[str, Any]) -> Any:
            return list(results.items())

    with parallel({"a": lambda b: 1, "b": lambda b: 2}, Listed) as server:
        assert server.test("/", {}) == [("a", 1), ("b", 2)]


def test_parallel_run_whose_answers_are_no_objects_says_what_to_do() -> None:
    with parallel({"a": lambda b: 1}) as server:
        assert "override it" in str(refused(server, "/"))


def test_parallel_run_of_models_gives_them_the_operation() -> None:
    fn = servegraph.new_function("all", kind="serving")
    router = fn.set_topology("router", ParallelRun)
    router.add_route("a", class_name=Says, value=1)
    with fn.to_mock_server() as server:
        assert server.test("/v2/models/predict", {"inputs": [1]})["outputs"] == [1]
        assert server.test("/", {"inputs": [1]})["outputs"] == [1]
        assert refused(server, "/elsewhere").status == 404


def test_parallel_run_routes_have_the_id_of_the_request() -> None:
    def the_id(event: Event) -> Event:
        event.body = {event.path or "op": event.id}
        return event

    fn = servegraph.new_function("all", kind="serving")
    router = fn.set_topology("router", ParallelRun)
    router.add_route("a", handler=the_id, full_event=True)
    router.add_route("b", handler=lambda body: {})
    with fn.to_mock_server() as server:
        assert server.test("/", {}, event_id="mine") == {"op": "mine"}


def test_parallel_run_one_after_the_other_awaits_a_merger_that_waits() -> None:
    class Waits(ParallelRun):
        async def merger(self, body: Any, results: dict[str, Any]) -> Any:
            await asyncio.sleep(0)
            return {"n": len(results)}

    with parallel({"a": lambda b: 1, "b": lambda b: 2}, Waits, executor_type="array") as server:
        assert server.test("/", {}) == {"n": 2}


def test_ensemble_refuses_what_its_own_validate_refuses() -> None:
    class Strict(VotingEnsemble):
        def validate(self, request: Any, operation: str) -> Any:
            if len(request["inputs"]) > 1:
                raise ValueError("one row at a time")
            return request

    with ensemble({"a": 1}, class_name=Strict) as server:
        assert server.test("/", {"inputs": [1]})["outputs"] == [1]
        error = refused(server, body={"inputs": [1, 2]})
    assert error.status == 400
    assert "one row at a time" in str(error)
