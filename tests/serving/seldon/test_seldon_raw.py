"""The low-level methods of components: whole messages in and out, over both transports."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from component_kit import COUNT, NODE, ROWS, Kept, Recorder, answered
from google.protobuf import json_format

from servegraph.serving.seldon import wire
from servegraph.serving.seldon.answers import RawAnswer, Transport
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.custom_metrics import CustomMetric, CustomMetrics
from servegraph.serving.seldon.errors import SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.methods import OPERATIONS, Operation
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.rest import feedback_from_rest, message_from_rest, messages_from_rest

PROTO = json_format.ParseDict(ROWS, pb.SeldonMessage())
TEXT = json_format.ParseDict({"strData": "raw"}, pb.SeldonMessage())
FEEDBACK: dict[str, Any] = {"request": ROWS, "reward": 0.5}
BODIES: dict[str, Any] = {"aggregate": {"seldonMessages": [ROWS]}, "send_feedback": FEEDBACK}
TYPES: dict[str, Any] = {"aggregate": pb.SeldonMessageList, "send_feedback": pb.Feedback}
WITH_RAW: tuple[Operation, ...] = ("predict", "transform_input", "transform_output", "route", "aggregate")


def body_of(op: str) -> Any:
    return BODIES.get(op, ROWS)


def proto_of(op: str) -> Any:
    return json_format.ParseDict(body_of(op), TYPES.get(op, pb.SeldonMessage)())


def having(result: Any, *names: str) -> tuple[Any, list[tuple[Any, ...]]]:
    """An object with these methods, which all give the same, and the calls that they got."""
    calls: list[tuple[Any, ...]] = []

    def method(name: str) -> Any:
        def call(*args: Any) -> Any:
            calls.append((name, *args))
            if isinstance(result, Exception):
                raise result
            return result

        return call

    return type("Low", (), {name: staticmethod(method(name)) for name in names})(), calls


def raw(user_object: Any, op: Operation, source: Any, transport: Transport = "rest") -> RawAnswer:
    """The low-level answer to a request."""
    answer = Component(user_object).call(op, source, transport)
    assert isinstance(answer, RawAnswer)
    return answer


# -- what they are called with, and what they may give -----------------------------------------------------------------


@pytest.mark.parametrize("op", WITH_RAW)
def test_raw_method_gets_the_json_on_rest_and_the_protobuf_on_grpc(op: Operation) -> None:
    user_object, calls = having({"strData": "raw"}, f"{op}_raw")
    body = body_of(op)
    answer = raw(user_object, op, body)
    assert (answer.value, answer.status) == ({"strData": "raw"}, 200)
    assert calls[0][1] is body
    assert raw(user_object, op, proto_of(op).SerializeToString(), "grpc").value == TEXT
    assert calls[1:] == [(f"{op}_raw", proto_of(op))]


@pytest.mark.parametrize("result", [{"own": [1, None]}, [1, 2], "text", None, 5], ids=repr)
def test_raw_answer_on_rest_is_sent_as_it_is(result: Any) -> None:
    user_object, _ = having(result, "predict_raw")
    assert raw(user_object, "predict", ROWS).value == result


@pytest.mark.parametrize("result", [{"strData": "raw"}, TEXT, Message("strData", "raw")], ids=["json", "proto", "own"])
@pytest.mark.parametrize("op", [*WITH_RAW, "send_feedback", "health_status"])
def test_raw_answer_in_each_form_is_taken_on_both_transports(op: Operation, result: Any) -> None:
    user_object, _ = having(result, f"{op}_raw")
    rest = raw(user_object, op, body_of(op)).value
    proto = raw(user_object, op, proto_of(op).SerializeToString(), "grpc").value
    for content in (rest, json_format.MessageToDict(proto)):
        assert {k: v for k, v in content.items() if v} == {"strData": "raw"}


def test_raw_answer_on_grpc_may_be_nothing() -> None:
    user_object, _ = having(None, "predict_raw")
    assert raw(user_object, "predict", PROTO.SerializeToString(), "grpc").value == pb.SeldonMessage()


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (5, "the component's answer must be a SeldonMessage or a dict, not int"),
        ([ROWS], "the component's answer must be a SeldonMessage or a dict, not list"),
        ({"strData": 5}, "the component's answer is no message"),
        ({"colour": "red"}, "the component's answer is no message"),
    ],
)
def test_raw_answer_on_grpc_that_is_no_message_is_the_components_fault(result: Any, problem: str) -> None:
    user_object, _ = having(result, "predict_raw")
    with pytest.raises(SeldonMicroserviceException, match=problem) as caught:
        raw(user_object, "predict", PROTO.SerializeToString(), "grpc")
    assert caught.value.status_code == 500


def test_raw_methods_get_messages_of_other_nodes_in_the_form_of_their_transport() -> None:
    user_object, calls = having({"strData": "raw"}, *(f"{op}_raw" for op in OPERATIONS))
    message = Message("strData", "y", meta=Meta("p"))
    json_form = {"strData": "y", "meta": {"puid": "p"}}
    raw(user_object, "predict", message)
    raw(user_object, "predict", message, "grpc")
    raw(user_object, "aggregate", [message])
    raw(user_object, "aggregate", [message], "grpc")
    raw(user_object, "send_feedback", Feedback(message, reward=0.5))
    proto = json_format.ParseDict(json_form, pb.SeldonMessage())
    assert [argument for _, argument in calls] == [
        json_form,
        proto,
        {"seldonMessages": [json_form]},
        pb.SeldonMessageList(seldonMessages=[proto]),
        pb.Feedback(request=proto, reward=0.5),
    ]


@pytest.mark.parametrize("op", ["predict", "aggregate", "send_feedback"])
def test_raw_method_gets_what_a_message_was_read_from(op: Operation) -> None:
    read: dict[str, Any] = {"aggregate": messages_from_rest, "send_feedback": feedback_from_rest}
    name = "send_feedback_rest" if op == "send_feedback" else f"{op}_raw"
    user_object, calls = having({"strData": "raw"}, name)
    raw(user_object, op, read.get(op, message_from_rest)(body_of(op)))
    argument = calls[0][1]
    if op == "aggregate":
        assert argument["seldonMessages"][0]["data"] == ROWS["data"]
    else:
        assert (json.loads(argument) if op == "send_feedback" else argument) == body_of(op)


@pytest.mark.parametrize("source", [b'{"not": "decoded"', '{"not": "decoded"'])
def test_raw_method_gets_the_undecoded_body_where_the_deployment_asks_for_that(source: Any) -> None:
    user_object, calls = having(b"sent back", "predict_raw")
    assert raw(user_object, "predict", source).value == b"sent back"
    assert calls == [("predict_raw", source)]


# -- which is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [*WITH_RAW, "send_feedback", "health_status"])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_raw_method_that_declines_hands_on_to_the_plain_one(op: Operation, transport: Transport) -> None:
    class Both(Recorder):
        def health_status(self) -> str:
            return "up"

        def decline(self, *args: Any) -> Any:
            raise SeldonNotImplementedError("ask the other one")

        predict_raw = transform_input_raw = transform_output_raw = route_raw = aggregate_raw = decline
        send_feedback_raw = health_status_raw = decline

    recorder = Both()
    source = body_of(op) if transport == "rest" else proto_of(op).SerializeToString()
    for answer in (
        Component(recorder).call(op, source, transport),
        asyncio.run(Component(recorder).acall(op, source, transport)),
    ):
        assert isinstance(answer, Message)
    assert len(recorder.calls) == (0 if op == "health_status" else 2)


def test_error_of_a_raw_method_is_raised() -> None:
    user_object, _ = having(SeldonMicroserviceException("busy", 503), "predict_raw", "predict")
    with pytest.raises(SeldonMicroserviceException, match="busy"):
        raw(user_object, "predict", ROWS)
    with pytest.raises(SeldonMicroserviceException, match="busy"):
        asyncio.run(Component(user_object).acall("predict", ROWS))


def test_older_methods_come_first_and_cannot_decline() -> None:
    user_object, calls = having({"strData": "old"}, "predict_rest", "predict_raw", "predict")
    assert raw(user_object, "predict", ROWS).value == {"strData": "old"}
    assert [name for name, _ in calls] == ["predict_rest"]
    declining, _ = having(SeldonNotImplementedError("no"), "predict_rest", "predict_raw")
    with pytest.raises(SeldonNotImplementedError):
        raw(declining, "predict", ROWS)


@pytest.mark.parametrize(("transport", "other"), [("rest", "grpc"), ("grpc", "rest")])
def test_older_predict_is_for_its_own_transport_alone(transport: Transport, other: Transport) -> None:
    user_object, calls = having({"strData": "old"}, f"predict_{transport}")
    sources: dict[str, Any] = {"rest": ROWS, "grpc": PROTO.SerializeToString()}
    raw(user_object, "predict", sources[transport], transport)
    assert calls == [(f"predict_{transport}", ROWS if transport == "rest" else PROTO)]
    answer = Component(user_object).call("predict", sources[other], other)
    assert isinstance(answer, Message)
    assert len(calls) == 1


@pytest.mark.parametrize("op", ["transform_input", "transform_output", "route", "aggregate"])
@pytest.mark.parametrize("names", [["rest"], ["grpc"], ["rest", "grpc"]], ids="-".join)
def test_other_older_methods_answer_on_both_transports(op: Operation, names: list[str]) -> None:
    user_object, calls = having({"strData": "old"}, *(f"{op}_{name}" for name in names))
    assert raw(user_object, op, body_of(op)).value == {"strData": "old"}
    raw(user_object, op, proto_of(op).SerializeToString(), "grpc")
    chosen = f"{op}_{names[0]}"
    assert calls == [(chosen, body_of(op)), (chosen, proto_of(op))]


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("result", [{"strData": "old"}, None], ids=["message", "none"])
def test_older_feedback_methods_get_text_or_protobuf(transport: Transport, result: Any) -> None:
    source = FEEDBACK if transport == "rest" else proto_of("send_feedback").SerializeToString()
    of_rest, rest_calls = having(result, "send_feedback_rest", "send_feedback_grpc")
    of_grpc, grpc_calls = having(result, "send_feedback_grpc")
    for user_object in (of_rest, of_grpc):
        value = raw(user_object, "send_feedback", source, transport).value
        expected = result if transport == "rest" else json_format.ParseDict(result or {}, pb.SeldonMessage())
        assert value == expected
    ((name, text),) = rest_calls
    assert (name, type(text), json.loads(text)["reward"]) == ("send_feedback_rest", str, 0.5)
    assert json_format.ParseDict(json.loads(text), pb.Feedback()) == proto_of("send_feedback")
    assert grpc_calls == [("send_feedback_grpc", proto_of("send_feedback"))]


@pytest.mark.parametrize("source", [FEEDBACK, proto_of("send_feedback").SerializeToString()], ids=["rest", "grpc"])
def test_raw_feedback_gets_protobuf_on_both_transports_and_must_give_a_message(source: Any) -> None:
    transport: Transport = "grpc" if isinstance(source, bytes) else "rest"
    user_object, calls = having(None, "send_feedback_raw")
    with pytest.raises(SeldonMicroserviceException, match="send_feedback_raw must give a message, not None") as caught:
        raw(user_object, "send_feedback", source, transport)
    assert caught.value.status_code == 500
    assert calls == [("send_feedback_raw", proto_of("send_feedback"))]


def test_raw_health_gets_nothing() -> None:
    user_object, calls = having({"strData": "up"}, "health_status_raw")
    assert raw(user_object, "health_status", None).value == {"strData": "up"}
    assert calls == [("health_status_raw",)]


def test_low_level_answers_have_no_tags_and_metrics_of_methods() -> None:
    class Model:
        def predict_raw(self, msg: Any) -> Any:
            return {"strData": "raw"}

        def tags(self) -> dict[str, Any]:
            raise AssertionError("asked for tags")

        metrics = class_names = tags

    assert answered(Component(Model(), NODE), "predict", ROWS) == {"strData": "raw"}


# -- status ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [(200, 200), (404, 404), (599, 599), (0, 200), (-1, 200), (100, 200), (600, 200), ("404", 200), (True, 200)],
)
@pytest.mark.parametrize("name", ["predict_raw", "predict_rest"])
def test_status_code_of_a_raw_prediction_is_that_of_http(name: str, code: Any, expected: int) -> None:
    user_object, _ = having({"status": {"code": code}}, name)
    assert raw(user_object, "predict", ROWS).status == expected


@pytest.mark.parametrize("answer", [{"status": None}, {"status": 404}, {"code": 404}, [{"status": {"code": 404}}]])
def test_raw_prediction_without_a_status_code_is_200(answer: Any) -> None:
    user_object, _ = having(answer, "predict_raw")
    assert raw(user_object, "predict", ROWS).status == 200


def test_status_code_of_another_raw_method_is_only_content() -> None:
    user_object, _ = having({"status": {"code": 404}}, "transform_input_raw")
    assert raw(user_object, "transform_input", ROWS).status == 200


# -- metrics -----------------------------------------------------------------------------------------------------------


def with_metrics(*metrics: dict[str, Any]) -> dict[str, Any]:
    return {"strData": "raw", "meta": {"tags": {"t": 1}, "metrics": list(metrics)}}


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_metrics_of_a_raw_answer_are_recorded_and_taken_out_where_none_are_shown(
    transport: Transport, shown: bool
) -> None:
    given = with_metrics({**COUNT, "tags": {"a": "b"}}, {"key": "plain"}, {"type": "GAUGE", "key": "g", "value": 2.5})
    user_object, _ = having(given, "predict_raw")
    sink = Kept()
    component = Component(user_object, NODE, CustomMetrics(sink, in_response=shown))
    source = ROWS if transport == "rest" else PROTO.SerializeToString()
    answer = component.call("predict", source, transport)
    assert isinstance(answer, RawAnswer)
    assert [metric for metric, _ in sink.metrics] == [
        CustomMetric("COUNTER", "calls", 1.0, (("a", "b"),)),
        CustomMetric("COUNTER", "plain", 0.0),
        CustomMetric("GAUGE", "g", 2.5),
    ]
    value = answer.value if transport == "rest" else json_format.MessageToDict(answer.value)
    assert value["meta"]["tags"] == {"t": 1}
    assert len(value["meta"].get("metrics", [])) == (3 if shown else 0)
    assert len(given["meta"]["metrics"]) == 3  # the component's own object stays as it is


@pytest.mark.parametrize("meta", [None, [], {"metrics": None}, {"metrics": {"a": 1}}, {}])
def test_raw_answer_with_a_strange_meta_has_no_metrics(meta: Any) -> None:
    user_object, _ = having({"meta": meta}, "predict_raw")
    sink = Kept()
    component = Component(user_object, NODE, CustomMetrics(sink, in_response=False))
    assert answered(component, "predict", ROWS) == {"meta": meta}
    assert sink.metrics == []


# -- requests that they cannot get -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "name", "source", "problem"),
    [
        ("predict", "predict_raw", b"\xff\xff", "the bytes are no message of this protocol"),
        ("send_feedback", "send_feedback_raw", {"rewards": 1}, "Invalid JSON: feedback has no 'rewards'"),
        ("send_feedback", "send_feedback_rest", {"reward": "much"}, "Invalid JSON: reward must be a number"),
        ("send_feedback", "send_feedback_grpc", ["x"], "Invalid JSON: feedback is an object, not a list"),
        ("send_feedback", "send_feedback_raw", {"request": {"strData": 5}}, "Invalid JSON: "),
    ],
)
def test_request_that_a_low_level_method_cannot_get_is_refused(
    op: Operation, name: str, source: Any, problem: str
) -> None:
    user_object, calls = having({"strData": "raw"}, name)
    with pytest.raises(SeldonMicroserviceException, match=problem) as caught:
        raw(user_object, op, source, "grpc" if isinstance(source, bytes) else "rest")
    assert caught.value.status_code == 400
    assert calls == []


# -- rewards -----------------------------------------------------------------------------------------------------------


class RawLearner:
    def __init__(self, declines: bool) -> None:
        self.declines = declines

    def send_feedback_raw(self, feedback: Any) -> Any:
        if self.declines:
            raise SeldonNotImplementedError("ask the other one")
        return wire.message_to_proto(Message("strData", "learnt"))

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        return None


class OldLearner:
    def send_feedback_rest(self, text: str) -> Any:
        return {"strData": text}


@pytest.mark.parametrize(
    "user_object", [object(), Recorder(), RawLearner(False), RawLearner(True), OldLearner()], ids=lambda o: str(type(o))
)
@pytest.mark.parametrize("form", ["json", "message", "wire"])
@pytest.mark.parametrize("way", ["call", "acall"])
def test_reward_of_every_feedback_is_counted_once_whichever_method_gets_it(
    user_object: Any, form: str, way: str
) -> None:
    sink = Kept()
    component = Component(user_object, NODE, CustomMetrics(sink))
    for reward in (0.5, 0.0, -2.0):
        body = {"request": ROWS, "reward": reward}
        feedback = feedback_from_rest(body)
        source = {"json": body, "message": feedback, "wire": wire.feedback_to_wire(feedback)}[form]
        transport: Transport = "grpc" if form == "wire" else "rest"
        if way == "call":
            component.call("send_feedback", source, transport)
        else:
            asyncio.run(component.acall("send_feedback", source, transport))
    assert sink.rewards == [0.5, -2.0]
