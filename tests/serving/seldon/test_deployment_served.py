"""A deployment on real ports: how large requests may be, and what gRPC says that REST says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from tree_kit import REQUEST, Add, Fail, Route, deployment, hard, node, predictor

from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.seldon.deployment import function_from_deployment

grpc = pytest.importorskip("grpc")
prediction_pb2_grpc = pytest.importorskip("servegraph.serving.seldon.proto.prediction_pb2_grpc")
pb = pytest.importorskip("servegraph.serving.seldon.proto.prediction_pb2")

PREDICTIONS = "/api/v1.0/predictions"
SIZE = "seldon.io/grpc-max-message-size"
TIMEOUT = "seldon.io/rest-timeout"
ONE = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 2], values=[1.0, 2.0])))


def function_with(*predictors: dict[str, Any], components: Mapping[str, Any], **spec: Any) -> ServingFunction:
    return function_from_deployment(deployment(*predictors, **spec), components=components)


def call(function: ServingFunction, method: str, request: Any, **options: Any) -> Any:
    """A gRPC call to a function that is served for it alone: the call, after it has ended."""
    with function.serve(http_port=0, grpc_port=0, block=False) as server:
        port = server.addresses["grpc"][1]
        limits = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=limits) as channel:
            future = getattr(prediction_pb2_grpc.SeldonStub(channel), method).future(request, timeout=30, **options)
            future.exception()
            return future


def trailing(future: Any) -> dict[str, str]:
    return dict(future.trailing_metadata())


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_rest_bodies_may_be_as_large_as_those_of_a_component() -> None:
    body = b'{"data": {"ndarray": [[' + b",".join([b"1.2345678"] * 1_100_000) + b"]]}}"
    assert len(body) > 8 * 1024**2
    with function_with(predictor(hard("m", "SIMPLE_MODEL")), components={}).serve(http_port=0, block=False) as server:
        headers = {"content-type": "application/json"}
        answer = httpx.post(server.url + PREDICTIONS, content=body, headers=headers, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["data"]["names"] == ["class0", "class1", "class2"]


def test_body_with_too_many_values_is_told_the_setting() -> None:
    function = function_with(predictor(hard("m", "SIMPLE_MODEL")), components={})
    with function.serve(http_port=0, block=False, limits={"json_elements": 10}) as server:
        answer = httpx.post(server.url + PREDICTIONS, json={"data": {"ndarray": [list(range(20))]}})
    assert answer.status_code == 400
    assert "limits.json_elements" in answer.json()["status"]["info"]


def test_nan_in_a_body_reaches_the_nodes() -> None:
    class Count:
        def predict(self, X: Any, names: Any) -> Any:
            return [[int((X != X).sum())]]

    with function_with(predictor(node("m")), components={"m": Count()}).serve(http_port=0, block=False) as server:
        headers = {"content-type": "application/json"}
        body = b'{"data": {"ndarray": [[NaN, 1.0, Infinity]]}}'
        answer = httpx.post(server.url + PREDICTIONS, content=body, headers=headers)
    assert answer.json()["data"]["ndarray"] == [[1]]


def test_grpc_messages_of_eight_megabytes_are_taken() -> None:
    large = pb.SeldonMessage(binData=b"x" * 8 * 1024**2)
    future = call(function_with(predictor(hard("m", "SIMPLE_MODEL")), components={}), "Predict", large)
    assert future.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("place", ["predictor", "spec", "metadata"])
def test_annotation_sets_the_largest_grpc_message(place: str) -> None:
    spec = deployment(predictor(hard("m", "SIMPLE_MODEL")))
    holder = spec["spec"]["predictors"][0] if place == "predictor" else spec[place]
    holder["annotations"] = {SIZE: "1000"}
    function = function_from_deployment(spec)
    large, small = (pb.SeldonMessage(binData=b"x" * size) for size in (2000, 500))
    assert call(function, "Predict", large).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call(function, "Predict", small).code() is grpc.StatusCode.OK


def test_largest_annotation_of_several_predictors_counts() -> None:
    halves = [
        predictor(hard("m", "SIMPLE_MODEL"), name, traffic=50, annotations={SIZE: size})
        for name, size in (("a", "5000"), ("b", "1000"))
    ]
    assert function_with(*halves, components={}).spec.settings["grpc.max_message_bytes"] == 5000


# -- failures ----------------------------------------------------------------------------------------------------------


class Late:
    async def predict(self, X: Any, names: Any) -> Any:
        await asyncio.sleep(60)


def failing(kind: str) -> ServingFunction:
    """A deployment that fails in one way."""
    model, annotations, components = node("a"), {}, {}
    if kind == "routing":
        model = node("a", "ROUTER", node("b"))
        components = {"a": Route(7), "b": Add()}
    elif kind == "combiner":
        model = hard("a", "AVERAGE_COMBINER", node("b"), node("c"))
        components = {"b": Add(), "c": Wide()}
    elif kind == "timeout":
        annotations, components = {TIMEOUT: "50"}, {"a": Late()}
    elif kind == "unreachable":
        components = {"a": "http://127.0.0.1:1"}
    else:
        components = {"a": Fail(kind)}
    return function_with(predictor(model, annotations=annotations), components=components)


class Wide:
    def predict(self, X: Any, names: Any) -> Any:
        return [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("kind", "status", "code", "reason"),
    [
        ("user", 500, "INTERNAL", "MICROSERVICE_INTERNAL_ERROR"),
        ("told", 404, "NOT_FOUND", "NO_ROW"),
        ("what", 400, "INVALID_ARGUMENT", "MICROSERVICE_BAD_DATA"),
        ("routing", 500, "INTERNAL", "ENGINE_INVALID_ROUTING"),
        ("combiner", 500, "INTERNAL", "ENGINE_INVALID_COMBINER_RESPONSE"),
        ("timeout", 504, "DEADLINE_EXCEEDED", "ENGINE_INTERRUPTED"),
        ("unreachable", 502, "UNAVAILABLE", "ENGINE_MICROSERVICE_ERROR"),
    ],
)
def test_failure_has_the_same_reason_on_both_protocols(kind: str, status: int, code: str, reason: str) -> None:
    with failing(kind).to_mock_server() as server:
        answer = server.test(PREDICTIONS, REQUEST, silent=True)
    assert (answer.status_code, answer.body["status"]["reason"]) == (status, reason)
    future = call(failing(kind), "Predict", ONE, metadata=(("seldon-puid", "p-1"),))
    assert (future.code().name, trailing(future)["reason"]) == (code, reason)
    assert future.details() == answer.body["status"]["info"]
    assert trailing(future)["seldon-puid"] == "p-1"


def test_request_without_time_left_is_interrupted_on_both_protocols() -> None:
    function = function_with(predictor(node("a")), components={"a": Late()})
    function.spec.settings["timeouts.request_s"] = 0.1
    with function.serve(http_port=0, block=False) as server:
        answer = httpx.post(server.url + PREDICTIONS, json=REQUEST, timeout=60)
    future = call(function, "Predict", ONE)
    assert (answer.status_code, answer.json()["status"]["reason"]) == (504, "ENGINE_INTERRUPTED")
    assert (future.code().name, trailing(future)["reason"]) == ("DEADLINE_EXCEEDED", "ENGINE_INTERRUPTED")


def test_call_that_is_cancelled_counts_as_no_success() -> None:
    waiting = asyncio.Event()

    class Waits:
        async def predict(self, X: Any, names: Any) -> Any:
            waiting.set()
            await asyncio.sleep(60)

    class FailsThen:
        async def predict(self, X: Any, names: Any) -> Any:
            await waiting.wait()
            raise ValueError("broken")

    graph = hard("c", "AVERAGE_COMBINER", node("a"), node("b"))
    function = function_with(predictor(graph), components={"a": FailsThen(), "b": Waits()})
    with function.serve(http_port=0, block=False) as server:
        assert httpx.post(server.url + PREDICTIONS, json=REQUEST).status_code == 500
        text = httpx.get(server.url + "/metrics").text
    counted = re.findall(r'client_requests_seconds_count\{[^}]*code="(\d+)"[^}]*model_name="(\w)"[^}]*\} (\d+)', text)
    assert sorted(counted) == [("499", "b", "1"), ("500", "a", "1")]


def test_failures_over_grpc_are_counted() -> None:
    function = function_with(predictor(node("a")), components={"a": Fail("told")})
    with function.serve(http_port=0, grpc_port=0, block=False) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.addresses['grpc'][1]}") as channel:
            assert isinstance(prediction_pb2_grpc.SeldonStub(channel).Predict.future(ONE).exception(), grpc.RpcError)
        text = httpx.get(server.url + "/metrics").text
    assert re.search(r'server_requests_seconds_count\{code="404"[^}]*service="predictions"[^}]*\} 1', text)


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_grpc_answer_has_the_id_of_the_request_as_metadata() -> None:
    function = function_with(predictor(node("a")), components={"a": Add()})
    drawn = call(function, "Predict", ONE)
    assert trailing(drawn)["seldon-puid"] == drawn.result().meta.puid != ""
    named = call(function, "Predict", ONE, metadata=(("seldon-puid", "p-1"),))
    assert trailing(named)["seldon-puid"] == named.result().meta.puid == "p-1"
    inside = pb.SeldonMessage(meta=pb.Meta(puid="p-2"), data=ONE.data)
    both = call(function, "Predict", inside, metadata=(("seldon-puid", "p-1"),))
    assert trailing(both)["seldon-puid"] == both.result().meta.puid == "p-2"
    feedback = pb.Feedback(response=pb.SeldonMessage(meta=pb.Meta(puid="p-3")), reward=1.0)
    learnt = call(function, "SendFeedback", feedback)
    assert trailing(learnt)["seldon-puid"] == learnt.result().meta.puid == "p-3"


def test_grpc_answer_names_its_predictor_where_there_are_several() -> None:
    halves = [predictor(node("m"), name, traffic=50) for name in ("main", "canary")]
    function = function_with(*halves, components={"m": Add})
    future = call(function, "Predict", ONE, metadata=(("seldon-predictor", "canary"),))
    assert trailing(future)["seldon-predictor"] == "canary"
    future = call(function, "Predict", ONE)
    assert trailing(future)["seldon-predictor"] in ("main", "canary")
    future = call(function_with(predictor(node("m")), components={"m": Add}), "Predict", ONE)
    assert "seldon-predictor" not in trailing(future)
