"""Meta and status of a message as protobuf, in both directions."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from servegraph.serving.seldon.message import Meta
from servegraph.serving.seldon.wire_format import field, text, unwritable, varint
from servegraph.serving.seldon.wire_values import entry_bytes, python_value

_METRIC_TYPES: Final = ("COUNTER", "GAUGE", "TIMER")
_STATUS_FLAGS: Final = ("SUCCESS", "FAILURE")
_INT32: Final = range(-(2**31), 2**31)
_pack_float: Final = struct.Struct("<f").pack


# -- reading -----------------------------------------------------------------------------------------------------------


def read_meta(meta: Any) -> Meta:
    """The meta of a protobuf ``Meta``.

    Raises:
        SeldonMicroserviceException: a tag is nested too deeply (400).
    """
    return Meta(
        meta.puid,
        {key: python_value(value, "meta.tags") for key, value in meta.tags.items()},
        dict(meta.routing),
        dict(meta.requestPath),
        [_read_metric(metric) for metric in meta.metrics],
    )


def _read_metric(metric: Any) -> dict[str, Any]:
    kind = metric.type
    out = {
        "key": metric.key,
        # Types that are newer than this program stay numbers.
        "type": _METRIC_TYPES[kind] if 0 <= kind < len(_METRIC_TYPES) else kind,
        "value": _shortest(metric.value),
    }
    if metric.tags:
        out["tags"] = dict(metric.tags)
    return out


def _shortest(value: float) -> float:
    """The number that was most likely meant by a 32-bit float: 20.2, and not 20.200000762939453."""
    return float(str(np.float32(value)))


def read_status(status: Any) -> dict[str, Any]:
    """The status of a protobuf ``Status``."""
    return {"code": status.code, "info": status.info, "reason": status.reason, "status": status.status}


# -- writing -----------------------------------------------------------------------------------------------------------


def meta_bytes(meta: Meta) -> bytes:
    """The content of a ``Meta``.

    Raises:
        SeldonMicroserviceException: one of its parts is of a type that the message has not.
    """
    out = []
    if meta.puid:
        out.append(_text(0x0A, meta.puid, "meta.puid"))
    if meta.tags:
        out += [entry_bytes(0x12, key, value, "meta.tags") for key, value in meta.tags.items()]
    if meta.routing:
        for key, route in meta.routing.items():
            number = varint(_int32(route, "meta.routing"))
            out.append(field(0x1A, _text(0x0A, key, "meta.routing") + b"\x10" + number))
    if meta.request_path:
        out += [_text_entry(0x22, key, value, "meta.requestPath") for key, value in meta.request_path.items()]
    if meta.metrics:
        out += [field(0x2A, _metric_bytes(metric)) for metric in meta.metrics]
    return b"".join(out)


def _metric_bytes(metric: Any) -> bytes:
    place = "meta.metrics"
    if not isinstance(metric, Mapping):
        raise unwritable(place, f"a metric of type {type(metric).__name__}")
    tags = metric.get("tags") or {}
    if not isinstance(tags, Mapping):
        raise unwritable(place, f"tags of type {type(tags).__name__}")
    out = [_text(0x0A, metric.get("key", ""), place)]
    out.append(b"\x10" + varint(_enum(metric.get("type", 0), _METRIC_TYPES, f"{place} type")))
    out.append(b"\x1d" + _float32(metric.get("value", 0.0), place))
    out += [_text_entry(0x22, key, _label(value), place) for key, value in tags.items()]
    return b"".join(out)


def status_bytes(status: Mapping[str, Any]) -> bytes:
    """The content of a ``Status``.

    Raises:
        SeldonMicroserviceException: one of its parts is of a type that the message has not.
    """
    if not isinstance(status, Mapping):
        raise unwritable("status", f"a value of type {type(status).__name__}")
    return b"".join(
        (
            b"\x08" + varint(_int32(status.get("code", 0), "status.code")),
            _text(0x12, status.get("info", ""), "status.info"),
            _text(0x1A, status.get("reason", ""), "status.reason"),
            b"\x20" + varint(_enum(status.get("status", 0), _STATUS_FLAGS, "status.status")),
        )
    )


def _text(tag: int, value: Any, place: str) -> bytes:
    if isinstance(value, str):
        return text(tag, value, place)
    raise unwritable(place, f"a value of type {type(value).__name__} where text belongs")


def _text_entry(tag: int, key: Any, value: Any, place: str) -> bytes:
    return field(tag, _text(0x0A, key, place) + _text(0x12, value, place))


def _label(value: Any) -> Any:
    """A metric's tag as text; components give numbers too."""
    return str(value) if isinstance(value, (bool, int, float, np.generic)) else value


def _int32(value: Any, place: str) -> int:
    whole = isinstance(value, (int, np.integer)) or (isinstance(value, (float, np.floating)) and value == value // 1)
    if not whole or not math.isfinite(value) or int(value) not in _INT32:
        raise unwritable(place, f"a {type(value).__name__} that is no whole number of 32 bits")
    return int(value)


def _enum(value: Any, names: tuple[str, ...], place: str) -> int:
    if isinstance(value, str):
        if value.upper() not in names:
            raise unwritable(place, f"the name {value[:80]!r}; it is one of {', '.join(names)}")
        return names.index(value.upper())
    return _int32(value, place)


def _float32(value: Any, place: str) -> bytes:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise unwritable(place, f"a value of type {type(value).__name__} where a number belongs") from exc
    return float_bytes(number)


def float_bytes(number: float) -> bytes:
    """The four bytes of a number; one that is too large for them is infinite there, as protobuf has it."""
    try:
        return _pack_float(number)
    except OverflowError:
        return _pack_float(math.copysign(math.inf, number))
