"""The low-level methods of components, which see whole messages: ``predict_raw``, ``predict_rest`` and their kin.

On REST they get the JSON value, on gRPC the protobuf message, and what they give is sent as it is. Both forms are
accepted from them on both transports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.serving.seldon.answers import RawAnswer, Transport
from servegraph.serving.seldon.arrays import array_of
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.rest import (
    feedback_from_rest,
    feedback_to_rest,
    message_from_rest,
    message_to_rest,
    messages_from_rest,
    messages_to_rest,
)

_NO_CLIENT_STATUS: Final = 200


@dataclass(frozen=True, slots=True)
class LowCall:
    """One low-level method."""

    function: Callable[..., Any]
    argument: str
    """What it gets: ``json`` (the value), ``text`` (the same as JSON text), ``proto``, or ``nothing``."""
    may_decline: bool
    """Whether `SeldonNotImplementedError` hands the request on to the plain method."""
    chooses_status: bool = False
    """Whether ``status.code`` in its answer is the HTTP status."""
    gives_message: bool = False
    """Whether it has to give a message and not just anything."""


@dataclass(frozen=True, slots=True)
class LowLevel:
    """The low-level methods for one operation and transport, in the order in which they are asked."""

    op: str
    transport: Transport
    calls: tuple[LowCall, ...]

    def arguments(self, call: LowCall, source: Any) -> tuple[Any, ...]:
        """What a method is called with for a request.

        Raises:
            SeldonMicroserviceException: the request cannot be given to it (400).
        """
        if call.argument == "nothing":
            return ()
        if call.argument == "proto":
            return (_as_proto(self.op, source),)
        if self.transport == "rest" and isinstance(source, (bytes, str)):
            return (source,)  # the undecoded body, where the deployment asks for that
        value = _as_json(self.op, source)
        return (jsoncodec.dumps(value).decode() if call.argument == "text" else value,)

    def finish(self, call: LowCall, result: Any) -> RawAnswer:
        """The answer that a method's result is.

        Raises:
            SeldonMicroserviceException: the result is none that can be sent.
        """
        if result is None and call.gives_message:
            raise SeldonMicroserviceException(f"{self.op}_raw must give a message, not None", 500)
        if self.transport == "grpc":
            return RawAnswer(_proto_of(result))
        value = _json_of(result)
        return RawAnswer(value, _status(value) if call.chooses_status else _NO_CLIENT_STATUS)


def low_level(user_object: Any, op: str, transport: str) -> LowLevel | None:
    """The low-level methods that an object has for an operation; ``None`` when it has none."""
    calls = [c for c in (_legacy(user_object, op, transport), _raw(user_object, op, transport)) if c is not None]
    return LowLevel(op, "grpc" if transport == "grpc" else "rest", tuple(calls)) if calls else None


def _legacy(user_object: Any, op: str, transport: str) -> LowCall | None:
    if op == "health_status":
        return None
    rest, grpc = getattr(user_object, f"{op}_rest", None), getattr(user_object, f"{op}_grpc", None)
    if op == "send_feedback":
        if callable(rest):
            return LowCall(rest, "text", may_decline=False)
        return LowCall(grpc, "proto", may_decline=False) if callable(grpc) else None
    method = rest if callable(rest) else grpc
    if op == "predict":  # the only one whose two forms are kept apart
        method = grpc if transport == "grpc" else rest
    if not callable(method):
        return None
    argument = "proto" if transport == "grpc" else "json"
    return LowCall(method, argument, may_decline=False, chooses_status=op == "predict")


def _raw(user_object: Any, op: str, transport: str) -> LowCall | None:
    method = getattr(user_object, f"{op}_raw", None)
    if not callable(method):
        return None
    if op == "send_feedback":
        return LowCall(method, "proto", may_decline=True, gives_message=True)
    if op == "health_status":
        return LowCall(method, "nothing", may_decline=True)
    argument = "proto" if transport == "grpc" else "json"
    return LowCall(method, argument, may_decline=True, chooses_status=op == "predict")


def read(op: str, source: Any, transport: Transport) -> Any:
    """What a request holds: a `Message`, for ``aggregate`` a list of them, for ``send_feedback`` a `Feedback`.

    Raises:
        SeldonMicroserviceException: it is malformed (400).
    """
    if op == "health_status":
        return source
    if _is_read(op, source):
        return _with_arrays(source)
    if source.__class__ is bytes and transport == "grpc":
        from servegraph.serving.seldon import wire

        if op == "aggregate":
            return _some(wire.messages_from_wire(source))
        message = wire.feedback_from_wire(source) if op == "send_feedback" else wire.message_from_wire(source)
        if isinstance(message, Message) and message.kind is None:
            raise SeldonMicroserviceException("Invalid request data type: the message has no payload")
        return message
    if op == "aggregate":
        return messages_from_rest(source)
    return feedback_from_rest(source) if op == "send_feedback" else message_from_rest(source)


def _with_arrays(source: Any) -> Any:
    """What another node has said, as it would have come from elsewhere: with arrays where it gave lists."""
    if isinstance(source, list):
        return [_with_array(message) for message in source]
    if isinstance(source, Feedback):
        request, truth = _with_array(source.request), _with_array(source.truth)
        return Feedback(request, source.response, truth, source.reward, source.source)
    return _with_array(source)


def _with_array(message: Message) -> Message:
    value = message.value
    if message.kind != "data" or not isinstance(value, (list, tuple)):
        return message
    array = array_of(value)
    return Message("data", array, message.names, message.encoding, message.meta, message.status, message.source)


def _some(messages: list[Message]) -> list[Message]:
    if not messages:
        raise SeldonMicroserviceException("seldonMessages is empty: there is nothing to aggregate")
    return messages


def _is_read(op: str, source: Any) -> bool:
    if op == "aggregate":
        return isinstance(source, list) and bool(source) and isinstance(source[0], Message)
    return isinstance(source, Feedback if op == "send_feedback" else Message)


def is_not_implemented(exc: BaseException) -> bool:
    """Whether an exception is ``SeldonNotImplementedError``, ours or that of the real package."""
    return any(cls.__name__ == "SeldonNotImplementedError" for cls in type(exc).__mro__)


# -- forms -------------------------------------------------------------------------------------------------------------


def _as_json(op: str, source: Any) -> Any:
    """A request as JSON value, with plain lists."""
    if source.__class__ is bytes:
        return _json_of(_parsed(op, source))
    if isinstance(source, Message):
        return source.source if source.source.__class__ is dict else _plain(message_to_rest(source))
    if isinstance(source, Feedback):
        return source.source if source.source.__class__ is dict else _plain(feedback_to_rest(source))
    return _plain(messages_to_rest(source)) if _is_read(op, source) else source


def _as_proto(op: str, source: Any) -> Any:
    """A request as protobuf message."""
    if source.__class__ is bytes:
        return _parsed(op, source)
    from servegraph.serving.seldon import wire

    if isinstance(source, Feedback):
        return wire.feedback_to_proto(source)
    if isinstance(source, Message):
        return wire.message_to_proto(source)
    if _is_read(op, source):
        return wire.messages_to_proto(source)
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(source, _type_for(op)())
    except (json_format.ParseError, TypeError, AttributeError, ValueError, RecursionError) as exc:
        raise SeldonMicroserviceException(f"Invalid JSON: {str(exc)[:300]}") from exc


def _type_for(op: str) -> Any:
    from servegraph.serving.seldon.proto import prediction_pb2 as pb

    return {"aggregate": pb.SeldonMessageList, "send_feedback": pb.Feedback}.get(op, pb.SeldonMessage)


def _parsed(op: str, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return _type_for(op).FromString(data)
    except DecodeError as exc:
        raise SeldonMicroserviceException("the bytes are no message of this protocol") from exc


def _plain(value: Any) -> Any:
    return jsoncodec.loads(jsoncodec.dumps(value))


def _is_proto(value: Any) -> bool:
    return hasattr(value, "SerializeToString") and hasattr(value, "DESCRIPTOR")


def _json_of(value: Any) -> Any:
    """A low-level result as JSON value."""
    if isinstance(value, Message):
        return message_to_rest(value)
    if _is_proto(value):
        from google.protobuf import json_format

        return json_format.MessageToDict(value)
    return value


def _proto_of(value: Any) -> Any:
    """A low-level result as protobuf message."""
    if _is_proto(value):
        return value
    from servegraph.serving.seldon import wire
    from servegraph.serving.seldon.proto import prediction_pb2 as pb

    if value is None:
        return pb.SeldonMessage()
    if isinstance(value, Message):
        return wire.message_to_proto(value)
    if isinstance(value, dict):
        from google.protobuf import json_format

        try:
            return json_format.ParseDict(_plain(value), pb.SeldonMessage())
        except json_format.ParseError as exc:
            raise SeldonMicroserviceException(f"the component's answer is no message: {exc}", 500) from exc
    raise SeldonMicroserviceException(
        f"the component's answer must be a SeldonMessage or a dict, not {type(value).__name__}", 500
    )


def _status(value: Any) -> int:
    """The HTTP status that an answer asks for, where it is one."""
    if isinstance(value, dict) and isinstance(value.get("status"), dict):
        code = value["status"].get("code")
        if type(code) is int and 200 <= code <= 599:
            return code
    return _NO_CLIENT_STATUS
