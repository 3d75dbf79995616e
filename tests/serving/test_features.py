"""Feature sources and imputation, by themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from servegraph.errors import GraphError, StepError, UnprocessableError
from servegraph.serving.features import (
    CallableSource,
    DataFrameSource,
    DictSource,
    FeatureSource,
    as_source,
    as_values,
    is_missing,
    read_policy,
)

PEOPLE: dict[int, dict[str, Any]] = {
    1: {"age": 30, "town": "Ulm"},
    2: {"age": None, "town": "Bonn"},
    3: {"age": 40.0, "town": None},
}


def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": ["a", "b"], "age": [30, 40], "score": [0.5, np.nan]})


def test_dict_source_gives_rows_in_the_order_asked_and_none_for_strangers() -> None:
    source = DictSource(PEOPLE, "id")
    assert source.get([{"id": 3}, {"id": 9}, {"id": 1}]) == [PEOPLE[3], None, PEOPLE[1]]
    assert source.features == ["age", "town"]
    assert isinstance(source, FeatureSource)


def test_dict_source_with_several_keys_looks_up_tuples() -> None:
    source = DictSource({("a", 1): [5]}, ["x", "y"], features=["f"])
    assert source.get([{"y": 1, "x": "a"}]) == [[5]]
    with pytest.raises(UnprocessableError, match=r"\$.inputs\[0\].*needs x, y; missing: y"):
        source.get([{"x": "a"}])
    with pytest.raises(UnprocessableError, match="list is no key"):
        source.get([{"x": [1], "y": 1}])


def test_dict_source_statistics_are_those_of_numbers_that_are_there() -> None:
    described = DictSource(PEOPLE, "id").statistics()
    assert list(described) == ["age"]
    assert described["age"] == {
        "mean": 35.0, "max": 40.0, "min": 30.0, "std": pytest.approx(math.sqrt(50)), "count": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("by_index", [True, False])
def test_data_frame_source_gives_plain_values(by_index: bool) -> None:
    source = DataFrameSource(frame().set_index("id")) if by_index else DataFrameSource(frame(), "id")
    found = source.get([{"id": "a"}, {"id": "x"}])
    assert found == [(30, 0.5), None]
    assert source.features == ["age", "score"]
    assert source.statistics()["score"]["count"] == 1


def test_data_frame_source_with_several_keys_and_chosen_features() -> None:
    data = frame().assign(n=[1, 2])
    source = DataFrameSource(data, ["id", "n"], features=["score"])
    assert source.get([{"id": "a", "n": 1}]) == [(0.5,)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataFrameSource(frame(), "key"), "no key column 'key'"),
        (lambda: DataFrameSource(frame()), "index has no name"),
        (lambda: DataFrameSource(pd.concat([frame(), frame()]), "id"), "several rows for one key"),
        (lambda: DataFrameSource(frame(), "id", ["x"]), "no column 'x'"),
        (lambda: DictSource({}, []), "at least one key"),
    ],
)
def test_source_declared_wrongly_is_refused(build: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build()


def source_of_one(entities: list[dict[str, Any]]) -> list[list[int]]:
    return [[1] for _ in entities]


class Lookup:
    def get(self, entities: list[dict[str, Any]]) -> list[list[int]]:
        return source_of_one(entities)


def test_as_source_takes_functions_objects_classes_and_names() -> None:
    for given in (source_of_one, Lookup(), Lookup, CallableSource(source_of_one), f"{__name__}:Lookup"):
        assert as_source(given, "r").get([{}]) == [[1]]


@pytest.mark.parametrize("given", [5, {"a": 1}, frame()])
def test_as_source_refuses_what_is_none_and_says_what_to_give(given: Any) -> None:
    with pytest.raises(GraphError, match="DataFrameSource"):
        as_source(given, "r")


def test_imputation_fills_constants_statistics_and_the_rest() -> None:
    source = DictSource(PEOPLE, "id")
    filled = read_policy({"age": "$mean", "*": "?"}, source, "r")
    assert filled.fill([None, math.nan], ["age", "town"]) == [35.0, "?"]
    assert filled.fill([0, ""], ["age", "town"]) == [0, ""]  # falsy is not missing
    numbers = read_policy({"*": "$max"}, source, "r")
    assert numbers.fill([None, None], ["age", "town"]) == [40.0, None]
    assert not numbers.covers(["age", "town"])
    assert read_policy(None, source, "r").fill([None], ["age"]) == [None]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"age": "$median"}, "valid: .count, .max"),
        ({"x": 1}, "'x', which is no feature"),
        ({"town": "$mean"}, "has no statistics"),
    ],
)
def test_impute_policy_that_makes_no_sense_is_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_policy(policy, DictSource(PEOPLE, "id"), "r")


def test_impute_policy_with_statistics_of_a_source_without_them_is_refused() -> None:
    with pytest.raises(GraphError, match=r"no statistics\(\) method"):
        read_policy({"*": "$mean"}, Lookup(), "r")


def test_row_that_does_not_fit_the_features_is_refused() -> None:
    assert as_values({"b": 1, "a": 2}, ["a", "b"]) == [2, 1]
    with pytest.raises(StepError, match="2 values for 1 features"):
        as_values([1, 2], ["a"])
    with pytest.raises(StepError, match="gave str"):
        as_values("ab", ["a", "b"])


@pytest.mark.parametrize(
    ("value", "missing"),
    [(None, True), (math.nan, True), (np.float64("nan"), True), (pd.NA, True), (pd.NaT, True), (0, False), ("", False)],
)
def test_is_missing(value: Any, missing: bool) -> None:
    assert is_missing(value) is missing
