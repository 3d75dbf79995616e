from __future__ import annotations

import asyncio
import copy
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import servegraph
from servegraph.errors import (
    MethodNotAllowedError,
    ModelLoadError,
    ModelNotReadyError,
    NotFoundError,
    RequestError,
    RequestFailedError,
    UnprocessableError,
)
from servegraph.graph.context import GraphContext, Prediction
from servegraph.graph.events import Event, Response, Trigger
from servegraph.serving.model_spec import Feature, ModelSpec
from servegraph.serving.v2 import V2ModelServer


class Model(V2ModelServer):
    def load(self) -> None:
        self.model = "loaded"

    def predict(self, request: Any) -> Any:
        return [x * self.get_param("factor", 1) for x in request["inputs"]]

    def explain(self, request: Any) -> Any:
        return {"why": request["inputs"]}

    def op_echo(self, event: Event) -> Any:
        return {"path": event.path, "body": event.body}


class AsyncModel(Model):
    async def predict(self, request: Any) -> Any:
        await asyncio.sleep(0)
        return [x * self.get_param("factor", 1) for x in request["inputs"]]


def ready(cls: type[V2ModelServer] = Model, name: str = "m", context: GraphContext | None = None, **kw: Any) -> Any:
    model = cls(context or GraphContext(), name, **kw)
    model.post_init()
    return model


def ask(model: V2ModelServer, path: str = "", body: Any = None, method: str | None = "POST", **kw: Any) -> Any:
    event = Event(body, method=method, path=path, event_id="e1", **kw)
    result = model.event_handler(event)
    if asyncio.iscoroutine(result):
        result = asyncio.run(result)
    assert result is event
    return event.body


both = pytest.mark.parametrize("cls", [Model, AsyncModel])


# -- operations ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("path", ["", "/", "infer", "/infer", "predict", "infer/"])
def test_predict_by_any_of_its_names_gives_the_response(cls: type[Model], path: str) -> None:
    answer = ask(ready(cls, "m:v1", factor=3), path, {"inputs": [1, 2]})
    timestamp = answer.pop("timestamp")
    assert answer == {"id": "e1", "model_name": "m", "model_version": "v1", "outputs": [3, 6]}
    assert timestamp.endswith("+00:00")
    assert len(timestamp) == len("2026-01-02 03:04:05.678901+00:00")


@both
def test_predict_without_a_version_names_none(cls: type[Model]) -> None:
    assert "model_version" not in ask(ready(cls), "infer", {"inputs": []})


@both
def test_predict_takes_the_id_of_the_body(cls: type[Model]) -> None:
    assert ask(ready(cls), "infer", {"inputs": [], "id": "mine"})["id"] == "mine"


@both
def test_predict_with_an_endpoint_uid_names_it(cls: type[Model]) -> None:
    assert ask(ready(cls, model_endpoint_uid="u1"), "infer", {"inputs": []})["model_endpoint_uid"] == "u1"


@both
def test_explain_gives_what_the_hook_gives_without_a_timestamp(cls: type[Model]) -> None:
    answer = ask(ready(cls), "explain", {"inputs": [1]})
    assert answer == {"id": "e1", "model_name": "m", "outputs": {"why": [1]}}


@both
@pytest.mark.parametrize("method", ["GET", "POST", None])
def test_own_operation_gets_the_event_and_answers_for_any_method(cls: type[Model], method: str | None) -> None:
    assert ask(ready(cls), "echo", {"x": 1}, method) == {"path": "echo", "body": {"x": 1}}


def test_own_operation_may_be_a_coroutine() -> None:
    class Own(Model):
        async def op_later(self, event: Event) -> Any:
            await asyncio.sleep(0)
            return "later"

    assert ask(ready(Own), "later") == "later"
    assert ask(ready(Own), "infer", {"inputs": [2]})["outputs"] == [2]


@both
def test_operation_of_the_body_counts_where_the_path_names_none(cls: type[Model]) -> None:
    model = ready(cls)
    assert "why" in ask(model, "", {"inputs": [], "operation": "explain"})["outputs"]
    assert ask(model, "infer", {"inputs": [], "operation": "explain"})["outputs"] == []


@both
def test_metadata_tells_name_and_versions(cls: type[Model]) -> None:
    event = Event(method="GET", path="")
    result = ready(cls, "m:v2").event_handler(event)
    event = asyncio.run(result) if asyncio.iscoroutine(result) else result
    assert event.body == {"name": "m", "version": "v2", "versions": ["v2"], "platform": "servegraph",
                          "inputs": [], "outputs": []}  # fmt: skip
    assert event.terminated


@both
def test_ready_operation_tells_in_mlruns_words(cls: type[Model]) -> None:
    answer = ask(ready(cls), "ready", None, "GET")
    assert isinstance(answer, Response)
    assert (answer.status_code, answer.body) == (200, b"Model m is ready (event_id = e1)")


@both
def test_ready_operation_before_loading_is_503(cls: type[Model]) -> None:
    with pytest.raises(ModelNotReadyError) as caught:
        ask(cls(GraphContext(), "m"), "ready", None, "GET")
    assert caught.value.retry_after >= 1


@both
def test_ready_operation_by_post_is_405(cls: type[Model]) -> None:
    with pytest.raises(MethodNotAllowedError) as caught:
        ask(ready(cls), "ready", {})
    assert caught.value.allow == ("GET",)


@both
@pytest.mark.parametrize("path", ["metrics", "infr", "custom/sub", "op_echo", "_x", "__class__"])
def test_unknown_operation_is_404_and_lists_those_there_are(cls: type[Model], path: str) -> None:
    with pytest.raises(NotFoundError, match="explain, infer") as caught:
        ask(ready(cls), path, {})
    assert "echo" in str(caught.value)


def test_unknown_operation_of_any_length_gives_a_short_message() -> None:
    with pytest.raises(NotFoundError) as caught:
        ask(ready(), "", {"operation": "x" * 100_000})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("body", [None, [], "x", 3, {}, {"inputs": 1}, {"inputs": {"a": 1}}, {"inputs": None}])
@both
def test_request_that_is_no_v2_request_is_422(cls: type[Model], body: Any) -> None:
    with pytest.raises(UnprocessableError, match="inputs") as caught:
        ask(ready(cls), "infer", body)
    assert caught.value.model == "m"


def test_other_protocol_leaves_checking_to_the_model() -> None:
    class Any_(Model):
        def predict(self, request: Any) -> Any:
            return request

    assert ask(ready(Any_, protocol="v1"), "infer", [1])["outputs"] == [1]


def test_model_without_predict_says_so() -> None:
    class Nothing(V2ModelServer):
        def load(self) -> None:
            pass

    for operation in ("infer", "explain"):
        with pytest.raises(NotImplementedError, match="Nothing defines no"):
            ask(ready(Nothing), operation, {"inputs": []})


# -- hooks ---------------------------------------------------------------------------------------------------------


class Hooks(V2ModelServer):
    seen: list[Any]

    def load(self) -> None:
        self.seen = []

    def preprocess(self, request: Any, operation: str) -> Any:
        self.seen.append(("preprocess", operation))
        return {**request, "inputs": [*request["inputs"], 9]}

    def validate(self, request: Any, operation: str) -> Any:
        self.seen.append(("validate", operation))
        if 13 in request["inputs"]:
            raise ValueError("13 is unlucky")
        return {**request, "checked": True}

    def predict(self, request: Any) -> Any:
        return [request["inputs"], request["checked"]]

    def postprocess(self, response: dict[str, Any]) -> dict[str, Any]:
        return {"outputs": response["outputs"], "keys": sorted(response)}


class AsyncHooks(Hooks):
    async def preprocess(self, request: Any, operation: str) -> Any:
        return super().preprocess(request, operation)

    async def validate(self, request: Any, operation: str) -> Any:
        await asyncio.sleep(0)
        return super().validate(request, operation)

    async def predict(self, request: Any) -> Any:
        return super().predict(request)

    async def postprocess(self, response: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return super().postprocess(response)


@pytest.mark.parametrize("cls", [Hooks, AsyncHooks])
def test_hooks_run_in_order_and_pass_on_what_they_give(cls: type[Hooks]) -> None:
    model = ready(cls)
    answer = ask(model, "infer", {"inputs": [1]})
    assert answer == {"outputs": [[1, 9], True], "keys": ["id", "model_name", "outputs", "timestamp"]}
    assert model.seen == [("preprocess", "infer"), ("validate", "infer")]


@pytest.mark.parametrize("cls", [Hooks, AsyncHooks])
def test_validate_that_raises_refuses_with_400_and_its_words(cls: type[Hooks]) -> None:
    with pytest.raises(RequestError, match="13 is unlucky") as caught:
        ask(ready(cls), "infer", {"inputs": [13]})
    assert caught.value.status == 400
    assert caught.value.model == "m"


def test_overridden_do_event_is_called_as_it_is() -> None:
    class Own(Model):
        def do_event(self, event: Event, *_: Any, **__: Any) -> Event:
            event.body = "own"
            return event

    class OwnAsync(AsyncModel):
        async def do_event(self, event: Event, *_: Any, **__: Any) -> Event:  # type: ignore[override]
            event.body = "own"
            return event

    assert ask(ready(Own)) == "own"
    assert ask(ready(OwnAsync)) == "own"


@both
def test_input_and_result_path_pick_and_put(cls: type[Model]) -> None:
    model = ready(cls, input_path="req", result_path="res.p")
    body = {"req": {"inputs": [1]}, "other": 5}
    answer = ask(model, "infer", body)
    assert answer["other"] == 5
    assert answer["res"]["p"]["outputs"] == [1]
    assert body == {"req": {"inputs": [1]}, "other": 5}


@both
def test_callers_body_is_never_changed_even_by_failures(cls: type[Model]) -> None:
    class Fails(cls):  # type: ignore[valid-type, misc]
        def predict(self, request: Any) -> Any:
            raise ValueError("boom")

    for model, body in [
        (ready(cls), {"inputs": [1, 2], "id": "x"}),
        (ready(Fails), {"inputs": [1, 2]}),
        (ready(cls), {"inputs": [{"name": "a", "shape": [2], "datatype": "INT64", "data": [1, 2]}], "outputs": []}),
        (ready(cls, result_path="a.b"), {"inputs": [1], "a": {"c": 1}}),
    ]:
        before = copy.deepcopy(body)
        try:
            ask(model, "infer", body)
        except ValueError:
            pass
        assert body == before


# -- parameters and metrics ------------------------------------------------------------------------------------------


def _spec_folder(tmp_path: Path) -> Path:
    (tmp_path / "model.txt").write_text("3")
    (tmp_path / "model_spec.yaml").write_text(
        "model_file: model.txt\nparameters: {a: artifact, b: artifact}\n"
        "inputs: [{name: x}, {name: y}]\noutputs: [{name: label}]\n"
    )
    return tmp_path


class FromFolder(Model):
    def load(self) -> None:
        path, _ = self.get_model()
        assert path is not None
        self.model = int(Path(path).read_text())


def test_get_param_goes_from_arguments_to_artifact_to_function_to_default(tmp_path: Path) -> None:
    context = GraphContext(parameters={"a": "function", "b": "function", "c": "function"})
    model = ready(FromFolder, context=context, model_path=str(_spec_folder(tmp_path)), a="argument", n=None)
    assert [model.get_param(k, "default") for k in "abcd"] == ["argument", "artifact", "function", "default"]
    assert model.get_param("n", "default") is None


def test_inputs_by_name_are_put_in_the_order_of_the_metadata(tmp_path: Path) -> None:
    class Rows(FromFolder):
        def predict(self, request: Any) -> Any:
            return request["inputs"]

    model = ready(Rows, model_path=str(_spec_folder(tmp_path)))
    assert ask(model, "infer_dict", {"inputs": {"y": 2, "x": 1}})["outputs"] == [[1, 2]]
    assert ask(model, "predict_dict", {"inputs": [{"y": 2, "x": 1, "z": 0}]})["outputs"] == [[1, 2]]
    with pytest.raises(UnprocessableError, match=r"\$\.inputs\[1\]: missing \['y'\]"):
        ask(model, "infer_dict", {"inputs": [{"x": 1, "y": 1}, {"x": 1}]})
    for wrong in ([1], "x", None):
        with pytest.raises(UnprocessableError):
            ask(model, "infer_dict", {"inputs": wrong})
    assert model.output_schema == ["label"]
    assert ask(model, "", None, "GET")["inputs"][0]["name"] == "x"


def test_inputs_by_name_without_metadata_say_what_is_missing() -> None:
    with pytest.raises(UnprocessableError, match="model_spec"):
        ask(ready(), "infer_dict", {"inputs": [{"x": 1}]})


class Recorder:
    def __init__(self) -> None:
        self.predictions: list[Prediction] = []

    def record(self, prediction: Prediction) -> None:
        self.predictions.append(prediction)


class WithMetrics(Model):
    def predict(self, request: Any) -> Any:
        for name, value in request["metrics"].items():
            self.set_metric(name, value)
        return request["inputs"]


class WithMetricsAsync(WithMetrics):
    async def predict(self, request: Any) -> Any:
        for name, value in request["metrics"].items():
            self.set_metric(name, value)
            await asyncio.sleep(0.001)
        return request["inputs"]


@pytest.mark.parametrize("cls", [WithMetrics, WithMetricsAsync])
def test_metrics_belong_to_the_request_that_sets_them(cls: type[Model]) -> None:
    context = GraphContext()
    recorder = context.recorder = Recorder()
    model = ready(cls, context=context)
    ask(model, "infer", {"inputs": [], "metrics": {"a": 1}})
    ask(model, "infer", {"inputs": [], "metrics": {"b": 2}})
    ask(model, "infer", {"inputs": [], "metrics": {}})
    assert [p.metrics for p in recorder.predictions] == [{"a": 1}, {"b": 2}, None]
    assert model.metrics == {}


def test_metrics_of_concurrent_requests_are_kept_apart() -> None:
    context = GraphContext()
    recorder = context.recorder = Recorder()
    model = ready(WithMetricsAsync, context=context)

    async def run() -> None:
        await asyncio.gather(
            *(
                model.event_handler(
                    Event({"inputs": [], "id": str(i), "metrics": {f"a{i}": i, f"b{i}": i}}, path="infer")
                )
                for i in range(20)
            )
        )

    asyncio.run(run())
    for prediction in recorder.predictions:
        i = int(prediction.request_id or "")
        assert prediction.metrics == {f"a{i}": i, f"b{i}": i}


def test_metrics_set_outside_a_request_are_in_every_record() -> None:
    context = GraphContext()
    recorder = context.recorder = Recorder()
    model = ready(WithMetrics, context=context)
    model.set_metric("always", 1)
    ask(model, "infer", {"inputs": [], "metrics": {"a": 2}})
    assert recorder.predictions[0].metrics == {"always": 1, "a": 2}


@both
def test_failed_call_is_recorded_with_its_error_and_duration(cls: type[Model]) -> None:
    class Fails(cls):  # type: ignore[valid-type, misc]
        def predict(self, request: Any) -> Any:
            raise ValueError("boom")

    context = GraphContext()
    recorder = context.recorder = Recorder()
    observed: list[tuple[float, bool]] = []
    context.observer = SimpleNamespace(model=lambda name, version: lambda s, failed: observed.append((s, failed)))
    with pytest.raises(ValueError, match="boom"):
        ask(ready(Fails, context=context), "infer", {"inputs": [1]})
    (prediction,) = recorder.predictions
    assert isinstance(prediction.error, ValueError)
    assert prediction.microsec >= 0
    assert (prediction.op, prediction.request_id) == ("infer", "e1")
    assert [failed for _, failed in observed] == [True]


# -- readiness and loading -------------------------------------------------------------------------------------------


@both
def test_request_before_the_model_is_ready_is_503(cls: type[Model]) -> None:
    model = cls(GraphContext(), "m")
    with pytest.raises(ModelNotReadyError, match="'m' is not ready"):
        ask(model, "infer", {"inputs": []}, trigger=Trigger("http"))


class Waits(Model):
    go_on: threading.Event

    def load(self) -> None:
        assert self.go_on.wait(10)


class WaitsAsync(Waits, AsyncModel):
    pass


@pytest.mark.parametrize("cls", [Waits, WaitsAsync])
def test_stream_record_waits_until_the_model_is_ready_without_stopping_the_loop(cls: type[Waits]) -> None:
    context = GraphContext()
    context.load_mode = "async"
    model = cls(context, "m")
    model.go_on = threading.Event()
    model.post_init()
    event = Event({"inputs": [4]}, path="infer", trigger=Trigger("kafka"))

    async def run() -> Any:
        if cls is Waits:
            waiting: Any = asyncio.get_running_loop().run_in_executor(None, model.event_handler, event)
        else:
            waiting = asyncio.ensure_future(model.event_handler(event))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        model.go_on.set()
        return (await waiting).body["outputs"]

    assert asyncio.run(run()) == [4]


def test_stream_record_whose_model_failed_to_load_is_not_kept_waiting() -> None:
    class Broken(Model):
        def load(self) -> None:
            raise OSError("no such model")

    context = GraphContext()
    context.load_mode = "async"
    model = ready(Broken, context=context)
    with pytest.raises(ModelNotReadyError, match="'m'"):
        ask(model, "infer", {"inputs": []}, trigger=Trigger("kafka"))
    assert isinstance(model.error, OSError)


@pytest.mark.parametrize("given", [0, [], "", 3])
def test_model_object_of_any_truth_is_ready_at_once(given: Any) -> None:
    class Never(V2ModelServer):
        def load(self) -> None:
            raise AssertionError("loaded although a model was given")

    model = ready(Never, model=given)
    assert model.ready
    assert model.model == given


def test_model_object_that_is_an_array_is_taken() -> None:
    import numpy as np

    assert ready(V2ModelServer, model=np.zeros(3)).ready


def test_model_without_load_and_object_says_what_to_do() -> None:
    with pytest.raises(ModelLoadError, match=r"define load\(\)"):
        ready(V2ModelServer)


def test_load_may_be_a_coroutine() -> None:
    class Later(Model):
        async def load(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            self.model = "later"

    assert ready(Later).model == "later"


def test_load_policy_is_read_from_arguments_and_function() -> None:
    context = GraphContext(parameters={"load_retries": 4})
    policy = ready(context=context, load_timeout_s=2, load_backoff_s=0.5).loader.policy
    assert (policy.timeout_s, policy.retries, policy.backoff_s) == (2, 4, 0.5)


# -- as data, and in a server ----------------------------------------------------------------------------------------


def test_to_dict_gives_a_step_that_builds_it_again() -> None:
    model = Model(GraphContext(), "m:v1", model_path="x", factor=2, input_path="a")
    data = model.to_dict()
    assert data == {
        "class_name": f"{__name__}.Model", "name": "m:v1", "class_args": {"model_path": "x", "factor": 2},
        "input_path": "a",
    }  # fmt: skip
    assert json.dumps(data)


def test_model_object_given_to_a_function_is_served() -> None:
    fn = servegraph.new_function("f")
    fn.add_model("m", class_name=Model(factor=5))
    with fn.to_mock_server() as server:
        assert server.test("/v2/models/m/infer", {"inputs": [2]})["outputs"] == [10]


def test_models_of_a_mock_server_answer_over_its_paths() -> None:
    fn = servegraph.new_function("f")
    fn.add_model("m:v1", class_name=Model, factor=2)
    fn.add_model("a", class_name=AsyncModel, factor=3)
    with fn.to_mock_server() as server:
        assert server.test("/v2/models/m/versions/v1/infer", {"inputs": [1]})["model_version"] == "v1"
        assert server.test("/v2/models/a/infer", {"inputs": [1]})["outputs"] == [3]
        assert server.test("/v2/models/a/echo", {"x": 1})["path"] == "echo"
        with pytest.raises(RequestFailedError) as caught:
            server.test("/v2/models/a/nope", {"inputs": [1]})
        assert caught.value.status == 404


class Table(servegraph.V2ModelServer):
    """A model whose metadata names two columns."""

    called = 0

    def load(self) -> None:
        self.model_spec = ModelSpec(inputs=[Feature("a"), Feature("b")])

    def predict(self, request: Any) -> Any:
        type(self).called += 1
        return [0 for _ in request["inputs"]]


def test_no_rows_for_a_table_are_422() -> None:
    fn = servegraph.new_function("table")
    fn.add_model("t", class_name=Table)
    with fn.to_mock_server() as server, pytest.raises(RequestFailedError, match="inputs is empty") as caught:
        server.test("/v2/models/t/infer", {"inputs": []})
    assert caught.value.status == 422


@pytest.mark.parametrize("rows", [[[1]], [[1, 2], [1, 2, 3]], [None, None], [[1, 2], None]])
@pytest.mark.parametrize("operation", ["infer", "explain"])
def test_rows_that_do_not_fit_the_metadata_are_422_before_the_model_is_called(operation: str, rows: Any) -> None:
    fn = servegraph.new_function("table")
    fn.add_model("t", class_name=Table)
    Table.called = 0
    with fn.to_mock_server() as server:
        with pytest.raises(RequestFailedError, match=r"\$\.inputs\[\d\] is .*\['a', 'b'\]") as caught:
            server.test(f"/v2/models/t/{operation}", {"inputs": rows})
        assert caught.value.status == 422
        assert server.test("/v2/models/t/infer", {"inputs": [[1, 2], [3, 4]]})["outputs"] == [0, 0]
    assert Table.called == 1


def test_model_that_raises_is_named_in_the_error_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(servegraph.V2ModelServer):
        def load(self) -> None:
            pass

        def predict(self, request: Any) -> Any:
            raise ValueError("boom")

    fn = servegraph.new_function("broken")
    fn.add_model("b", class_name=Broken)
    with fn.to_mock_server() as server:
        event = Event(b'{"inputs": [1]}', "application/json", method="POST", path="/v2/models/b/infer")
        reply = asyncio.run(server.data_plane.handle(event))
    assert json.loads(reply.body)["model"] == "b"
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
