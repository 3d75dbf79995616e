"""Messages made of the caller's values, and what answers hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from servegraph.importing import import_extra
from servegraph.serving.seldon.arrays import array_of
from servegraph.serving.seldon.client.errors import SeldonClientException
from servegraph.serving.seldon.client.options import Payload
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Message, Meta
from servegraph.serving.seldon.rest import message_from_rest, message_to_rest, meta_from_rest

Body = dict[str, Any]
_KINDS = ("binData", "strData", "jsonData", "customData")


def request_message(payload: Payload, payload_type: str) -> Message:
    """The message of a payload: random numbers where it holds nothing.

    Raises:
        SeldonClientException: the data is no array.
    """
    meta = Meta(tags=dict(payload.meta or {}))
    given = (payload.bin_data, payload.str_data, payload.json_data, payload.custom_data)
    for kind, value in zip(_KINDS, given, strict=True):
        if value is not None:
            return Message(kind, bytes(value) if kind == "binData" else value, meta=meta)  # type: ignore[arg-type]
    data = payload.data if payload.data is not None else np.random.default_rng().random(tuple(payload.shape))
    return data_message(data, payload_type, payload.names, meta)


def data_message(data: Any, payload_type: str, names: Iterable[str] | None = None, meta: Meta | None = None) -> Message:
    """The message of an array, a nested list or a data frame.

    What is not made of numbers goes as ``ndarray``, whatever the payload type says: it is the one that can hold it.

    Raises:
        SeldonClientException: the data is none of these.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        names = data.columns if names is None else names
        array = data.to_numpy()
    elif isinstance(data, (np.ndarray, list, tuple)):
        try:
            array = array_of(data)
        except SeldonMicroserviceException as exc:
            raise SeldonClientException(f"data: {str(exc).removeprefix('data.ndarray ')}") from exc
        if array.dtype.kind in "US" and not isinstance(data, np.ndarray):
            array = np.array(data, dtype=object)  # one text in it does not make texts of its numbers
    else:
        raise SeldonClientException(f"data must be an array, a list or a data frame, not {type(data).__name__}")
    encoding: Encoding = "ndarray" if array.dtype.kind not in "iuf" else payload_type  # type: ignore[assignment]
    return Message("data", array, [str(name) for name in (() if names is None else names)], encoding, meta)


def aggregate_messages(payload: Payload, payload_type: str) -> list[Message]:
    """The messages to aggregate.

    Raises:
        SeldonClientException: there are none, or the data of one is no array.
    """
    datas = payload.datas
    if datas is None:
        if not payload.ndatas:
            raise SeldonClientException("method='aggregate' needs datas, or ndatas for random ones")
        datas = [np.random.default_rng().random(tuple(payload.shape)) for _ in range(payload.ndatas)]
    return [_part(data, payload_type, payload.names) for data in datas]


def _part(data: Any, payload_type: str, names: Iterable[str] | None) -> Message:
    if isinstance(data, (bytes, bytearray)):
        return Message("binData", bytes(data))
    if isinstance(data, str):
        return Message("strData", data)
    return data_message(data, payload_type, names)


def any_message(part: Any, name: str) -> Message:
    """The message of a JSON object, a protobuf message or its bytes; an empty one of ``None``.

    Raises:
        SeldonClientException: it is neither, or malformed.
    """
    if part is None:
        return Message()
    try:
        if isinstance(part, Mapping):
            message = _of_body(dict(part))
        elif isinstance(part, bytes):
            message = wire().message_from_wire(part)
        elif hasattr(part, "SerializeToString"):
            message = wire().message_from_proto(part)
        else:
            raise SeldonClientException(f"the {name} must be a dict or a SeldonMessage, not {type(part).__name__}")
    except SeldonMicroserviceException as exc:
        raise SeldonClientException(f"the {name} is malformed: {exc}") from exc
    if message.kind == "data" and message.value.dtype.kind == "U":
        message.value = _mixed(part, message.value)
    return message


def _mixed(part: Any, texts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array of a message with texts, its numbers as numbers; components get them as texts, callers need not."""
    if not isinstance(part, Mapping):
        from google.protobuf.json_format import MessageToDict

        from servegraph.serving.seldon.proto import prediction_pb2

        part = MessageToDict(prediction_pb2.SeldonMessage.FromString(part) if isinstance(part, bytes) else part)
    values = np.array(part["data"].get("ndarray", []), dtype=object)
    mixed = values.shape == texts.shape and not all(isinstance(value, str) for value in values.flat)
    return values if mixed else texts


def _of_body(body: Body) -> Message:
    if any(key in body for key in ("data", "jsonData", "strData", "binData")):
        message = message_from_rest(body)
    else:  # an answer that failed, or that has nothing to say
        message = Message(meta=meta_from_rest(body.get("meta") or {}), source=body)
    message.status = body.get("status")
    return message


def plain_body(message: Message) -> Body:
    """The JSON object of a message, with lists in place of arrays.

    Raises:
        SeldonClientException: JSON has no form for it.
    """
    try:
        body = message_to_rest(message)
    except SeldonMicroserviceException as exc:
        raise SeldonClientException(f"{exc}: take transport='grpc'") from exc
    data = body.get("data")
    if data is not None:
        if not data.get("names"):
            data.pop("names", None)
        for holder, key in ((data, "ndarray"), (data.get("tensor"), "values")):
            if holder is not None and isinstance(holder.get(key), np.ndarray):
                holder[key] = holder[key].tolist()
    return body


def wire() -> ModuleType:
    """The module that speaks protobuf.

    Raises:
        MissingExtraError: protobuf is not installed.
    """
    import_extra("google.protobuf", feature="protobuf messages", extra="seldon")
    return import_module("servegraph.serving.seldon.wire")
