"""JSON values as ``google.protobuf.Value``, in both directions.

Written values are bytes, since building protobuf's objects one by one is several times slower. Both directions
count how many messages lie in one another, and stop before any protobuf reader would.

A ``Value`` may hold no NaN and no infinity: they are written as the words that protobuf's JSON has for them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import numpy as np

from servegraph import jsoncodec
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.wire_format import field, text, unwritable

ROOM: Final = 92
"""Messages in one another below a payload; readers of protobuf stop at 100."""
LIST_ROOM: Final = 2
"""What a level of lists takes of it: a value and a list."""
_STRUCT_ROOM: Final = 3

_NULL: Final = b"\x08\x00"
_TRUE: Final = b"\x20\x01"
_FALSE: Final = b"\x20\x00"
_pack_double: Final = struct.Struct("<Bd").pack
_NUMBER_TAG: Final = 0x11
_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What stands for the numbers that a ``Value`` cannot hold."""
_SCALARS: Final[Sequence[tuple[type, Callable[[Any], Any]]]] = (
    (Enum, lambda member: member.value),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
"""How subclasses of plain types become plain; the methods are named since subclasses may have their own."""


# -- writing -----------------------------------------------------------------------------------------------------------


def value_bytes(value: Any, place: str, room: int = ROOM) -> bytes:
    """The content of a ``Value``; what JSON has no form for is first made plain, as everywhere in this package.

    Raises:
        SeldonMicroserviceException: the value has no JSON, or is nested too deeply.
    """
    kind = value.__class__
    if kind is float:
        return _pack_double(_NUMBER_TAG, value) if math.isfinite(value) else text(0x1A, _word(value), place)
    if kind is str:
        return text(0x1A, value, place)
    if value is None:
        return _NULL
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is int:
        return _pack_double(_NUMBER_TAG, _double(value, place))
    if kind is list or kind is tuple:
        return field(0x32, list_bytes(value, place, room - LIST_ROOM))
    if kind is dict:
        return field(0x2A, _struct_bytes(value, place, room - _STRUCT_ROOM))
    return value_bytes(plain(value, place), place, room)


def list_bytes(values: Sequence[Any], place: str, room: int = ROOM) -> bytes:
    """The content of a ``ListValue``.

    Raises:
        SeldonMicroserviceException: one of the values has no JSON, or is nested too deeply.
    """
    if room < 0:
        raise _too_deep(place)
    return b"".join([field(0x0A, value_bytes(value, place, room)) for value in values])


def _struct_bytes(values: Mapping[Any, Any], place: str, room: int) -> bytes:
    if room < 0:
        raise _too_deep(place)
    return b"".join([entry_bytes(0x0A, key, value, place, room) for key, value in values.items()])


def entry_bytes(tag: int, key: Any, value: Any, place: str, room: int = ROOM) -> bytes:
    """A field of a map from text to ``Value``."""
    name = key if key.__class__ is str else _key(key, place)
    return field(tag, text(0x0A, name, place) + field(0x12, value_bytes(value, place, room)))


def _key(key: Any, place: str) -> str:
    """The key that JSON has in place of one that is no text."""
    if isinstance(key, str):
        return str(key)
    try:
        ((name, _),) = jsoncodec.loads(jsoncodec.dumps({key: None})).items()
    except (TypeError, ValueError, AttributeError) as exc:
        raise unwritable(place, f"a key of type {type(key).__name__}") from exc
    return str(name)


def _double(number: int, place: str) -> float:
    try:
        return float(number)
    except OverflowError as exc:
        raise unwritable(place, f"a whole number of {number.bit_length()} bits, which no double holds") from exc


def _word(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def plain(value: Any, place: str) -> Any:
    """A value of another type as one of those that JSON has.

    Raises:
        SeldonMicroserviceException: it has no JSON.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUO":
        return value.tolist()
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (np.integer, np.floating)):
        # What numpy has beyond doubles and 64-bit numbers stays numpy's in item().
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    for kind, as_plain in _SCALARS:
        if isinstance(value, kind):
            return as_plain(value)
    try:
        return jsoncodec.loads(jsoncodec.dumps(value))
    except (TypeError, ValueError, RecursionError) as exc:
        raise unwritable(place, f"a value of type {type(value).__name__}, which has no JSON") from exc


def _too_deep(place: str) -> SeldonMicroserviceException:
    return unwritable(place, "values that are nested too deeply")


# -- reading -----------------------------------------------------------------------------------------------------------


def python_value(value: Any, place: str, room: int = ROOM) -> Any:
    """The Python value of a ``Value``; all its numbers are floats, and one that is not set is ``None``.

    Raises:
        SeldonMicroserviceException: it is nested too deeply (400).
    """
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return value.number_value
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return python_list(value.list_value, place, room - LIST_ROOM)
    if kind == "struct_value":
        return _python_dict(value.struct_value, place, room - _STRUCT_ROOM)
    return None


def python_list(values: Any, place: str, room: int = ROOM) -> list[Any]:
    """The Python values of a ``ListValue``.

    Raises:
        SeldonMicroserviceException: it is nested too deeply (400).
    """
    if room < 0:
        raise SeldonMicroserviceException(f"{place} is nested too deeply")
    return [python_value(value, place, room) for value in values.values]


def _python_dict(values: Any, place: str, room: int) -> dict[str, Any]:
    if room < 0:
        raise SeldonMicroserviceException(f"{place} is nested too deeply")
    return {key: python_value(value, place, room) for key, value in values.fields.items()}


def numbers_of_words(values: list[Any]) -> list[Any]:
    """Nested lists of numbers with NaN and infinity for their words; the same lists where there is anything else."""
    try:
        return [_number_of(value) for value in values]
    except ValueError:
        return values


def _number_of(value: Any) -> Any:
    kind = value.__class__
    if kind is float:
        return value
    if kind is list:
        return [_number_of(item) for item in value]
    if kind is str and value in _WORDS:
        return _WORDS[value]
    raise ValueError(value)
