"""The gRPC methods of a component, on the application that serves it over HTTP too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from servegraph.errors import ModelNotReadyError
from servegraph.graph.events import Event, Trigger
from servegraph.graph.run import NoResult
from servegraph.runtimes.grpc_context import GrpcContext
from servegraph.runtimes.grpc_edge import GrpcEdge, GrpcMethod, GrpcOptions
from servegraph.runtimes.grpc_status import ToldFailure
from servegraph.runtimes.local import LocalApplication
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.plane import cause_of, told
from servegraph.settings import ServerSettings

GRPC: Final = Trigger("grpc", "grpc")
_PACKAGE: Final = "seldon.protos"
METHODS: Final[Mapping[str, str]] = {
    "Generic/TransformInput": "/transform-input",
    "Generic/TransformOutput": "/transform-output",
    "Generic/Route": "/route",
    "Generic/Aggregate": "/aggregate",
    "Generic/SendFeedback": "/send-feedback",
    "Model/Predict": "/predict",
    "Model/SendFeedback": "/send-feedback",
    "Router/Route": "/route",
    "Router/SendFeedback": "/send-feedback",
    "Transformer/TransformInput": "/transform-input",
    "OutputTransformer/TransformOutput": "/transform-output",
    "Combiner/Aggregate": "/aggregate",
    "Seldon/Predict": "/predict",
    "Seldon/SendFeedback": "/send-feedback",
}
"""For each method of a component the path that answers the same on REST."""
_GOES_BACK: Final = ("seldon-puid", "seldon-predictor")
"""What an answer has as trailing metadata where its event has it as a header."""
METADATA_METHODS: Final = ("Model/Metadata", "Seldon/ModelMetadata")


def grpc_edge(application: LocalApplication, settings: ServerSettings, options: Mapping[str, Any]) -> GrpcEdge:
    """The edge that serves an application's component over gRPC."""
    from servegraph.serving.seldon.proto import prediction_pb2  # noqa: F401 - reflection shows its messages

    methods = {f"/{_PACKAGE}.{name}": graph_method(application, path) for name, path in METHODS.items()}
    methods |= {f"/{_PACKAGE}.{name}": _metadata_method(application) for name in METADATA_METHODS}
    return GrpcEdge(methods, replace(GrpcOptions.of(settings), **options), ready=lambda: application.ready)


def graph_method(application: LocalApplication, path: str) -> GrpcMethod:
    """A method that an application's graph answers, as an event of this path with the protobuf bytes as its body."""
    encoded = encoder()
    engine = application.plane.engine
    plain = application.plane.plan.plain

    def call(data: bytes, context: GrpcContext) -> bytes:
        event = Event(data, None, context.metadata, None, path, context.request_id, GRPC)
        event.deadline = context.deadline
        try:
            if plain:
                outcome = engine.run_plain(event)
                context.check()
            else:
                outcome = context.run(engine.run_in_loop(event))
            if isinstance(outcome, NoResult):
                raise SeldonMicroserviceException(f"there is no answer: {outcome.reason}", 500)
            return encoded(outcome.body)
        except Exception as exc:  # noqa: BLE001 - every failure is told in Seldon's words
            status, message, reason = told(exc)
            raise ToldFailure(status if status >= 400 else 500, message, reason) from cause_of(exc)
        finally:
            for key in _GOES_BACK:
                if key in event.headers:
                    context.set_trailing(key, event.headers[key])

    return call


def encoder() -> Callable[[Any], bytes]:
    """A function that gives the bytes of an answer.

    It raises a `SeldonMicroserviceException` where the answer is none that the protocol has.
    """
    # Once for each method and not for each answer: protobuf is there where gRPC is served, and only there.
    from google.protobuf.message import Message as ProtobufMessage

    from servegraph.serving.seldon.wire import message_to_wire

    def encoded(answer: Any) -> bytes:
        if isinstance(answer, Message):
            return message_to_wire(answer)
        value = answer.value if isinstance(answer, RawAnswer) else answer
        if not isinstance(value, ProtobufMessage):
            raise SeldonMicroserviceException(f"the answer has to be a SeldonMessage, not {type(value).__name__}", 500)
        data: bytes = value.SerializeToString()
        return data

    return encoded


def _metadata_method(application: LocalApplication) -> GrpcMethod:
    direct = application.plane.plan.direct
    assert direct is not None
    endpoint = direct.target

    def call(data: bytes, context: GrpcContext) -> bytes:
        if endpoint.metadata is None:
            raise ModelNotReadyError("the component is not loaded yet")
        answer: bytes = endpoint.metadata.to_proto().SerializeToString()
        return answer

    return call
