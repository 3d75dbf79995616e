"""What a component's result becomes: a message with names, and with the meta that Seldon's rules give it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from servegraph.serving.seldon.arrays import array_of, default_names, is_array, plain_result, result_encoding, shape_of
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.identity import NOT_IMPLEMENTED, UnitIdentity
from servegraph.serving.seldon.message import Message, Meta

Transport: TypeAlias = Literal["rest", "grpc"]

NO_REQUEST: Final = Message()
"""Stands for the request where an answer is to none, as that of a health check."""


class RawAnswer:
    """What a low-level method gave: sent as it is."""

    __slots__ = ("status", "value")

    def __init__(self, value: Any, status: int = 200) -> None:
        self.value = value
        """A JSON value or a protobuf message."""
        self.status = status

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics in its meta."""
        value = self.value
        if isinstance(value, dict):
            meta = value.get("meta")
            found = meta.get("metrics") if isinstance(meta, dict) else None
            return found if isinstance(found, list) else []
        meta = getattr(value, "meta", None)
        if meta is None or not getattr(meta, "metrics", None):
            return []
        from google.protobuf import json_format

        return [{"type": "COUNTER", **json_format.MessageToDict(m)} for m in meta.metrics]

    def drop_metrics(self) -> None:
        """Take the metrics out of its meta."""
        if isinstance(self.value, dict):
            self.value = {**self.value, "meta": {k: v for k, v in self.value["meta"].items() if k != "metrics"}}
        else:
            self.value.meta.ClearField("metrics")


def answer(
    result: Any, request: Message, meta: Meta, class_names: Sequence[Any] | None, transport: Transport
) -> Message:
    """The message of a result.

    Args:
        result: what the component gave.
        request: the message that it answers; its encoding is mirrored.
        meta: goes with it.
        class_names: the component's names of columns; generated ones where it has none. They count only where
            `has_columns`.
        transport: lists stay lists on REST, so that what numpy would make of them does not show.

    Raises:
        SeldonMicroserviceException: the result is of a type that no message carries.
    """
    if not is_array(result):
        if isinstance(result, dict):
            return Message("jsonData", result, meta=meta)
        if isinstance(result, (bytes, bytearray)):
            return Message("binData", bytes(result), meta=meta)
        if isinstance(result, str):
            return Message("strData", str(result), meta=meta)
        if transport == "grpc" and _is_any(result):
            return Message("customData", result, meta=meta)
        result, columns = plain_result(result)
        if not is_array(result):
            raise SeldonMicroserviceException(
                "Unknown data type returned as payload (must be list, array, text, bytes, dict or frame): "
                f"{type(result).__name__}"
            )
        class_names = columns if class_names is None else class_names
    mirrors_list = request.kind == "data" and request.encoding in ("ndarray", None)
    if mirrors_list and transport == "rest" and isinstance(result, list):
        return Message("data", result, _names(result, class_names), "ndarray", meta)
    array = result if isinstance(result, np.ndarray) else _array_of_result(result)
    if array is None:
        names = [] if class_names is None else _names(result, class_names)
        return Message("data", result, names, "ndarray", meta)
    encoding = result_encoding(array, request)
    kept = result if encoding == "ndarray" and transport == "rest" else array
    return Message("data", kept, _names(array, class_names), encoding, meta)


def has_columns(result: Any) -> bool:
    """Whether a component's result has columns, which have names."""
    return len(shape_of(result)) > 1


def _array_of_result(result: list[Any]) -> np.ndarray[Any, Any] | None:
    """The array of a list; ``None`` for one that is not rectangular, which is sent as it is."""
    try:
        return array_of(result)
    except SeldonMicroserviceException:
        return None


def _names(value: Any, class_names: Sequence[Any] | None) -> list[str]:
    """The names of a result's columns: none where it has no columns."""
    if class_names is None:
        shape = shape_of(value)
        return list(_generated(shape[1])) if len(shape) > 1 else []
    if len(shape_of(value)) < 2:
        return []
    return [str(name) for name in class_names]


@functools.lru_cache(maxsize=256)
def _generated(columns: int) -> tuple[str, ...]:
    return tuple(default_names(np.empty((0, columns))))


def _is_any(value: object) -> bool:
    descriptor = getattr(type(value), "DESCRIPTOR", None)
    return getattr(descriptor, "full_name", None) == "google.protobuf.Any"


# -- meta --------------------------------------------------------------------------------------------------------------


def continued(incoming: Sequence[Meta], identity: UnitIdentity) -> Meta:
    """The meta of an answer to these messages, before the component adds its own.

    Tags and request paths of later messages win, metrics are all kept, and the id is that of the first.
    """
    meta = Meta(incoming[0].puid if incoming else "")
    for part in incoming:
        if part.tags:
            meta.tags.update(part.tags)
        if part.metrics:
            meta.metrics.extend(part.metrics)
    if identity.unit_id:
        image = identity.image or f"{NOT_IMPLEMENTED}:{NOT_IMPLEMENTED}"
        meta.request_path[identity.unit_id] = image
    for part in incoming:
        if part.request_path:
            meta.request_path.update(part.request_path)
    return meta
