"""Arrays of messages: how they come in from lists, how they are named, and how a result is to be encoded."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from servegraph.errors import MissingExtraError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Message

try:
    import numpy as np
except ImportError as exc:
    raise MissingExtraError("Seldon's protocol", "seldon") from exc

Array: TypeAlias = np.ndarray[Any, Any]

MAX_EMPTY: Final = 1 << 16
"""The largest dimension of an array without elements: a few bytes could ask for any number of rows or of names."""
_TOLD: Final = 12
_MAX_TEXTS: Final = 1 << 28
_FEW: Final = 1024
"""Up to so many values, an array of long texts is not much larger than the request."""


def array_of(values: Any, place: str = "data.ndarray") -> Array:
    """The array of a nested list, with the type that numpy finds for it.

    Raises:
        SeldonMicroserviceException: the rows are not of one length (400).
    """
    try:
        return np.array(values)
    except (ValueError, OverflowError, RecursionError) as exc:
        raise SeldonMicroserviceException(
            f"{place} is not rectangular: all rows, at each level, must have the same length"
        ) from exc


def array_of_request(values: list[Any], place: str = "data.ndarray") -> Array:
    """The array of a nested list that somebody sent.

    Raises:
        SeldonMicroserviceException: the rows are not of one length, or it would be huge (400).
    """
    if len(values) > _FEW or (values and isinstance(values[0], list) and len(values) * len(values[0]) > _FEW):
        try:  # adding up is the fastest way to see that there is no text
            for row in values if isinstance(values[0], list) else (values,):
                sum(row)
        except (TypeError, OverflowError):
            check_texts(values, place)
    return array_of(values, place)


def reshaped(values: Any, shape: Any, place: str = "data.tensor") -> Array:
    """The array of a flat list and its shape.

    Raises:
        SeldonMicroserviceException: they do not fit each other, or the shape is none (400).
    """
    if not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise SeldonMicroserviceException(f"{place}.shape must be a list of whole numbers")
    if not isinstance(values, list):
        raise SeldonMicroserviceException(f"{place}.values must be a list")
    flat = array_of_request(values, f"{place}.values")
    if flat.ndim != 1:
        raise SeldonMicroserviceException(f"{place}.values must be one flat list")
    return tensor_in_shape(flat, shape, place)


def tensor_in_shape(flat: Array, shape: Sequence[int], place: str) -> Array:
    """The array of this shape, of which one size may be -1: what the elements leave for it.

    Raises:
        SeldonMicroserviceException: they do not fit each other, or it is no shape (400).
    """
    if list(shape).count(-1) == 1:
        others = math.prod(n for n in shape if n != -1)
        if others > 0 and flat.size % others == 0:
            shape = [flat.size // others if n == -1 else n for n in shape]
    return in_shape(flat, shape, place)


def in_shape(flat: Array, shape: Sequence[int], place: str) -> Array:
    """The array of this shape that a message has the elements of.

    Raises:
        SeldonMicroserviceException: they do not fit each other, or it is no shape (400).
    """
    if any(n < 0 for n in shape):
        raise SeldonMicroserviceException(
            f"{place} has a negative size in its shape {_told(shape)} that does not follow from its {flat.size} values"
        )
    wanted = math.prod(shape)
    if flat.size != wanted:
        raise SeldonMicroserviceException(
            f"{place} has {flat.size} values, and its shape {_told(shape)} needs {wanted}"
        )
    # Without elements a few bytes could ask for any number of rows or of names.
    if not wanted and max(shape) > MAX_EMPTY:
        raise SeldonMicroserviceException(f"{place} has no values, and a shape of {_told(shape)}: too large for none")
    try:
        return flat.reshape(shape)
    except ValueError as exc:
        raise SeldonMicroserviceException(f"{place} has {len(shape)} dimensions, which are too many") from exc


def _told(shape: Sequence[int]) -> str:
    return f"{list(shape[:_TOLD])}" if len(shape) <= _TOLD else f"{list(shape[:_TOLD])[:-1]} and so on"


def check_texts(values: list[Any], place: str) -> None:
    """Refuse a list of which one long text would make a huge array.

    Raises:
        SeldonMicroserviceException: it would (400).
    """
    longest = count = 0
    stack: list[Any] = [values]
    while stack:
        item = stack.pop()
        if item.__class__ is list:
            stack += item
        else:
            count += 1
            if item.__class__ is str and len(item) > longest:
                longest = len(item)
    if 4 * longest * count > _MAX_TEXTS:
        raise SeldonMicroserviceException(
            f"{place} has {count} values and among them a text of {longest} characters: as an array, in which each "
            f"takes as much as the longest, it is larger than {_MAX_TEXTS >> 20} MiB"
        )


def default_names(array: Any) -> list[str]:
    """Generated names of the columns: one for each entry of axis 1, none for what has no such axis."""
    shape = shape_of(array)
    return [f"t:{i}" for i in range(shape[1])] if len(shape) > 1 else []


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array; of a nested list its first two entries, as its first row tells them."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return tuple(shape)
    if not isinstance(value, (list, tuple)):
        return ()
    if value and isinstance(value[0], (list, tuple, np.ndarray)):
        return (len(value), len(value[0]))
    return (len(value),)


def is_array(value: Any) -> bool:
    """Whether a component's result is one that is sent as ``data``."""
    return isinstance(value, (np.ndarray, list))


def plain_result(value: Any) -> tuple[Any, list[str] | None]:
    """A result as array, list, text, bytes or dict, and the names of its columns where it brings them.

    Frames and series become arrays, tuples lists, and a single number a list of one.
    """
    if isinstance(value, tuple):
        return list(value), None
    if isinstance(value, (np.generic, int, float)):
        return [value], None
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return value.to_numpy(), [str(c) for c in value.columns]
    if pandas is not None and isinstance(value, pandas.Series):
        return value.to_numpy(), None
    return value, None


def result_encoding(array: Array, request: Message) -> Encoding:
    """How a result is sent: as the request was, where it is made of numbers; else as ``ndarray``."""
    kind = array.dtype.kind
    if kind == "c" and request.encoding == "tftensor":
        return "tftensor"  # the only form that has complex numbers
    if kind not in "iuf":
        return "ndarray"
    if request.kind == "data":
        return request.encoding if request.encoding is not None else "ndarray"
    return "tensor"
