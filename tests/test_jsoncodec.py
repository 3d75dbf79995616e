"""What every answer, record and spec looks like as JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import types
import uuid
from collections import deque, namedtuple
from pathlib import PurePosixPath
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from servegraph.jsoncodec import JSONDecodeError, check_finite, dumps, loads

Point = namedtuple("Point", ["x", "y"])


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    size: object
    colour: Colour = Colour.RED


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
_VALUES = st.recursive(_SCALARS | _TEXT, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner), max_leaves=25)


@given(_VALUES)
def test_dumps_of_plain_values_read_back_are_equal(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert loads(dumps(value, indent=True, sort_keys=True)) == value
    assert dumps(value, refuse_nan=True) == dumps(value)


@given(_VALUES)
def test_dumps_agrees_with_the_standard_library(value: Any) -> None:
    assert json.loads(dumps(value)) == value
    assert loads(json.dumps(value)) == value


@given(st.lists(st.floats(width=64)))
def test_dumps_of_any_floats_is_valid_json_with_null_for_what_is_not_finite(values: list[float]) -> None:
    expected = [v if math.isfinite(v) else None for v in values]
    assert loads(dumps(values)) == expected
    assert loads(dumps(np.array(values, dtype="float64"))) == expected
    assert loads(dumps({"series": pd.Series(values, dtype="float64")})) == {"series": expected}


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3), min_size=1))
@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<i8", "<f8", ">f8"])
def test_dumps_of_arrays_in_any_layout_is_their_rows(dtype: str, rows: list[list[int]]) -> None:
    array = np.array(rows, dtype=dtype)
    assert loads(dumps(array)) == rows
    assert loads(dumps(array.T)) == [list(column) for column in zip(*rows, strict=True)]
    assert loads(dumps([array[0], array[0, 0]])) == [rows[0], rows[0][0]]


@given(st.datetimes(timezones=st.none() | st.timezones() | st.just(dt.UTC)))
def test_dumps_of_a_datetime_reads_back_as_the_same_moment(moment: dt.datetime) -> None:
    written = dt.datetime.fromisoformat(loads(dumps(moment)))
    offset = moment.utcoffset()
    if offset is None or offset.seconds % 60 == 0:  # JSON's offsets have no seconds
        assert written.replace(tzinfo=None) == moment.replace(tzinfo=None)


@given(st.integers(2**64, 2**200) | st.integers(-(2**200), -(2**63) - 1))
def test_dumps_of_an_integer_beyond_64_bits_keeps_every_digit(value: int) -> None:
    assert json.loads(dumps({"n": [value]})) == {"n": [value]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(np.float32(0.5), 0.5, id="numpy float"),
        pytest.param(np.longdouble(0.5), 0.5, id="numpy long double"),
        pytest.param(np.bool_(True), True, id="numpy bool"),
        pytest.param(np.str_("a"), "a", id="numpy text"),
        pytest.param(np.array(3), 3, id="array without dimensions"),
        pytest.param(np.array([]), [], id="empty array"),
        pytest.param(np.array(["a", "b"]), ["a", "b"], id="text array"),
        pytest.param(np.array([1, "a", None, np.nan], dtype=object), [1, "a", None, None], id="object array"),
        pytest.param(np.array([1.5], dtype="float16"), [1.5], id="half floats"),
        pytest.param({np.int64(1): np.int64(2)}, {"1": 2}, id="numpy keys"),
        pytest.param({Colour.RED: 1, 2: 3}, {"red": 1, "2": 3}, id="enum and int keys"),
        pytest.param(np.datetime64("2024-05-06"), "2024-05-06T00:00:00", id="numpy date"),
        pytest.param(np.datetime64("NaT", "s"), None, id="numpy missing time"),
        pytest.param(np.timedelta64(1500, "ms"), 1.5, id="numpy span"),
        pytest.param(pd.Timestamp("2024-05-06T07:08:09.5Z"), "2024-05-06T07:08:09.500000+00:00", id="timestamp"),
        pytest.param(pd.Timedelta("90s"), 90.0, id="timedelta of pandas"),
        pytest.param([pd.NaT, pd.NA], [None, None], id="missing values of pandas"),
        pytest.param(pd.Series([1, None], dtype="Int64"), [1, None], id="nullable series"),
        pytest.param(pd.Series(["a"], dtype="category"), ["a"], id="categories"),
        pytest.param(pd.Index([1, 2]), [1, 2], id="index"),
        pytest.param(dt.date(2024, 5, 6), "2024-05-06", id="date"),
        pytest.param(dt.time(7, 8), "07:08:00", id="time"),
        pytest.param(dt.time(7, 8, tzinfo=dt.UTC), "07:08:00+00:00", id="time with a zone"),
        pytest.param(dt.timedelta(seconds=1.5), 1.5, id="span"),
        pytest.param(uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001", id="uuid"),
        pytest.param(decimal.Decimal("1.0"), 1, id="whole decimal"),
        pytest.param(decimal.Decimal("1.25"), 1.25, id="decimal"),
        pytest.param([decimal.Decimal("nan"), decimal.Decimal("-inf")], [None, None], id="decimals not finite"),
        pytest.param({10, 9, 1}, [1, 9, 10], id="set"),
        pytest.param(frozenset({"a", 1}), ["a", 1], id="set of several types"),
        pytest.param(b"abc", "abc", id="bytes of text"),
        pytest.param(b"\xff\x00", "/wA=", id="other bytes"),
        pytest.param(Point(1, np.int64(2)), [1, 2], id="named tuple"),
        pytest.param(Box(np.array([1])), {"size": [1], "colour": "red"}, id="dataclass"),
        pytest.param(Box(2**64), {"size": 2**64, "colour": "red"}, id="dataclass the slow way"),
        pytest.param(types.MappingProxyType({"a": 1}), {"a": 1}, id="read-only mapping"),
        pytest.param([deque([1]), range(2), {"k": 1}.keys()], [[1], [0, 1], ["k"]], id="other sequences"),
        pytest.param(PurePosixPath("a/b"), "a/b", id="path"),
    ],
)
def test_dumps_of_a_special_value_is(value: object, expected: object) -> None:
    assert json.loads(dumps(value)) == expected
    assert json.loads(dumps({"in": [value]})) == {"in": [expected]}


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s", "m", "h", "D", "M", "Y"])
def test_dumps_of_a_time_array_has_null_for_what_is_missing(unit: str) -> None:
    times = np.array(["1970-01-01", "NaT"], dtype=f"datetime64[{unit}]")
    assert loads(dumps({"t": times})) == {"t": ["1970-01-01T00:00:00", None]}


def test_dumps_of_a_frame_is_its_rows() -> None:
    frame = pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2024-01-01", None]), "x": [0.5, np.nan]})
    assert loads(dumps(frame)) == [
        {"a": 1, "t": "2024-01-01T00:00:00", "x": 0.5},
        {"a": 2, "t": None, "x": None},
    ]


def test_dumps_options_sort_and_indent() -> None:
    assert dumps({"b": 1, "a": 2}, sort_keys=True) == b'{"a":2,"b":1}'
    assert dumps({"a": 2}, indent=True) == b'{\n  "a": 2\n}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({"a": [1, object()]}, r"\$\.a\[1\]: builtins\.object cannot be written as JSON", id="object"),
        pytest.param({"a": {(1, 2): 3}}, r"\$\.a has the key \(1, 2\)", id="tuple key"),
        pytest.param([10**400], r"\$\[0\] is an integer of 1329 bits", id="huge integer"),
        pytest.param(np.array([1j]), r"\$\[0\]: builtins\.complex", id="complex"),
        pytest.param(pd.DataFrame, r"\$: builtins\.type", id="a class"),
        pytest.param("\ud800", "surrogates", id="half a character"),
    ],
)
def test_dumps_of_what_has_no_json_names_the_place(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        dumps(value)


def test_dumps_of_a_cycle_is_an_error_not_a_hang() -> None:
    cycle: list[object] = []
    cycle += [cycle, cycle]
    with pytest.raises(TypeError, match="nested too deeply"):
        dumps(cycle)
    with pytest.raises(ValueError, match="nested too deeply"):
        check_finite(cycle)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        pytest.param({"a": [0.0, math.nan, math.inf]}, r"\$\.a\[1\] is nan", id="list"),
        pytest.param(np.array([[1.0, 2.0], [3.0, -np.inf]]), r"\$\[1\]\[1\] is -inf", id="array"),
        pytest.param([np.float32("nan")], r"\$\[0\] is nan", id="numpy scalar"),
        pytest.param(np.array([1, np.nan], dtype=object), r"\$\[1\] is nan", id="object array"),
        pytest.param({"o": pd.DataFrame({"x": [1.0, np.nan]})}, r"\$\.o\[1\]\.x is nan", id="frame"),
        pytest.param({"o": pd.Series([np.nan])}, r"\$\.o\[0\] is nan", id="series"),
        pytest.param(Box(math.inf), r"\$\.size is inf", id="dataclass"),
        pytest.param([decimal.Decimal("inf")], r"\$\[0\] is inf", id="decimal"),
        pytest.param([{math.nan}], r"\$\[0\]\[0\] is nan", id="set"),
    ],
)
def test_dumps_when_nan_is_refused_names_the_place(value: object, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        dumps(value, refuse_nan=True)


def test_dumps_when_nan_is_refused_takes_null_and_missing_values() -> None:
    value = {"a": None, "b": [pd.NaT], "c": np.array([1, 2]), "d": "null", "e": np.array([], dtype="f4")}
    assert loads(dumps(value, refuse_nan=True)) == {"a": None, "b": [None], "c": [1, 2], "d": "null", "e": []}


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a":Infinity}', "[1,]", "'a'", b"\xff", '"\x00"', "[" * 5000])
def test_loads_of_what_is_not_json_is_one_error(text: str | bytes) -> None:
    with pytest.raises(JSONDecodeError):
        loads(text)
    assert issubclass(JSONDecodeError, ValueError)


@given(st.binary(max_size=64))
def test_loads_of_any_bytes_is_a_value_or_one_error(data: bytes) -> None:
    try:
        value = loads(data)
    except JSONDecodeError:
        return
    assert loads(dumps(value)) == value


def test_loads_reads_every_kind_of_buffer() -> None:
    assert loads(bytearray(b"[1]")) == loads(memoryview(b"[1]")) == loads("[1]") == [1]
