"""TensorFlow's tensors to and from numpy, in each of their forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given

from servegraph.serving.seldon import tftensor
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.proto.prediction_pb2 import TensorProto

NUMERIC = ["f4", "f8", "i4", "u1", "i2", "i1", "c8", "i8", "?", "u2", "c16", "f2", "u4", "u8"]


def tensor(dtype: int, shape: tuple[int, ...] | None = None, **fields: Any) -> Any:
    proto = TensorProto(dtype=dtype, **fields)
    for size in shape or ():
        proto.tensor_shape.dim.add(size=size)
    return proto


@given(st.data())
def test_array_of_numbers_is_read_as_it_was_written(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(NUMERIC)))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
    reads = [tftensor.from_proto(tftensor.to_proto(array))]
    # Protobuf's JSON writes the largest 32-bit floats rounded up, and then refuses them as too large.
    largest = np.abs(array.astype(complex)) if dtype in ("f4", "c8") else np.zeros(1)
    if not (np.isfinite(largest) & (largest > 3e38)).any():
        reads.append(tftensor.from_json(tftensor.to_json(array)))
    for read in reads:
        assert read.dtype == array.dtype
        assert read.shape == array.shape
        assert np.array_equal(read, array, equal_nan=dtype.kind in "fc")
        assert read.flags.writeable


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">c8", ">f2", ">u8"])
@pytest.mark.parametrize("count", [1, 3])
def test_array_of_the_other_byte_order_keeps_its_values(dtype: str, count: int) -> None:
    array = np.arange(1, count + 1).astype(dtype)
    assert tftensor.from_proto(tftensor.to_proto(array)).tolist() == array.tolist()


def test_array_that_is_not_contiguous_keeps_its_order() -> None:
    array = np.arange(12, dtype=np.float16).reshape(3, 4).T[::2]
    assert np.array_equal(tftensor.from_proto(tftensor.to_proto(array)), array)


@pytest.mark.parametrize(
    ("dtype", "fields", "expected"),
    [
        (1, {"float_val": [1.5, 2]}, np.array([1.5, 2], np.float32)),
        (2, {"double_val": [1.5, 2]}, np.array([1.5, 2])),
        (3, {"int_val": [-1, 2]}, np.array([-1, 2], np.int32)),
        (4, {"int_val": [255, 2]}, np.array([255, 2], np.uint8)),
        (5, {"int_val": [-300, 2]}, np.array([-300, 2], np.int16)),
        (6, {"int_val": [-128, 2]}, np.array([-128, 2], np.int8)),
        (8, {"scomplex_val": [1, 2, 3, -4]}, np.array([1 + 2j, 3 - 4j], np.complex64)),
        (9, {"int64_val": [2**60, -2]}, np.array([2**60, -2])),
        (10, {"bool_val": [True, False]}, np.array([True, False])),
        (11, {"int_val": [-5, 2]}, np.array([-5, 2], np.int8)),
        (12, {"int_val": [5, 2]}, np.array([5, 2], np.uint8)),
        (13, {"int_val": [-5, 2]}, np.array([-5, 2], np.int32)),
        (14, {"half_val": [0x3FC0, 0xC000]}, np.array([1.5, -2], np.float32)),
        (15, {"int_val": [-5, 2]}, np.array([-5, 2], np.int16)),
        (16, {"int_val": [65535, 2]}, np.array([65535, 2], np.uint16)),
        (17, {"int_val": [65535, 2]}, np.array([65535, 2], np.uint16)),
        (18, {"dcomplex_val": [1, 2, 3, -4]}, np.array([1 + 2j, 3 - 4j])),
        (19, {"half_val": [0x3E00, 0xC000]}, np.array([1.5, -2], np.float16)),
        (22, {"uint32_val": [2**32 - 1, 2]}, np.array([2**32 - 1, 2], np.uint32)),
        (23, {"uint64_val": [2**64 - 1, 2]}, np.array([2**64 - 1, 2], np.uint64)),
        (24, {"float8_val": b"\x3e\xc0"}, np.array([1.5, -2], np.float32)),
        (25, {"float8_val": b"\x3c\xc0"}, np.array([1.5, -2], np.float32)),
        (29, {"int_val": [-8, 7]}, np.array([-8, 7], np.int8)),
        (30, {"int_val": [15, 7]}, np.array([15, 7], np.uint8)),
    ],
)
def test_typed_list_is_read(dtype: int, fields: dict[str, Any], expected: Any) -> None:
    read = tftensor.from_proto(tensor(dtype, (2,), **fields))
    assert read.dtype == expected.dtype
    assert np.array_equal(read, expected)
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("dtype", "content", "expected"),
    [
        (1, b"\x00\x00\xc0\x3f\x00\x00\x00\xc0", [1.5, -2]),
        (3, b"\x01\x00\x00\x00\xff\xff\xff\xff", [1, -1]),
        (10, b"\x02\x00", [True, False]),
        (14, b"\xc0\x3f\x00\xc0", [1.5, -2]),
        (19, b"\x00\x3e\x00\xc0", [1.5, -2]),
        (24, b"\x3e\xc0", [1.5, -2]),
    ],
)
def test_content_is_read_as_little_endian(dtype: int, content: bytes, expected: list[Any]) -> None:
    read = tftensor.from_proto(tensor(dtype, (2, 1), tensor_content=content))
    assert read.tolist() == [[item] for item in expected]
    read[0, 0] = read[1, 0]


def test_float8_without_infinity_has_its_extremes() -> None:
    read = tftensor.from_proto(tensor(25, (4,), float8_val=b"\x7e\x01\x7f\x80"))
    assert read[0] == 448
    assert read[1] == 2.0**-9
    assert np.isnan(read[2])
    assert np.signbit(read[3])


def test_short_list_repeats_its_last_value() -> None:
    assert tftensor.from_proto(tensor(1, (2, 2), float_val=[1, 2])).tolist() == [[1, 2], [2, 2]]
    assert tftensor.from_proto(tensor(7, (3,), string_val=[b"a"])).tolist() == [b"a"] * 3
    assert tftensor.from_proto(tensor(8, (3,), scomplex_val=[1, 2])).tolist() == [1 + 2j] * 3


def test_list_without_values_is_zeros() -> None:
    assert tftensor.from_proto(tensor(3, (2,))).tolist() == [0, 0]
    assert tftensor.from_proto(tensor(7, (1,))).tolist() == [b""]


def test_tensor_without_a_shape_is_a_single_value() -> None:
    read = tftensor.from_proto(tensor(2, double_val=[2.5]))
    assert read.shape == ()
    assert read == 2.5


def test_strings_are_bytes_as_tensorflow_gives_them() -> None:
    read = tftensor.from_proto(tensor(7, (2, 1), string_val=["é".encode(), b"\xff"]))
    assert read.dtype == object
    assert read.tolist() == [["é".encode()], [b"\xff"]]


@pytest.mark.parametrize(
    "array", [np.array([["a", "é"]]), np.array([b"a", b"b"]), np.array(["a", b"b"], dtype=object), np.array("x")]
)
def test_array_of_texts_is_written_as_strings(array: Any) -> None:
    read = tftensor.from_proto(tftensor.to_proto(array))
    assert read.shape == array.shape
    assert read.ravel().tolist() == [i if isinstance(i, bytes) else i.encode() for i in array.ravel().tolist()]


def test_array_is_written_in_the_form_that_tensorflow_writes() -> None:
    assert tftensor.to_json(np.array([[1.5, 2.5]], np.float32)) == {
        "dtype": "DT_FLOAT",
        "tensorShape": {"dim": [{"size": "1"}, {"size": "2"}]},
        "tensorContent": "AADAPwAAIEA=",
    }
    assert tftensor.to_json(np.array([7])) == {
        "dtype": "DT_INT64",
        "tensorShape": {"dim": [{"size": "1"}]},
        "int64Val": ["7"],
    }
    assert tftensor.to_json(np.array(1.5, np.float16)) == {"dtype": "DT_HALF", "tensorShape": {}, "halfVal": [15872]}


@pytest.mark.parametrize(
    "form",
    [
        {"dtype": "DT_DOUBLE", "tensorShape": {"dim": [{"size": "2"}]}, "doubleVal": [1, 2.5]},
        {"dtype": 2, "tensor_shape": {"dim": [{"size": 2}]}, "double_val": ["1", 2.5]},
        {"dtype": "DT_DOUBLE", "tensorShape": {"dim": [{"size": 2}]}, "tensorContent": "AAAAAAAA8D8AAAAAAAAEQA=="},
    ],
)
def test_json_is_read_in_all_forms_of_protobuf(form: dict[str, Any]) -> None:
    assert tftensor.from_json(form).tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (tensor(1, (3,), tensor_content=b"1234"), "tensor_content has 4 bytes, and 3 elements of DT_FLOAT need 12"),
        (tensor(1, (1,), float_val=[1, 2]), "float_val has 2 elements, and its shape needs 1"),
        (tensor(1, (-1,), float_val=[1]), "negative size"),
        (tensor(4, (1,), int_val=[256]), "do not fit DT_UINT8"),
        (tensor(19, (1,), half_val=[-1]), "do not fit DT_HALF"),
        (tensor(8, (1,), scomplex_val=[1]), "pairs"),
        (tensor(7, (1,), tensor_content=b"x"), "string_val"),
        (tensor(20, (1,)), "dtype DT_RESOURCE has no array"),
        (tensor(0), "dtype DT_INVALID has no array"),
        (tensor(99), "dtype 99 has no array"),
        (tensor(1, (2**40,), float_val=[1]), "more than are repeated"),
        (tensor(1, (0, 2**40)), "too large for none"),
        (tensor(1, (1,) * 70, float_val=[1]), "70 dimensions"),
        (tensor(1, tensor_shape={"unknown_rank": True}), "unknown"),
    ],
)
def test_malformed_tensor_is_refused_with_the_reason(proto: Any, message: str) -> None:
    with pytest.raises(SeldonMicroserviceException, match=message) as failure:
        tftensor.from_proto(proto)
    assert failure.value.status_code == 400
    with pytest.raises(SeldonMicroserviceException, match=message):
        tftensor.from_json(json_format.MessageToDict(proto))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [field.json_name for field in TensorProto.DESCRIPTOR.fields] + ["other"]


def status(read: Callable[[Any], Any], value: Any) -> int:
    try:
        assert isinstance(read(value), np.ndarray)
    except SeldonMicroserviceException as exc:
        return exc.status_code
    return 200


@given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["DT_FLOAT", {"dim": [{"size": 2}]}])))
def test_any_json_is_read_or_refused(value: Any) -> None:
    assert status(tftensor.from_json, value) in (200, 400)


@given(st.binary(max_size=40))
def test_any_tensor_is_read_or_refused(data: bytes) -> None:
    proto = TensorProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        return
    assert status(tftensor.from_proto, proto) in (200, 400)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["2020-01-01"], "M8[D]"), "no datetime64"),
        (np.array([1.5, None], dtype=object), "one of them is float"),
        (np.array(["\ud800"]), "not valid Unicode"),
    ],
)
def test_array_that_tensorflow_has_no_type_for_is_refused(array: Any, message: str) -> None:
    with pytest.raises(SeldonMicroserviceException, match=message) as failure:
        tftensor.to_proto(array)
    assert failure.value.status_code == 500
