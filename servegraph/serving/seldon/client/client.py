"""`SeldonClient`: calls deployments and single components, over REST and gRPC."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from servegraph.serving.seldon.client.answer import Answer
from servegraph.serving.seldon.client.content import Content, Judged, Raw, Several, message_content, messages
from servegraph.serving.seldon.client.errors import SeldonClientException
from servegraph.serving.seldon.client.grpc_transport import GrpcTransport
from servegraph.serving.seldon.client.options import (
    CallArguments,
    ClientArguments,
    ClientOptions,
    Operation,
    PayloadArguments,
    read_arguments,
)
from servegraph.serving.seldon.client.payload import Body, aggregate_messages, any_message, plain_body, wire
from servegraph.serving.seldon.client.rest_transport import RestTransport
from servegraph.serving.seldon.client.results import (
    Result,
    SeldonClientCombine,
    SeldonClientFeedback,
    SeldonClientPrediction,
)
from servegraph.serving.seldon.client.urls import deployment_url, microservice_url
from servegraph.serving.seldon.errors import SeldonMicroserviceException

_R = TypeVar("_R", bound=Result)

_GRPC: Final = {
    "predict": "/seldon.protos.Model/Predict",
    "transform-input": "/seldon.protos.Generic/TransformInput",
    "transform-output": "/seldon.protos.Generic/TransformOutput",
    "route": "/seldon.protos.Generic/Route",
    "aggregate": "/seldon.protos.Generic/Aggregate",
    "send-feedback": "/seldon.protos.Generic/SendFeedback",
}


class SeldonClient:
    """Calls Seldon deployments and components.

    A call that fails raises nothing: its result has ``success`` false and says why in ``msg``. Connections are kept
    and used again; a client can be used from several threads. Close it, or use it in a ``with`` block.

    Args:
        arguments: the fields of `ClientOptions`; each call may override those of `CallArguments`.

    Raises:
        TypeError: an argument is unknown; the message has the nearest one.
        SeldonClientException: an argument has a value that it cannot have.
    """

    def __init__(self, **arguments: Unpack[ClientArguments]) -> None:
        self.options, _ = read_arguments("SeldonClient", ClientOptions(), arguments, ClientArguments)
        self._transports = _Transports(self.options)
        self._finalizer = weakref.finalize(self, self._transports.close)

    def predict(self, **arguments: Unpack[PayloadArguments]) -> SeldonClientPrediction:
        """The prediction of a deployment.

        Args:
            arguments: the fields of `Payload` say what is sent, those of `ClientOptions` where to and how.

        Raises:
            TypeError: an argument is unknown.
            SeldonClientException: the call cannot be made as it is asked for.
        """
        options, payload = read_arguments("predict", self.options, arguments, PayloadArguments)
        content = message_content(payload, options.payload_type)
        return self._to_deployment("predict", content, options, SeldonClientPrediction)

    def explain(self, **arguments: Unpack[PayloadArguments]) -> SeldonClientPrediction:
        """The explanation by the explainer of a ``predictor``; over REST alone.

        Args:
            arguments: as for `predict`.

        Raises:
            TypeError: an argument is unknown.
            SeldonClientException: the call cannot be made as it is asked for.
        """
        options, payload = read_arguments("explain", self.options, arguments, PayloadArguments)
        if options.transport == "grpc":
            raise SeldonClientException("explainers have no gRPC: take transport='rest'")
        content = message_content(payload, options.payload_type)
        return self._to_deployment("explain", content, options, SeldonClientPrediction)

    def feedback(
        self,
        prediction_request: Any = None,
        prediction_response: Any = None,
        prediction_truth: Any = None,
        reward: float = 0.0,
        raw_request: Mapping[str, Any] | None = None,
        **arguments: Unpack[CallArguments],
    ) -> SeldonClientFeedback:
        """Tell a deployment how good an answer was.

        Args:
            prediction_request: the request, as ``dict`` or protobuf message.
            prediction_response: the answer to it, likewise; its ``meta.routing`` names the nodes to tell.
            prediction_truth: what would have been right, likewise.
            reward: how good the answer was.
            raw_request: the whole feedback as a JSON object, in place of the above.
            arguments: those of `ClientOptions` that a call may override.

        Raises:
            TypeError: an argument is unknown.
            SeldonClientException: the call cannot be made as it is asked for.
        """
        options, _ = read_arguments("feedback", self.options, arguments, CallArguments)
        content = _feedback(prediction_request, prediction_response, prediction_truth, reward, raw_request)
        return self._to_deployment("feedback", content, options, SeldonClientFeedback)

    def microservice(self, **arguments: Unpack[PayloadArguments]) -> SeldonClientPrediction | SeldonClientCombine:
        """The answer of a single component to ``method``; a `SeldonClientCombine` of ``aggregate``.

        Args:
            arguments: as for `predict`; ``datas`` are for ``method="aggregate"``.

        Raises:
            TypeError: an argument is unknown.
            SeldonClientException: the call cannot be made as it is asked for.
        """
        options, payload = read_arguments("microservice", self.options, arguments, PayloadArguments)
        if options.method != "aggregate":
            content = message_content(payload, options.payload_type)
            return self._to_microservice(options.method, content, options, SeldonClientPrediction)
        if payload.raw_data is not None:
            content = Raw(payload.raw_data, "SeldonMessageList")
        else:
            content = Several(aggregate_messages(payload, options.payload_type))
        return self._to_microservice("aggregate", content, options, SeldonClientCombine)

    def microservice_feedback(
        self,
        prediction_request: Any = None,
        prediction_response: Any = None,
        prediction_truth: Any = None,
        reward: float = 0.0,
        raw_request: Mapping[str, Any] | None = None,
        **arguments: Unpack[CallArguments],
    ) -> SeldonClientFeedback:
        """Tell a single component how good an answer was; the arguments are those of `feedback`.

        Raises:
            TypeError: an argument is unknown.
            SeldonClientException: the call cannot be made as it is asked for.
        """
        options, _ = read_arguments("microservice_feedback", self.options, arguments, CallArguments)
        content = _feedback(prediction_request, prediction_response, prediction_truth, reward, raw_request)
        return self._to_microservice("send-feedback", content, options, SeldonClientFeedback)

    def close(self) -> None:
        """Close all connections; the client cannot be used any more."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _to_deployment(self, operation: Operation, content: Content, options: ClientOptions, kind: type[_R]) -> _R:
        wanted = options.client_return_type or "dict"
        body: Body | None = None
        if options.transport == "rest":
            url, body = deployment_url(options, operation), content.rest()
            answer = self._transports.rest().post(url, body, options)
        else:
            method = f"/seldon.protos.Seldon/{'Predict' if operation == 'predict' else 'SendFeedback'}"
            answer = self._transports.grpc().call(options.gateway_endpoint, method, _bytes(content), options)
        return _result(content, body, answer, wanted, kind)

    def _to_microservice(self, method: str, content: Content, options: ClientOptions, kind: type[_R]) -> _R:
        wanted = options.client_return_type or "proto"
        body: Body | None = None
        if options.transport == "rest":
            url, body = microservice_url(options, method), content.rest()
            answer = self._transports.rest().post(url, body, options, form=True)
        else:
            endpoint = options.microservice_endpoint
            answer = self._transports.grpc().call(endpoint, _GRPC[method], _bytes(content), options)
        return _result(content, body, answer, wanted, kind)


class _Transports:
    """The transports of a client, made when they are used first."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._rest: RestTransport | None = None
        self._grpc: GrpcTransport | None = None
        self._closed = False

    def rest(self) -> RestTransport:
        with self._lock:
            self._check()
            if self._rest is None:
                self._rest = RestTransport(self._options)
            return self._rest

    def grpc(self) -> GrpcTransport:
        with self._lock:
            self._check()
            if self._grpc is None:
                self._grpc = GrpcTransport(self._options)
            return self._grpc

    def close(self) -> None:
        with self._lock:
            self._closed = True
            transports = [t for t in (self._rest, self._grpc) if t is not None]
        for transport in transports:
            transport.close()

    def _check(self) -> None:
        if self._closed:
            raise SeldonClientException("the client is closed")


def _feedback(request: Any, response: Any, truth: Any, reward: float, raw_request: Mapping[str, Any] | None) -> Content:
    if raw_request is not None:
        return Raw(raw_request, "Feedback")
    return Judged({"request": request, "response": response, "truth": truth}, float(reward))


def _result(content: Content, body: Body | None, answer: Answer, wanted: str, kind: type[_R]) -> _R:
    """The result of a call, its messages of the type that is wanted; the body is what REST has sent."""
    if wanted == "dict":
        return kind.of(content.rest() if body is None else body, _as_dict(answer.body), answer)
    try:
        response = _as_proto(answer.body)
    except SeldonClientException as exc:  # JSON that is no message
        response = None
        if answer.ok:
            answer = Answer(False, f"200:{exc}", answer.code, answer.body)
    return kind.of(content.proto(), response, answer)


def _bytes(content: Content) -> bytes:
    try:
        return content.wire()
    except SeldonMicroserviceException as exc:
        raise SeldonClientException(f"the request cannot be written as protobuf: {exc}") from exc


def _as_dict(body: Any) -> Any:
    return plain_body(any_message(body, "answer")) if isinstance(body, bytes) else body


def _as_proto(body: Any) -> Any:
    if isinstance(body, bytes):
        return messages().SeldonMessage.FromString(body)
    if not isinstance(body, dict):
        return None
    return wire().message_to_proto(any_message(body, "answer"))
