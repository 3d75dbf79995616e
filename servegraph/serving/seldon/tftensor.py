"""TensorFlow's tensors as numpy arrays, and back, without TensorFlow.

A ``tensorflow.TensorProto`` has its elements as raw bytes (``tensor_content``) or in a list of its element type
(``float_val``, ``half_val``, ...). Such a list may be short: its last value then stands for the rest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from servegraph.serving.seldon.arrays import in_shape
from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException

Array: TypeAlias = npt.NDArray[Any]

_STRING: Final = 7
_MAX_FILLED: Final = 1 << 22
"""Elements that a few bytes may ask for by a large shape and a short list; a complete list has no such limit."""


def _bfloat16(bits: Array) -> Array:
    """The upper halves of 32-bit floats as such floats: numpy has no type of its own for them."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _half(bits: Array) -> Array:
    return bits.astype(np.uint16).view(np.float16)


def _float8_e5m2(bits: Array) -> Array:
    """The upper halves of 16-bit floats as 32-bit ones."""
    return (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _float8_e4m3fn(bits: Array) -> Array:
    return _e4m3fn_values()[bits]


@functools.cache
def _e4m3fn_values() -> Array:
    """For each byte its value: sign, 4 bits of exponent with a bias of 7, 3 bits of fraction, and no infinity."""
    codes = np.arange(256)
    exponent, fraction = (codes >> 3) & 15, codes & 7
    size = np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7))
    size[(codes & 127) == 127] = np.nan
    return np.asarray(np.where(codes > 127, -size, size), dtype=np.float32)


class _Element(NamedTuple):
    """How the elements of one of TensorFlow's types are stored."""

    name: str
    stored: str
    """The numpy type of an element in ``tensor_content``."""
    values: str
    """The field that has them one by one."""
    of_bits: Callable[[Array], Array] | None = None
    """Makes numbers of bits, where numpy has no such type or the field has bits."""


_ELEMENTS: Final[Mapping[int, _Element]] = {
    1: _Element("FLOAT", "<f4", "float_val"),
    2: _Element("DOUBLE", "<f8", "double_val"),
    3: _Element("INT32", "<i4", "int_val"),
    4: _Element("UINT8", "|u1", "int_val"),
    5: _Element("INT16", "<i2", "int_val"),
    6: _Element("INT8", "|i1", "int_val"),
    8: _Element("COMPLEX64", "<c8", "scomplex_val"),
    9: _Element("INT64", "<i8", "int64_val"),
    10: _Element("BOOL", "|b1", "bool_val"),
    11: _Element("QINT8", "|i1", "int_val"),
    12: _Element("QUINT8", "|u1", "int_val"),
    13: _Element("QINT32", "<i4", "int_val"),
    14: _Element("BFLOAT16", "<u2", "half_val", _bfloat16),
    15: _Element("QINT16", "<i2", "int_val"),
    16: _Element("QUINT16", "<u2", "int_val"),
    17: _Element("UINT16", "<u2", "int_val"),
    18: _Element("COMPLEX128", "<c16", "dcomplex_val"),
    19: _Element("HALF", "<u2", "half_val", _half),
    22: _Element("UINT32", "<u4", "uint32_val"),
    23: _Element("UINT64", "<u8", "uint64_val"),
    24: _Element("FLOAT8_E5M2", "|u1", "float8_val", _float8_e5m2),
    25: _Element("FLOAT8_E4M3FN", "|u1", "float8_val", _float8_e4m3fn),
    29: _Element("INT4", "|i1", "int_val"),
    30: _Element("UINT4", "|u1", "int_val"),
    31: _Element("INT2", "|i1", "int_val"),
    32: _Element("UINT2", "|u1", "int_val"),
}

_NUMBERS: Final[Mapping[str, int]] = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
    "bfloat16": 14,
    "float8_e5m2": 24,
    "float8_e4m3fn": 25,
}
"""For each numpy type, and for those that packages add to numpy, TensorFlow's number."""


# -- reading -----------------------------------------------------------------------------------------------------------


def from_proto(tensor: Any) -> Array:
    """The array of a ``TensorProto``, which can be written to; strings are an object array of bytes.

    Types that numpy does not have become the next larger one that holds all their values.

    Raises:
        SeldonMicroserviceException: the tensor is malformed, or of a type that is no array (400).
    """
    shape = _shape(tensor)
    size = math.prod(shape)
    if tensor.dtype == _STRING:
        flat = _strings(tensor, size)
    elif tensor.dtype in _ELEMENTS:
        element = _ELEMENTS[tensor.dtype]
        flat = _content(tensor, element, size) if tensor.tensor_content else _listed(tensor, element, size)
    else:
        raise _malformed(f"dtype {_dtype_name(tensor)} has no array")
    return in_shape(flat, shape, "data.tftensor")


def from_json(tensor: Any) -> Array:
    """The array of a ``TensorProto`` in protobuf's JSON form.

    Raises:
        SeldonMicroserviceException: the tensor is malformed, or of a type that is no array (400).
    """
    from google.protobuf import json_format

    from servegraph.serving.seldon.proto.prediction_pb2 import TensorProto

    if not isinstance(tensor, dict):
        raise _malformed(f"it must be an object with dtype, tensorShape and values, not {type(tensor).__name__}")
    try:
        parsed = json_format.ParseDict(tensor, TensorProto())
    # Values of unforeseen types make the parser fail in more ways than the one that it documents.
    except (json_format.ParseError, TypeError, ValueError, AttributeError, LookupError, RecursionError) as exc:
        raise _malformed(str(exc)[:300]) from exc
    return from_proto(parsed)


def _shape(tensor: Any) -> tuple[int, ...]:
    if tensor.tensor_shape.unknown_rank:
        raise _malformed("its shape is unknown")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if any(n < 0 for n in shape):
        raise _malformed(f"its shape {list(shape)[:16]} has a negative size")
    return shape


def _content(tensor: Any, element: _Element, size: int) -> Array:
    content, dtype = tensor.tensor_content, np.dtype(element.stored)
    if len(content) != size * dtype.itemsize:
        raise _malformed(
            f"tensor_content has {len(content)} bytes, and {size} elements of DT_{element.name} need "
            f"{size * dtype.itemsize}"
        )
    if dtype.kind == "b":  # a byte but 0 and 1 is no boolean for numpy
        return np.not_equal(np.frombuffer(content, np.uint8), 0)
    stored = np.frombuffer(content, dtype)
    return stored.astype(dtype.newbyteorder("=")) if element.of_bits is None else element.of_bits(stored)


def _listed(tensor: Any, element: _Element, size: int) -> Array:
    values = getattr(tensor, element.values)
    dtype = np.dtype(element.stored).newbyteorder("=")
    if element.values == "float8_val":
        flat = np.frombuffer(values, np.uint8)
    elif dtype.kind == "c":
        if len(values) % 2:
            raise _malformed(f"{element.values} has {len(values)} numbers: pairs are needed")
        flat = np.array(values, dtype=f"f{dtype.itemsize // 2}").view(dtype)
    elif dtype.kind in "iu" and dtype.itemsize < 4:
        wide = np.array(values, dtype=np.int64)
        flat = wide.astype(dtype)
        if not np.array_equal(flat, wide):
            raise _malformed(f"{element.values} has numbers that do not fit DT_{element.name}")
    else:
        flat = np.array(values, dtype=dtype)
    return _filled(flat if element.of_bits is None else element.of_bits(flat), element.values, size)


def _strings(tensor: Any, size: int) -> Array:
    values = tensor.string_val
    if tensor.tensor_content:
        raise _malformed("the elements of DT_STRING belong into string_val")
    flat: Array = np.empty(len(values), dtype=object)
    flat[:] = values
    return _filled(flat, "string_val", size, b"")


def _filled(flat: Array, field: str, size: int, nothing: Any = 0) -> Array:
    """The elements, with the last one repeated where they are fewer than the shape asks for."""
    count = flat.size
    if count == size:
        return flat if flat.flags.writeable else flat.copy()
    if count > size:
        raise _malformed(f"{field} has {count} elements, and its shape needs {size}")
    if size > _MAX_FILLED:
        raise _malformed(f"{field} has {count} elements, and its shape needs {size}: more than are repeated")
    out = np.full(size, flat[-1] if count else nothing, dtype=flat.dtype)
    out[:count] = flat
    return out


def _dtype_name(tensor: Any) -> str:
    value = tensor.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number.get(tensor.dtype)
    return str(tensor.dtype if value is None else value.name)


def _malformed(what: str) -> SeldonMicroserviceException:
    return SeldonMicroserviceException(f"data.tftensor is malformed: {what}")


# -- writing -----------------------------------------------------------------------------------------------------------


def to_proto(array: Array) -> Any:
    """The ``TensorProto`` of an array: a single element in its typed field, several as raw bytes, as TensorFlow does.

    Raises:
        SeldonMicroserviceException: TensorFlow has no such element type.
    """
    from servegraph.serving.seldon.proto.prediction_pb2 import TensorProto

    tensor = TensorProto()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if not array.shape:
        tensor.tensor_shape.SetInParent()
    if array.dtype.kind in "OSU":
        tensor.dtype = _STRING
        tensor.string_val.extend(_bytes(item) for item in array.ravel().tolist())
        return tensor
    number = _NUMBERS.get(array.dtype.name)
    if number is None:
        raise _unencodable(f"TensorFlow has no {array.dtype}; it has {', '.join(sorted(_NUMBERS))} and strings")
    tensor.dtype = number
    element = _ELEMENTS[number]
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    stored = native if element.of_bits is None else np.ascontiguousarray(native).view(element.stored[1:])
    if array.size > 1:
        tensor.tensor_content = stored.astype(element.stored, copy=False).tobytes()
    elif array.size == 1:
        _set_single(tensor, element, stored.ravel())
    return tensor


def to_json(array: Array) -> dict[str, Any]:
    """The ``TensorProto`` of an array in protobuf's JSON form.

    Raises:
        SeldonMicroserviceException: TensorFlow has no such element type.
    """
    from google.protobuf import json_format

    tensor: dict[str, Any] = json_format.MessageToDict(to_proto(array))
    return tensor


def _set_single(tensor: Any, element: _Element, flat: Array) -> None:
    if element.values == "float8_val":
        tensor.float8_val = flat.tobytes()
        return
    value = flat[0].item()
    values = [value.real, value.imag] if isinstance(value, complex) else [value]
    getattr(tensor, element.values).extend(values)


def _bytes(item: Any) -> bytes:
    if isinstance(item, str):
        try:
            return item.encode()
        except UnicodeEncodeError as exc:
            raise _unencodable(f"a text in the array is not valid Unicode: {exc.reason}") from exc
    if isinstance(item, bytes):
        return item
    raise _unencodable(f"an array of objects is sent as strings, and one of them is {type(item).__name__}")


def _unencodable(what: str) -> SeldonMicroserviceException:
    return SeldonMicroserviceException(f"data.tftensor cannot be written: {what}", 500, reason=INTERNAL)
