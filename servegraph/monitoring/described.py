"""Descriptions that stand in records for what does not belong there: images, bytes, large tensors, foreign objects.

A description is an object with the key ``kind``: ``{"kind": "bytes", "size": 51234}``,
``{"kind": "image", "size": [640, 480], "mode": "RGB"}``, ``{"kind": "array", "shape": [224, 224, 3]}``,
``{"kind": "object", "type": "torch.Tensor"}``.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from servegraph import jsoncodec

MAX_CELLS = 4096
"""A sample of two or more dimensions with more elements than this is described."""

_MAX_DEPTH = 32
_MAX_CONTAINERS = 100_000
_BYTES = (bytes, bytearray, memoryview)
_PLAIN = frozenset({int, float, str, bool, type(None)})
_OPAQUE = frozenset({bytes, bytearray, memoryview, io.BytesIO})


def needs_description(rows: Any) -> bool:
    """Whether rows hold bytes, images or large tensors, as far as their first row tells."""
    if type(rows) is not list:
        return type(rows) not in _PLAIN and (isinstance(rows, _BYTES) or _is_large(rows, own_dimension=True))
    if not rows:
        return False
    first = rows[0]
    kind = type(first)
    if kind in _PLAIN:
        return False
    if kind is list:
        if not _OPAQUE.isdisjoint(map(type, first)):
            return True
        return bool(first) and type(first[0]) is list and _is_large(first)
    return kind in _OPAQUE or _is_large(first)


def described(value: Any) -> Any:
    """A value of which everything has a JSON: a copy of its containers, with descriptions for what does not fit.

    Containers that hold one another in a circle, or many times over, are described from some number of them on.
    """
    return _described(value, 0, itertools.count())


def _described(value: Any, depth: int, containers: Iterator[int]) -> Any:
    if type(value) in _PLAIN:
        return value
    if not isinstance(value, (Mapping, list, tuple)):
        return _described_one(value, depth, containers)
    if depth > _MAX_DEPTH or next(containers) > _MAX_CONTAINERS:
        return _kind_of(value)
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else repr(key): _described(part, depth + 1, containers)
            for key, part in value.items()
        }
    if depth and _is_large(value):
        return {"kind": "array", "shape": _shape(value)}
    return [_described(part, depth + 1, containers) for part in value]


def _described_one(value: Any, depth: int, containers: Iterator[int]) -> Any:
    if isinstance(value, _BYTES):
        return {"kind": "bytes", "size": memoryview(value).nbytes}
    if isinstance(value, io.BytesIO):
        return {"kind": "bytes"} if value.closed else {"kind": "bytes", "size": value.getbuffer().nbytes}
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        if depth == 0 and len(shape) > 1:  # rows
            return [_described(row, 1, containers) for row in value]
        if _is_large(value):
            return {"kind": "array", "shape": _shape(value), "dtype": str(getattr(value, "dtype", "object"))}
    mode, size = getattr(value, "mode", None), getattr(value, "size", None)
    if isinstance(mode, str) and isinstance(size, tuple):
        return {"kind": "image", "size": list(size), "mode": mode}
    try:
        jsoncodec.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return _kind_of(value)
    return value


def _is_large(value: Any, *, own_dimension: bool = False) -> bool:
    """Whether a sample has several dimensions and many elements. ``own_dimension``: the first one counts samples."""
    shape = _shape(value)[1 if own_dimension else 0 :]
    return len(shape) > 1 and math.prod(shape) > MAX_CELLS


def _shape(value: Any) -> list[int]:
    """The dimensions of an array, or of nested lists as far as their first parts tell."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return [size for size in shape if isinstance(size, int)]
    dimensions: list[int] = []
    while isinstance(value, (list, tuple)) and len(dimensions) <= _MAX_DEPTH:
        dimensions.append(len(value))
        if not value:
            break
        value = value[0]
    return dimensions


def _kind_of(value: Any) -> dict[str, str]:
    return {"kind": "object", "type": f"{type(value).__module__}.{type(value).__qualname__}"}
