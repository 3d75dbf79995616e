"""Messages of Seldon's protocol as protobuf, in both directions.

Bytes of the common shapes are read and written here, without protobuf's objects: they cost more than most models.
All other bytes go through protobuf's classes, with the same result.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from servegraph.serving.seldon import tftensor
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Feedback, Message, Meta
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.wire_arrays import Array, array_list_bytes, read_numbers, read_tensor, tensor_parts
from servegraph.serving.seldon.wire_format import field, head, spans, text, unwritable
from servegraph.serving.seldon.wire_meta import float_bytes, meta_bytes, read_meta, status_bytes
from servegraph.serving.seldon.wire_proto import read_proto
from servegraph.serving.seldon.wire_values import list_bytes, value_bytes

_META: Final = 0x12
_DATA: Final = 0x1A
_BIN: Final = 0x22
_STR: Final = 0x2A
_NAME, _TENSOR, _NDARRAY, _TFTENSOR = 0x0A, 0x12, 0x1A, 0x22
_REQUEST, _RESPONSE, _REWARD, _TRUTH = 0x0A, 0x12, 0x1D, 0x22
_EMPTY_META: Final = b"\x12\x00"
_NO_BYTES: Final = memoryview(b"")


# -- reading -----------------------------------------------------------------------------------------------------------


def message_from_wire(data: bytes) -> Message:
    """The message of the bytes of a ``SeldonMessage``.

    Raises:
        SeldonMicroserviceException: they are none, or a part of it is malformed (400).
    """
    return _message(data, 0, len(data))


def message_from_proto(message: Any) -> Message:
    """The message of a protobuf ``SeldonMessage``.

    Raises:
        SeldonMicroserviceException: a part of it is malformed (400).
    """
    # To write it and to read the bytes takes less time than to go through its objects.
    data = message.SerializeToString()
    read = _ordinary_message(data, 0, len(data)) or read_proto(message)
    read.source = message
    return read


def messages_from_wire(data: bytes) -> list[Message]:
    """The messages of the bytes of a ``SeldonMessageList``.

    Raises:
        SeldonMicroserviceException: they are none, or one of them is malformed (400).
    """
    fields = _spans(data)
    if fields is not None and all(tag == _REQUEST for tag, _, _ in fields):
        return [_message(data, start, stop) for _, start, stop in fields]
    return [read_proto(m) for m in _parsed(pb.SeldonMessageList, data).seldonMessages]


def messages_from_proto(messages: Any) -> list[Message]:
    """The messages of a protobuf ``SeldonMessageList``.

    Raises:
        SeldonMicroserviceException: one of them is malformed (400).
    """
    return [message_from_proto(m) for m in messages.seldonMessages]


def feedback_from_wire(data: bytes) -> Feedback:
    """The feedback of the bytes of a ``Feedback``.

    Raises:
        SeldonMicroserviceException: they are none, or a part of it is malformed (400).
    """
    fields = _spans(data)
    by_tag = {tag: (start, stop) for tag, start, stop in fields or ()}
    if fields is None or len(by_tag) != len(fields) or not by_tag.keys() <= {_REQUEST, _RESPONSE, _REWARD, _TRUTH}:
        return _feedback(_parsed(pb.Feedback, data))
    request, response, truth = (
        _message(data, *by_tag[tag]) if tag in by_tag else Message() for tag in (_REQUEST, _RESPONSE, _TRUTH)
    )
    reward = struct.unpack_from("<f", data, by_tag[_REWARD][0])[0] if _REWARD in by_tag else 0.0
    return Feedback(request, response, truth, reward)


def feedback_from_proto(feedback: Any) -> Feedback:
    """The feedback of a protobuf ``Feedback``.

    Raises:
        SeldonMicroserviceException: a part of it is malformed (400).
    """
    read = _feedback(feedback)
    read.source = feedback
    return read


def _feedback(feedback: Any) -> Feedback:
    request, response, truth = (
        message_from_proto(getattr(feedback, name)) if feedback.HasField(name) else Message()
        for name in ("request", "response", "truth")
    )
    return Feedback(request, response, truth, feedback.reward)


def _spans(data: bytes) -> list[tuple[int, int, int]] | None:
    try:
        return spans(data, 0, len(data))
    except IndexError:
        return None


def _message(data: bytes, start: int, end: int) -> Message:
    message = _ordinary_message(data, start, end)
    return message if message is not None else read_proto(_parsed(pb.SeldonMessage, data[start:end]))


def _parsed(message_class: Any, data: bytes) -> Any:
    try:
        return message_class.FromString(data)
    # The implementation in Python has errors of its own for text and for depth.
    except (DecodeError, ValueError, RecursionError) as exc:
        raise SeldonMicroserviceException(f"the request is no {message_class.DESCRIPTOR.name}: {exc}") from exc


def _ordinary_message(data: bytes, start: int, end: int) -> Message | None:
    """The message of bytes that have each field at most once, and none but the common ones; else ``None``."""
    try:
        fields = spans(data, start, end)
        if fields is None:
            return None
        message = None
        meta: Meta | None = None
        for tag, pos, stop in fields:
            if tag == _META:
                if meta is not None:
                    return None
                meta = read_meta(pb.Meta.FromString(data[pos:stop])) if pos != stop else Meta()
            elif message is not None:
                return None
            else:
                message = _ordinary_payload(data, tag, pos, stop)
                if message is None:
                    return None
    # What is malformed is protobuf's to tell: a later part may still make it whole.
    except (IndexError, UnicodeDecodeError, DecodeError, RecursionError, SeldonMicroserviceException):
        return None
    if message is None:
        message = Message()
    if meta is not None:
        message.meta = meta
    return message


def _ordinary_payload(data: bytes, tag: int, pos: int, end: int) -> Message | None:
    if tag == _STR:
        return Message("strData", data[pos:end].decode())
    if tag == _BIN:
        return Message("binData", data[pos:end])
    if tag != _DATA:
        return None
    fields = spans(data, pos, end)
    if fields is None:
        return None
    names = []
    array: Array | None = None
    encoding: Encoding | None = None
    for part, start, stop in fields:
        if part == _NAME:
            names.append(data[start:stop].decode())
            continue
        if encoding is not None:
            return None
        if part == _NDARRAY:
            array, encoding = read_numbers(data, start, stop), "ndarray"
        elif part == _TENSOR:
            array, encoding = read_tensor(data, start, stop), "tensor"
        if array is None:
            return None
    return Message("data", np.empty(0) if array is None else array, names, encoding)


# -- writing -----------------------------------------------------------------------------------------------------------


def message_to_wire(message: Message) -> bytes:
    """The bytes of the ``SeldonMessage`` of a message; it has a meta, be it an empty one.

    Raises:
        SeldonMicroserviceException: the message has a value that protobuf cannot carry; it says what that is.
    """
    return _message_bytes(message, _EMPTY_META)


def message_to_proto(message: Message) -> Any:
    """The protobuf ``SeldonMessage`` of a message.

    Raises:
        SeldonMicroserviceException: the message has a value that protobuf cannot carry; it says what that is.
    """
    return pb.SeldonMessage.FromString(message_to_wire(message))


def messages_to_wire(messages: Sequence[Message]) -> bytes:
    """The bytes of the ``SeldonMessageList`` of messages.

    Raises:
        SeldonMicroserviceException: one of them has a value that protobuf cannot carry.
    """
    return b"".join([field(0x0A, _message_bytes(message, b"")) for message in messages])


def messages_to_proto(messages: Sequence[Message]) -> Any:
    """The protobuf ``SeldonMessageList`` of messages.

    Raises:
        SeldonMicroserviceException: one of them has a value that protobuf cannot carry.
    """
    return pb.SeldonMessageList.FromString(messages_to_wire(messages))


def feedback_to_wire(feedback: Feedback) -> bytes:
    """The bytes of the ``Feedback`` of a feedback; messages without any content are left out.

    Raises:
        SeldonMicroserviceException: it has a value that protobuf cannot carry.
    """
    out = []
    for tag, message in ((_REQUEST, feedback.request), (_RESPONSE, feedback.response), (_TRUTH, feedback.truth)):
        content = _message_bytes(message, b"")
        if content:
            out.append(field(tag, content))
    if feedback.reward:
        out.append(bytes((_REWARD,)) + float_bytes(feedback.reward))
    return b"".join(out)


def feedback_to_proto(feedback: Feedback) -> Any:
    """The protobuf ``Feedback`` of a feedback.

    Raises:
        SeldonMicroserviceException: it has a value that protobuf cannot carry.
    """
    return pb.Feedback.FromString(feedback_to_wire(feedback))


def _message_bytes(message: Message, empty_meta: bytes) -> bytes:
    meta = message.meta
    before = empty_meta
    if meta.puid or meta.tags or meta.routing or meta.request_path or meta.metrics:
        before = field(_META, meta_bytes(meta))
    if message.status is not None:
        before = field(0x0A, status_bytes(message.status)) + before
    kind, value = message.kind, message.value
    if kind is None:
        return before
    if kind == "data":
        return _with_data(before, message)
    if kind == "jsonData":
        return before + field(0x32, value_bytes(value, kind))
    if kind == "strData" and isinstance(value, str):
        return before + text(_STR, value, kind)
    if kind == "binData" and isinstance(value, (bytes, bytearray, memoryview)):
        return before + field(_BIN, bytes(value))
    if kind == "customData" and getattr(value, "DESCRIPTOR", None) is pb.any_pb2.Any.DESCRIPTOR:
        return before + field(0x3A, value.SerializeToString())
    raise unwritable(kind, f"a value of type {type(value).__name__}")


def _with_data(before: bytes, message: Message) -> bytes:
    """The bytes of a message with an array, which is copied once only: it may be large."""
    names = b"".join([text(_NAME, str(name), "data.names") for name in message.names])
    tag, content, rest = _data_content(message)
    size = len(content) + rest.nbytes
    part = names + head(tag, size)
    return b"".join((before, head(_DATA, len(part) + size), part, content, rest))


def _data_content(message: Message) -> tuple[int, bytes | bytearray, memoryview]:
    """The tag of the payload of ``data``, and its content in two parts."""
    value = message.value
    if not isinstance(value, np.ndarray):
        if not isinstance(value, (list, tuple)):
            raise unwritable("data", f"a value of type {type(value).__name__}, which is neither array nor list")
        try:
            value = np.array(value)
        except ValueError:  # rows of several lengths are no array, and still a list
            return _NDARRAY, list_bytes(value, "data.ndarray"), _NO_BYTES
    encoding, kind = message.encoding, value.dtype.kind
    if kind in "iufc" and encoding == "tftensor":
        return _TFTENSOR, tftensor.to_proto(value).SerializeToString(), _NO_BYTES
    if kind in "iuf" and encoding != "ndarray":
        return _TENSOR, *tensor_parts(value)
    return _NDARRAY, array_list_bytes(value), _NO_BYTES
