"""``seldon_core.seldon_methods``: one request to a component, without a server.

Requests and answers are JSON values on the one side, protobuf messages on the other; which it is, the request tells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.serving.seldon.answers import RawAnswer, Transport
from servegraph.serving.seldon.awaiting import waited_for
from servegraph.serving.seldon.compat import user_model as settings
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.custom_metrics import METHODS, CustomMetrics, MetricSink
from servegraph.serving.seldon.environment import read_environment
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.metadata import ModelMetadata
from servegraph.serving.seldon.methods import Operation
from servegraph.serving.seldon.rest import message_to_rest

PREDICT_METRIC_METHOD_TAG: Final = METHODS["predict"]
INPUT_TRANSFORM_METRIC_METHOD_TAG: Final = METHODS["transform_input"]
OUTPUT_TRANSFORM_METRIC_METHOD_TAG: Final = METHODS["transform_output"]
ROUTER_METRIC_METHOD_TAG: Final = METHODS["route"]
AGGREGATE_METRIC_METHOD_TAG: Final = METHODS["aggregate"]
FEEDBACK_METRIC_METHOD_TAG: Final = METHODS["send_feedback"]
HEALTH_METRIC_METHOD_TAG: Final = METHODS["health_status"]


def predict(user_model: Any, request: Any, seldon_metrics: MetricSink) -> Any:
    """The component's prediction."""
    return _answer(user_model, "predict", request, seldon_metrics)


def transform_input(user_model: Any, request: Any, seldon_metrics: MetricSink) -> Any:
    """The input as the component transforms it."""
    return _answer(user_model, "transform_input", request, seldon_metrics)


def transform_output(user_model: Any, request: Any, seldon_metrics: MetricSink) -> Any:
    """The output as the component transforms it."""
    return _answer(user_model, "transform_output", request, seldon_metrics)


def route(user_model: Any, request: Any, seldon_metrics: MetricSink) -> Any:
    """The child that the component chooses."""
    return _answer(user_model, "route", request, seldon_metrics)


def aggregate(user_model: Any, request: Any, seldon_metrics: MetricSink) -> Any:
    """The one message that the component makes of several."""
    return _answer(user_model, "aggregate", request, seldon_metrics)


def health_status(user_model: Any, seldon_metrics: MetricSink) -> Any:
    """How the component is."""
    return _answer(user_model, "health_status", None, seldon_metrics)


def send_feedback(user_model: Any, request: Any, predictive_unit_id: str, seldon_metrics: MetricSink) -> Any:
    """What the component answers to a ``Feedback``; always a ``SeldonMessage``."""
    return _answer(user_model, "send_feedback", request, seldon_metrics, unit_id=predictive_unit_id)


def init_metadata(user_model: Any) -> dict[str, Any]:
    """The component's metadata with what the deployment says over it.

    Raises:
        SeldonMicroserviceException: it is not valid (500).
    """
    env = read_environment()
    return ModelMetadata.of(user_model, env.identity.image, env.metadata).to_dict()


def _answer(user_model: Any, op: Operation, request: Any, metrics: MetricSink, *, unit_id: str | None = None) -> Any:
    identity = read_environment().identity
    if unit_id is not None:
        identity = replace(identity, unit_id=unit_id)
    custom = CustomMetrics(metrics, in_response=settings.INCLUDE_METRICS_IN_CLIENT_RESPONSE)
    component = Component(user_model, identity, custom)
    if not hasattr(request, "SerializeToString"):
        return _rest(_called(component, op, request, "rest"))
    answer = _called(component, op, request.SerializeToString(), "grpc")
    if isinstance(answer, RawAnswer):
        return answer.value
    from servegraph.serving.seldon import wire

    return wire.message_to_proto(answer)


def _called(component: Component, op: Operation, source: Any, transport: Transport) -> Message | RawAnswer:
    if not component.is_async:
        return component.call(op, source, transport)
    answer: Message | RawAnswer = waited_for(component.acall(op, source, transport))
    return answer


def _rest(answer: Any) -> Any:
    if isinstance(answer, RawAnswer):
        return answer.value
    return jsoncodec.loads(jsoncodec.dumps(message_to_rest(answer)))


__all__ = [
    "AGGREGATE_METRIC_METHOD_TAG",
    "FEEDBACK_METRIC_METHOD_TAG",
    "HEALTH_METRIC_METHOD_TAG",
    "INPUT_TRANSFORM_METRIC_METHOD_TAG",
    "OUTPUT_TRANSFORM_METRIC_METHOD_TAG",
    "PREDICT_METRIC_METHOD_TAG",
    "ROUTER_METRIC_METHOD_TAG",
    "aggregate",
    "health_status",
    "init_metadata",
    "predict",
    "route",
    "send_feedback",
    "transform_input",
    "transform_output",
]
