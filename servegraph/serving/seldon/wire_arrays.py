"""Arrays as protobuf bytes, in both directions, many numbers at a time.

In a ``ListValue`` each number takes eleven bytes, of which the first three are always the same, and all rows of a
rectangular array are equally long. So its numbers lie at fixed distances, and numpy can read and write them all in
one go. What does not look like that is left to protobuf.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from servegraph.serving.seldon.arrays import MAX_EMPTY, tensor_in_shape
from servegraph.serving.seldon.wire_format import head, read_length, spans, unwritable, varint
from servegraph.serving.seldon.wire_values import LIST_ROOM, ROOM, list_bytes, plain

Array: TypeAlias = npt.NDArray[Any]

_NUMBER_HEAD: Final = b"\x0a\x09\x11"  # an item of nine bytes: a double
_BOOL_HEAD: Final = b"\x0a\x02\x20"
_NUMBER_SIZE: Final = len(_NUMBER_HEAD) + 8
_SMALL: Final = 64
"""Up to so many numbers a loop is faster than numpy's calls."""
_MAX_DIMENSIONS: Final = ROOM // LIST_ROOM + 1
_READ_DIMENSIONS: Final = 16
_MAX_INT32: Final = 2**31 - 1


# -- tensor ------------------------------------------------------------------------------------------------------------


def read_tensor(data: bytes, pos: int, end: int) -> Array | None:
    """The array of a ``Tensor``'s bytes; ``None`` where only protobuf can tell it.

    Raises:
        SeldonMicroserviceException: the values do not fit the shape (400).
    """
    fields = spans(data, pos, end)
    if fields is None:
        return None
    by_tag = {tag: (start, stop) for tag, start, stop in fields}
    if len(by_tag) != len(fields) or not by_tag.keys() <= {0x0A, 0x12}:
        return None
    shape = _read_shape(data, *by_tag.get(0x0A, (0, 0)))
    start, stop = by_tag.get(0x12, (0, 0))
    if shape is None or (stop - start) % 8:
        return None
    values = np.frombuffer(data, "<f8", (stop - start) // 8, start).astype(np.float64)
    return tensor_in_shape(values, shape, "data.tensor")


def _read_shape(data: bytes, pos: int, end: int) -> list[int] | None:
    shape = []
    while pos < end:
        number = bits = 0
        while True:
            byte = data[pos]
            number |= (byte & 127) << bits
            pos += 1
            if byte < 128:
                break
            bits += 7
            if pos == end or bits > 28:
                return None
        if number > _MAX_INT32:
            return None
        shape.append(number)
    return shape


def tensor_parts(array: Array) -> tuple[bytes, memoryview]:
    """The content of a ``Tensor`` in two parts, of which the second is the array's memory.

    Raises:
        SeldonMicroserviceException: a dimension is too large for the message.
    """
    numbers = np.asarray(array, dtype="<f8", order="C")
    shape = _shape_bytes(array.shape)
    return (shape + head(0x12, numbers.nbytes) if numbers.size else shape), numbers.data


@functools.lru_cache(maxsize=256)
def _shape_bytes(shape: tuple[int, ...]) -> bytes:
    if any(n > _MAX_INT32 for n in shape):
        raise unwritable("data.tensor", f"a shape of {list(shape)}, larger than its numbers can tell")
    numbers = b"".join([varint(n) for n in shape])
    return head(0x0A, len(numbers)) + numbers if shape else b""


# -- ndarray, written --------------------------------------------------------------------------------------------------


def array_list_bytes(array: Array) -> bytes | bytearray:
    """The content of the ``ListValue`` of an array; of a single value, a list of it.

    Raises:
        SeldonMicroserviceException: it has values without JSON, or too many dimensions.
    """
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim > _MAX_DIMENSIONS:
        raise unwritable("data.ndarray", f"{array.ndim} dimensions")
    if array.dtype.kind not in "biuf" or not array.size:
        return list_bytes(_nested(array), "data.ndarray")
    if array.dtype.kind == "b":
        return _uniform(array.astype(np.uint8), _BOOL_HEAD)
    numbers = array.astype("<f8", copy=False)
    small = array.size <= _SMALL and array.ndim <= 2
    if array.dtype.kind == "f" and not _all_finite(numbers, small):
        return list_bytes(numbers.tolist(), "data.ndarray")
    if small:
        return _small(numbers)
    return _uniform(numbers, _NUMBER_HEAD)


def _nested(array: Array) -> Any:
    """The lists of an array whose elements are not all numbers."""
    if not array.size:
        lists = math.prod(itertools.takewhile(bool, array.shape))
        if lists > MAX_EMPTY:
            raise unwritable("data.ndarray", f"{lists} empty lists")
    return array.tolist() if array.dtype.kind in "biufUO" else plain(array, "data.ndarray")


def _all_finite(numbers: Array, small: bool) -> bool:
    return all(map(math.isfinite, numbers.ravel().tolist())) if small else bool(np.isfinite(numbers).all())


def _small(numbers: Array) -> bytes:
    raw = numbers.tobytes()
    if numbers.ndim == 1:
        return b"".join([_NUMBER_HEAD + raw[i : i + 8] for i in range(0, len(raw), 8)])
    columns = numbers.shape[1]
    row_head, step = _row_head(_NUMBER_SIZE * columns), 8 * columns
    out = []
    for row in range(0, len(raw), step):
        out.append(row_head)
        out += [_NUMBER_HEAD + raw[i : i + 8] for i in range(row, row + step, 8)]
    return b"".join(out)


def _uniform(values: Array, item_head: bytes) -> bytearray:
    """Lists in lists: first with zeros for all elements, as repetitions of equal parts, then with the elements."""
    # Fresh memory costs more than what is done in it: the largest level is made in place and not copied.
    level = bytearray(item_head + bytes(values.itemsize))
    strides, first = [len(level)], len(item_head)
    level *= values.shape[-1]
    for length in values.shape[-2::-1]:
        before = _row_head(len(level))
        level[:0] = before
        strides.append(len(level))
        first += len(before)
        level *= length
    np.ndarray(values.shape, values.dtype, level, first, strides[::-1])[...] = values
    return level


@functools.lru_cache(maxsize=256)
def _row_head(size: int) -> bytes:
    """What stands before a list of so many bytes that is an item of another list."""
    inner = head(0x32, size)
    return head(0x0A, len(inner) + size) + inner


# -- ndarray, read -----------------------------------------------------------------------------------------------------


def read_numbers(data: bytes, pos: int, end: int) -> Array | None:
    """The array of a ``ListValue``'s bytes, where it is rectangular and all numbers; ``None`` where it is not."""
    size = end - pos
    if not size:
        return np.empty(0)
    shape: list[int] = []
    strides: list[int] = []
    while data[pos : pos + 3] != _NUMBER_HEAD:
        row = _first_row(data, pos, end)
        if row is None or len(shape) == _READ_DIMENSIONS:
            return None
        before, content = row
        whole = len(before) + content
        if size % whole:
            return None
        shape.append(size // whole)
        strides.append(whole)
        if not _repeated(data, pos, before, shape, strides):
            return None
        pos, size = pos + len(before), content
    if size % _NUMBER_SIZE:
        return None
    shape.append(size // _NUMBER_SIZE)
    strides.append(_NUMBER_SIZE)
    if math.prod(shape) <= _SMALL and len(shape) <= 2:
        return _read_small(data, pos, shape, strides)
    if not _repeated(data, pos, _NUMBER_HEAD, shape, strides):
        return None
    return np.ndarray(shape, "<f8", data, pos + len(_NUMBER_HEAD), strides).astype(np.float64, order="C")


def _first_row(data: bytes, pos: int, end: int) -> tuple[bytes, int] | None:
    """What stands before the content of a list's first item, and its size, where that is a list with items."""
    if data[pos] != 0x0A:
        return None
    size, inner = read_length(data, pos + 1)
    if data[inner] != 0x32:
        return None
    content_size, content = read_length(data, inner + 1)
    if not content_size or content + content_size != inner + size or inner + size > end:
        return None
    return data[pos:content], content_size


def _repeated(data: bytes, pos: int, head: bytes, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the same bytes stand before all items of a level."""
    if len(shape) == 1 and shape[0] <= _SMALL:
        step, size = strides[0], len(head)
        return all(data[i : i + size] == head for i in range(pos, pos + step * shape[0], step))
    # Byte by byte, since numpy is slow where its innermost loop is short.
    return all(bool((np.ndarray(shape, np.uint8, data, pos + i, strides) == byte).all()) for i, byte in enumerate(head))


def _read_small(data: bytes, pos: int, shape: Sequence[int], strides: Sequence[int]) -> Array | None:
    columns = shape[-1]
    unpack = _row_struct(columns).unpack_from
    starts = range(pos, pos + strides[0] * shape[0], strides[0]) if len(shape) > 1 else (pos,)
    rows = []
    for start in starts:
        row = unpack(data, start)
        if row[::2].count(_NUMBER_HEAD) != columns:
            return None
        rows.append(row[1::2])
    return np.array(rows if len(shape) > 1 else rows[0])


@functools.lru_cache(maxsize=_SMALL)
def _row_struct(columns: int) -> struct.Struct:
    return struct.Struct("<" + f"{len(_NUMBER_HEAD)}sd" * columns)
