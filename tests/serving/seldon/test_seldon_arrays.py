"""Arrays of messages: what comes in, what is refused, and how a result is encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.serving.seldon.arrays import (
    MAX_EMPTY,
    array_of,
    array_of_request,
    default_names,
    in_shape,
    is_array,
    plain_result,
    reshaped,
    result_encoding,
    shape_of,
    tensor_in_shape,
)
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Message


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([[1, 2], [3, 4]], "int64", [[1, 2], [3, 4]]),
        ([1, 2.5], "float64", [1.0, 2.5]),
        ([True, False], "bool", [True, False]),
        ([1, "a"], "<U21", ["1", "a"]),
        (["a", "bc"], "<U2", ["a", "bc"]),
        ([1, None], "object", [1, None]),
        ([{"a": 1}], "object", [{"a": 1}]),
        ([], "float64", []),
        ([[], []], "float64", [[], []]),
        ([2**63], "uint64", [2**63]),
    ],
)
def test_list_becomes_the_array_that_numpy_finds_for_it(values: Any, dtype: str, expected: Any) -> None:
    for make in (array_of, array_of_request):
        array = make(values)
        assert (array.dtype, array.tolist()) == (np.dtype(dtype), expected)


@pytest.mark.parametrize("values", [[[1], [2, 3]], [[1], 2], [[[1]], [[2], [3]]]])
def test_list_that_is_not_rectangular_is_refused(values: Any) -> None:
    for make in (array_of, array_of_request):
        with pytest.raises(SeldonMicroserviceException) as caught:
            make(values)
        assert caught.value.status_code == 400
        assert (
            str(caught.value) == "data.ndarray is not rectangular: all rows, at each level, must have the same length"
        )


@pytest.mark.parametrize(
    ("values", "shape", "expected"),
    [
        ([1, 2, 3, 4], [2, 2], [[1, 2], [3, 4]]),
        ([1, 2], [2], [1, 2]),
        ([7], [], 7),
        ([7], [1, 1, 1], [[[7]]]),
        ([], [0, 3], []),
        ([], [0], []),
        (["a", "b"], [2, 1], [["a"], ["b"]]),
    ],
)
def test_flat_list_is_put_into_its_shape(values: Any, shape: list[int], expected: Any) -> None:
    array = reshaped(values, shape)
    assert (array.tolist(), list(array.shape)) == (expected, shape)


NEGATIVE = "data.tensor has a negative size in its shape"


@pytest.mark.parametrize(
    ("values", "shape", "problem"),
    [
        ([1, 2, 3], [2, 2], "data.tensor has 3 values, and its shape [2, 2] needs 4"),
        ([1, 2, 3], [1, 1], "data.tensor has 3 values, and its shape [1, 1] needs 1"),
        ([1, 1, 1], [-1, 2], f"{NEGATIVE} [-1, 2] that does not follow from its 3 values"),
        ([1, 1], [-2, -1], f"{NEGATIVE} [-2, -1] that does not follow from its 2 values"),
        ([1], [-1, -1], f"{NEGATIVE} [-1, -1] that does not follow from its 1 values"),
        ([], [0, -1], f"{NEGATIVE} [0, -1] that does not follow from its 0 values"),
        ([], [0, MAX_EMPTY + 1], "data.tensor has no values, and a shape of [0, 65537]: too large for none"),
        ([1], [1] * 100, "data.tensor has 100 dimensions, which are too many"),
        ([1], [3] * 20, f"data.tensor has 1 values, and its shape {[3] * 11!s} and so on needs {3**20}"),
        ([1], None, "data.tensor.shape must be a list of whole numbers"),
        ([1], [1.0], "data.tensor.shape must be a list of whole numbers"),
        ([1], [True], "data.tensor.shape must be a list of whole numbers"),
        ([1], ["1"], "data.tensor.shape must be a list of whole numbers"),
        (1, [1], "data.tensor.values must be a list"),
        (None, [1], "data.tensor.values must be a list"),
        ([[1]], [1], "data.tensor.values must be one flat list"),
        (
            [[1], [1, 2]],
            [3],
            "data.tensor.values is not rectangular: all rows, at each level, must have the same length",
        ),
    ],
)
def test_shape_that_does_not_fit_is_refused(values: Any, shape: Any, problem: str) -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        reshaped(values, shape)
    assert (str(caught.value), caught.value.status_code) == (problem, 400)


@given(st.lists(st.integers(-2, 5), max_size=4), st.integers(0, 30))
def test_any_shape_fits_or_is_refused(shape: list[int], count: int) -> None:
    flat = np.arange(count)
    fits = all(n >= 0 for n in shape) and int(np.prod(shape, dtype=int)) == count
    try:
        array = in_shape(flat, shape, "data.tensor")
    except SeldonMicroserviceException:
        assert not fits
    else:
        assert fits
        assert (list(array.shape), array.ravel().tolist()) == (shape, flat.tolist())


def test_text_that_would_make_a_huge_array_is_refused() -> None:
    long = "x" * 70_000
    few = array_of_request([long, "y"])
    assert few.shape == (2,)
    rows = [["a", "b"]] * 600
    assert array_of_request(rows).shape == (600, 2)
    for values in ([long] + ["y"] * 1100, [[long, "y"]] + [["y", "y"]] * 600):
        with pytest.raises(SeldonMicroserviceException, match="a text of 70000 characters") as caught:
            array_of_request(values)
        assert caught.value.status_code == 400
        assert "larger than 256 MiB" in str(caught.value)


def test_many_numbers_are_taken() -> None:
    assert array_of_request(list(range(5000))).sum() == sum(range(5000))
    assert array_of_request([[0.5] * 40] * 50).shape == (50, 40)
    assert array_of_request([None] * 2000).dtype == object


@pytest.mark.parametrize(
    ("value", "shape", "names"),
    [
        (np.ones((2, 3)), (2, 3), ["t:0", "t:1", "t:2"]),
        (np.ones((1, 2, 5)), (1, 2, 5), ["t:0", "t:1"]),
        (np.ones(3), (3,), []),
        (np.array(5.0), (), []),
        ([[1, 2], [3]], (2, 2), ["t:0", "t:1"]),
        ([np.ones(2)], (1, 2), ["t:0", "t:1"]),
        ([(1, 2)], (1, 2), ["t:0", "t:1"]),
        ([1, [2]], (2,), []),
        ([], (0,), []),
        ("text", (), []),
    ],
)
def test_columns_are_the_entries_of_axis_1(value: Any, shape: tuple[int, ...], names: list[str]) -> None:
    assert (shape_of(value), default_names(value)) == (shape, names)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, "a"), ([1, "a"], None)),
        (np.float32(0.5), ([0.5], None)),
        (np.int64(3), ([3], None)),
        (3, ([3], None)),
        (0.5, ([0.5], None)),
        (True, ([True], None)),
        (np.bool_(True), ([True], None)),
        ("text", ("text", None)),
        (None, (None, None)),
    ],
)
def test_single_values_become_lists(value: Any, expected: Any) -> None:
    assert plain_result(value) == expected


def test_frames_bring_the_names_of_their_columns() -> None:
    values, names = plain_result(pd.DataFrame({"a": [1, 2], 7: [0.5, 1.5]}))
    assert (values.tolist(), names) == ([[1.0, 0.5], [2.0, 1.5]], ["a", "7"])
    values, names = plain_result(pd.Series([1, 2]))
    assert (values.tolist(), names) == ([1, 2], None)


def test_arrays_and_lists_are_sent_as_data() -> None:
    values: list[Any] = [np.ones(1), [1], (1,), "x", {}, None, 1]
    assert [is_array(value) for value in values] == [True, True, *[False] * 5]


NUMBERS: list[Any] = [np.ones(1), np.ones(1, "int8"), np.ones(1, "uint64"), np.ones(1, "float16")]
OTHERS: list[Any] = [np.array([True]), np.array(["a"]), np.array([None]), np.array([b"a"]), np.array([1j])]


@pytest.mark.parametrize("encoding", ["tensor", "ndarray", "tftensor"])
def test_numbers_mirror_the_encoding_of_the_request(encoding: Encoding) -> None:
    request = Message("data", encoding=encoding)
    assert {result_encoding(array, request) for array in NUMBERS} == {encoding}
    complex_too = "tftensor" if encoding == "tftensor" else "ndarray"
    assert [result_encoding(array, request) for array in OTHERS] == [*["ndarray"] * 4, complex_too]


def test_numbers_without_an_encoding_to_mirror_are_tensors() -> None:
    for request in (Message("strData", "x"), Message("jsonData", {}), Message()):
        assert {result_encoding(array, request) for array in NUMBERS} == {"tensor"}
        assert {result_encoding(array, request) for array in OTHERS} == {"ndarray"}
    assert {result_encoding(array, Message("data")) for array in NUMBERS} == {"ndarray"}


@given(st.lists(st.integers(-1, 5), max_size=4), st.integers(0, 30))
def test_tensor_has_the_shape_that_numpy_makes_of_it(shape: list[int], count: int) -> None:
    flat = np.arange(count)
    try:
        expected = flat.reshape(shape)
    except ValueError:
        with pytest.raises(SeldonMicroserviceException):
            tensor_in_shape(flat, shape, "data.tensor")
        return
    array = tensor_in_shape(flat, shape, "data.tensor")
    assert (array.shape, array.tolist()) == (expected.shape, expected.tolist())
