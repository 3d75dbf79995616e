"""Arrays of messages: how they come in from lists, how they are named, and how a result is to be encoded."""

from __future__ import annotations

import sys
from typing import Any

from servegraph.errors import MissingExtraError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Message

try:
    import numpy as np
except ImportError as exc:
    raise MissingExtraError("Seldon's protocol", "seldon") from exc


def array_of(values: Any, place: str = "data.ndarray") -> np.ndarray[Any, Any]:
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


def reshaped(values: Any, shape: Any, place: str = "data.tensor") -> np.ndarray[Any, Any]:
    """The array of a flat list and its shape.

    Raises:
        SeldonMicroserviceException: they do not fit each other, or the shape is none (400).
    """
    if not isinstance(shape, (list, tuple)) or not all(type(n) is int and n >= 0 for n in shape):
        raise SeldonMicroserviceException(f"{place}.shape must be a list of whole numbers from 0")
    if not isinstance(values, (list, tuple)):
        raise SeldonMicroserviceException(f"{place}.values must be a list")
    flat = array_of(values, f"{place}.values")
    wanted = 1
    for n in shape:
        wanted *= n
    if flat.ndim != 1 or flat.size != wanted:
        raise SeldonMicroserviceException(
            f"{place} has {flat.size} values, and its shape {list(shape)} needs {wanted} in one flat list"
        )
    return flat.reshape(shape)


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
        return [value.item() if isinstance(value, np.generic) else value], None
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return value.to_numpy(), [str(c) for c in value.columns]
    if pandas is not None and isinstance(value, pandas.Series):
        return value.to_numpy(), None
    return value, None


def result_encoding(array: np.ndarray[Any, Any], request: Message) -> Encoding:
    """How a result is sent: as the request was, where it is made of numbers; else as ``ndarray``."""
    if array.dtype.kind not in "iuf":
        return "ndarray"
    if request.kind == "data":
        return request.encoding if request.encoding is not None else "ndarray"
    return "tensor"
