"""The one JSON encoder and decoder: every answer, record and spec passes through it.

numpy arrays and scalars, frames and series, datetimes, UUIDs, dataclasses, sets, decimals and bytes are
encoded the same everywhere. NaN and infinity have no JSON: they become ``null``, or an error where
``refuse_nan`` asks for it; they are never written as invalid JSON. Missing times and values (NaT, NA) are
``null``; a span of time is its seconds.

orjson does the work in one pass. What it cannot take, or takes wrongly, is first made plain in Python:
that pass is slower, is only taken when needed, and can name the place of what has no JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import sys
import uuid
from collections import deque
from collections.abc import Callable, KeysView, Mapping, ValuesView
from typing import Any

import orjson

JSONDecodeError = orjson.JSONDecodeError

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_MAX_DEPTH = 250  # orjson's own limit for values that pass through a fallback is 254
_MAX_INT_BITS = 1024  # a larger one fits no reader's number, and its decimal text is slow to make

# orjson writes a missing time inside a numpy array as one of these moments, according to the array's unit.
_MISSING_TIMES = (b'"1677-09-21T00:12:43.145224', b'"1970-01-01T00:00:00')

# Methods that give an array, column or record as plain Python; the first that an object has is taken.
_CONVERSIONS = ("to_dicts", "to_pylist", "tolist", "to_list", "to_dict", "item")

# orjson writes these types as they are, wherever they stand.
_NATIVE = (str, bool, int, float, type(None), dt.datetime, dt.date, uuid.UUID, orjson.Fragment)


def loads(data: bytes | bytearray | memoryview | str) -> Any:
    """The Python value of a JSON text. Raises `JSONDecodeError` (a ``ValueError``)."""
    return orjson.loads(data)


def dumps(value: object, *, refuse_nan: bool = False, indent: bool = False, sort_keys: bool = False) -> bytes:
    """The JSON text of a value, as UTF-8 bytes.

    Raises:
        TypeError: the value holds something that has no JSON; the message names the place.
        ValueError: ``refuse_nan`` is set and the value holds NaN or infinity.
    """
    options = _OPTIONS
    if indent:
        options |= orjson.OPT_INDENT_2
    if sort_keys:
        options |= orjson.OPT_SORT_KEYS
    try:
        text = orjson.dumps(value, _fallback, options)
    except TypeError:
        text = orjson.dumps(_plain(value), None, options)
    else:
        if b"T00:" in text and "numpy" in sys.modules and any(moment in text for moment in _MISSING_TIMES):
            text = orjson.dumps(_plain(value), None, options)
    # NaN and infinity are written as null, so a text without one needs no second look.
    if refuse_nan and b"null" in text:
        check_finite(value)
    return text


def check_finite(value: object, path: str = "$") -> None:
    """Raise `ValueError`, naming the first place, when a value holds NaN or infinity."""
    stack: list[tuple[object, str, int]] = [(value, path, 0)]
    while stack:
        item, where, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"{where[:80]}… is nested too deeply for JSON")
        if isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{where} is {item}, which JSON cannot hold")
        else:
            stack.extend((v, f"{where}{at}", depth + 1) for v, at in reversed(_children(item)))


def _children(item: object) -> list[tuple[object, str]]:
    """What a value holds that may be a NaN, each with its place in the value."""
    if isinstance(item, (str, int, bytes, dt.date, uuid.UUID, type(None))):
        return []
    if isinstance(item, Mapping):
        return [(v, f".{k}") for k, v in item.items()]
    if isinstance(item, (list, tuple)):
        return [(v, f"[{i}]") for i, v in enumerate(item)]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(item, numpy.ndarray) and item.dtype.kind not in "Oc":
        if item.dtype.kind != "f":
            return []
        at = numpy.argwhere(~numpy.isfinite(item))[:1].tolist()
        return [(float(item[tuple(i)]), "".join(f"[{n}]" for n in i)) for i in at]
    try:
        return [(_convert(item), "")]
    except TypeError:  # it has no JSON at all, which writing it tells
        return []


def _fallback(value: Any) -> Any:
    """What orjson should write in place of a value that it does not know."""
    # A unit or byte order that orjson refuses may not come back to it, so numpy is made plain at once.
    return _plain(value) if _is_numpy(value) else _convert(value)


def _plain(value: Any, path: str = "$", depth: int = 0) -> Any:
    """A value made of what orjson takes everywhere: plain keys, numbers of at most 64 bits, no numpy."""
    if depth > _MAX_DEPTH:
        raise TypeError(f"{path[:80]}… is nested too deeply for JSON")
    if isinstance(value, Mapping):
        return {_key(k, path): _plain(v, f"{path}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        if value.bit_length() > _MAX_INT_BITS:
            raise TypeError(f"{path} is an integer of {value.bit_length()} bits, too large for JSON")
        return orjson.Fragment(int.__repr__(value).encode())
    if type(value) in _NATIVE:
        return value
    try:
        converted = _convert(value)
    except TypeError as exc:
        raise TypeError(f"{path}: {exc}") from exc
    return _plain(converted, path, depth + 1)


def _key(key: object, path: str) -> Any:
    """A mapping's key as one that orjson takes."""
    if isinstance(key, (*_NATIVE, enum.Enum)) or _is_numpy(key):
        return _plain(key, path)
    raise TypeError(f"{path} has the key {key!r}: a JSON object's keys are text, numbers, times or UUIDs")


def _is_numpy(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _is_missing(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NaT or value is pandas.NA)


def _convert(value: Any) -> Any:
    """One step from a value that has no JSON of its own towards one that has."""
    if _is_missing(value):
        return None
    if _is_numpy(value):
        if value.dtype.kind in "mM":  # nanoseconds would come out as bare numbers
            return value.astype(f"{value.dtype.kind}8[us]").tolist()
        return value.astype("float64").tolist() if value.dtype.kind == "f" else value.tolist()
    for kinds, conversion in _KINDS:
        if isinstance(value, kinds):
            return conversion(value)
    if not isinstance(value, type):
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        for name in _CONVERSIONS:
            method = getattr(value, name, None)
            if callable(method):
                # A data frame becomes its rows.
                return method(orient="records") if name == "to_dict" and hasattr(value, "columns") else method()
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} cannot be written as JSON")


def _sorted(value: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:  # of several types
        return sorted(value, key=repr)


def _text(value: bytes | bytearray | memoryview) -> str:
    raw = bytes(value)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode("ascii")


def _number(value: decimal.Decimal) -> int | float:
    if not value.is_finite():
        return math.nan if value.is_nan() else math.copysign(math.inf, value)
    whole = abs(value) < 2**63 and value == value.to_integral_value()
    return int(value) if whole else float(value)


def _moment(value: dt.datetime) -> dt.datetime | str:
    if type(value) is dt.datetime:
        return value.isoformat()  # with a time zone that orjson does not know
    return dt.datetime.combine(value.date(), value.timetz())


_KINDS: list[tuple[type | tuple[type, ...], Callable[[Any], Any]]] = [
    (enum.Enum, lambda value: value.value),
    ((set, frozenset), _sorted),
    ((bytes, bytearray, memoryview), _text),
    (decimal.Decimal, _number),
    (pathlib.PurePath, str),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (Mapping, dict),
    ((tuple, deque, range, KeysView, ValuesView), list),
    (dt.timedelta, dt.timedelta.total_seconds),
    (dt.datetime, _moment),
    ((dt.date, dt.time), lambda value: value.isoformat()),
    (uuid.UUID, str),
]
