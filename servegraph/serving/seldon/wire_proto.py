"""Messages from protobuf's own classes: whatever the wire has, merged and checked by protobuf."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from servegraph.serving.seldon import tftensor
from servegraph.serving.seldon.arrays import array_of, check_texts, tensor_in_shape
from servegraph.serving.seldon.message import Encoding, Message, Meta
from servegraph.serving.seldon.wire_arrays import Array
from servegraph.serving.seldon.wire_meta import read_meta, read_status
from servegraph.serving.seldon.wire_values import numbers_of_words, python_list, python_value

_PLACE: Final = "data.ndarray"
_CHECKED_FROM: Final = 8192
"""Bytes of a message below which no array of texts can become large."""
"""Bytes of an array of texts, where each takes as much as the longest."""


def read_proto(message: Any) -> Message:
    """The message of a protobuf ``SeldonMessage``.

    Raises:
        SeldonMicroserviceException: a part of it is malformed (400).
    """
    meta = read_meta(message.meta) if message.HasField("meta") else Meta()
    status = read_status(message.status) if message.HasField("status") else None
    kind = message.WhichOneof("data_oneof")
    if kind == "data":
        value, encoding = _data(message.data)
        return Message("data", value, list(message.data.names), encoding, meta, status)
    if kind == "jsonData":
        return Message(kind, python_value(message.jsonData, kind), None, None, meta, status)
    return Message(kind, getattr(message, kind) if kind else None, None, None, meta, status)


def _data(data: Any) -> tuple[Array, Encoding | None]:
    encoding: Encoding | None = data.WhichOneof("data_oneof")
    if encoding == "tensor":
        return tensor_in_shape(
            np.array(data.tensor.values, dtype=np.float64), list(data.tensor.shape), "data.tensor"
        ), encoding
    if encoding == "tftensor":
        return tftensor.from_proto(data.tftensor), encoding
    if encoding == "ndarray":
        values = numbers_of_words(python_list(data.ndarray, _PLACE))
        if data.ByteSize() > _CHECKED_FROM:
            check_texts(values, _PLACE)
        return array_of(values, _PLACE), encoding
    return np.empty(0), None
