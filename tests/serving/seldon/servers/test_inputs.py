from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_array, as_numbers, as_table, columns_for, in_order, plain

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@contextlib.contextmanager
def refused_as_400() -> Iterator[None]:
    """Lets pass that a payload is refused, if the caller is blamed for it."""
    try:
        yield
    except SeldonMicroserviceException as exc:
        if exc.status_code != 400:
            raise


@given(JSON)
def test_any_payload_is_an_array_of_numbers_or_the_callers_fault(payload: Any) -> None:
    with refused_as_400():
        assert as_numbers(payload).dtype.kind in "biuf"


@given(JSON, st.lists(st.text(max_size=2), max_size=3))
def test_any_payload_is_a_table_with_the_models_columns_or_the_callers_fault(payload: Any, names: list[str]) -> None:
    with refused_as_400():
        assert list(as_table(payload, names, ["a", "b"]).columns) == ["a", "b"]


@given(st.permutations(["a", "b", "c", "more"]))
def test_columns_by_name_are_in_the_models_order(names: list[str]) -> None:
    row = np.array([[{"a": 1, "b": 2, "c": 3, "more": 4}[name] for name in names]])
    assert in_order(row, names, ["a", "b", "c"]).tolist() == [[1, 2, 3]]


def test_columns_for_goes_by_position_only_where_no_name_fits() -> None:
    assert columns_for(["x", "y"], ["a", "b"]) is None
    assert columns_for([], ["a"]) is None
    with pytest.raises(SeldonMicroserviceException, match="also needs the columns b"):
        columns_for(["a"], ["a", "b"])


def test_as_table_rows_as_objects_keep_a_type_for_each_column() -> None:
    table = as_table([{"b": "x", "a": 1}, {"a": 2, "b": "y", "more": 0}], [], ["a", "b"])
    assert table["a"].dtype == np.int64
    assert table.values.tolist() == [[1, "x"], [2, "y"]]
    with pytest.raises(SeldonMicroserviceException, match="the request has none of them"):
        as_table([{"z": 1}], [], ["a"])


def test_as_array_rows_of_different_lengths_are_the_callers_fault() -> None:
    with pytest.raises(SeldonMicroserviceException, match="the payload is no array"):
        as_array([[1, 2], [3]])


@given(JSON)
def test_plain_values_can_always_be_encoded(value: Any) -> None:
    jsoncodec.loads(jsoncodec.dumps(plain(value)))


def test_plain_takes_numpy_apart() -> None:
    found = plain({"a": np.float32(0.5), 1: np.array([1, 2]), "nan": math.nan, "t": (np.int64(3), None)})
    assert found == {"a": 0.5, "1": [1, 2], "nan": None, "t": [3, None]}
