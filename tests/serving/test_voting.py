"""The votes against plain references, and what holds however the models are ordered."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import GraphError, StepError
from servegraph.serving.voting import best_class, infer_vote_type, majority, mean, plain_rows, read_weights, soft

LABELS = st.sampled_from(["cat", "dog", "", -1, 0, 7, False, None, ("a", 1)])
WEIGHTS = st.integers(0, 50)
FLOATS = st.floats(-1e6, 1e6)


@st.composite
def elections(draw: st.DrawFn, values: Any) -> tuple[list[list[Any]], list[int]]:
    """Rows of one value for each model, and the models' weights, not all 0."""
    models = draw(st.integers(1, 6))
    weights = draw(st.lists(WEIGHTS, min_size=models, max_size=models).filter(any))
    rows = draw(st.lists(st.lists(values, min_size=models, max_size=models), max_size=4))
    return rows, weights


@given(elections(LABELS))
def test_majority_is_the_first_label_with_the_most_weight(election: tuple[list[list[Any]], list[int]]) -> None:
    rows, weights = election
    for row, winner in zip(rows, majority(rows, weights), strict=True):
        support = [sum(w for label, w in zip(row, weights, strict=True) if label == mine) for mine in row]
        assert winner == row[support.index(max(support))]


@given(elections(LABELS), st.randoms())
def test_majority_without_a_tie_does_not_depend_on_the_order_of_the_models(
    election: tuple[list[list[Any]], list[int]], random: Any
) -> None:
    rows, weights = election
    order = list(range(len(weights)))
    random.shuffle(order)
    shuffled = majority([[row[i] for i in order] for row in rows], [weights[i] for i in order])
    for row, one, other in zip(rows, majority(rows, weights), shuffled, strict=True):
        support: dict[Any, int] = {}
        for label, weight in zip(row, weights, strict=True):
            support[label] = support.get(label, 0) + weight
        if list(support.values()).count(max(support.values())) == 1:
            assert one == other


@given(elections(FLOATS), st.randoms())
def test_mean_is_the_exact_mean_whatever_the_order_of_the_models(
    election: tuple[list[list[float]], list[int]], random: Any
) -> None:
    rows, weights = election
    order = list(range(len(weights)))
    random.shuffle(order)
    means = mean(rows, weights)
    assert means == mean([[row[i] for i in order] for row in rows], [weights[i] for i in order])
    for row, found in zip(rows, means, strict=True):
        exact = sum(w * Fraction(v) for w, v in zip(weights, row, strict=True)) / sum(weights)
        assert found == pytest.approx(float(exact), rel=1e-12, abs=1e-9)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_soft_vote_of_equal_weights_is_the_mean_of_each_class(rows: list[list[float]]) -> None:
    found = soft([rows], [1] * len(rows))[0]
    assert found == pytest.approx(np.mean(rows, axis=0).tolist())


def test_mean_of_rows_with_several_values_is_taken_value_by_value() -> None:
    assert mean([([1.0, 2.0], [3.0, 6.0])], [1, 1]) == [[2.0, 4.0]]
    with pytest.raises(StepError, match="differ in length"):
        mean([([1.0], [3.0, 6.0])], [1, 1])


def test_mean_with_infinities_and_nan_is_what_floats_say() -> None:
    assert mean([(math.inf, 1.0)], [1, 1]) == [math.inf]
    assert math.isnan(mean([(math.inf, -math.inf)], [1, 1])[0])
    assert mean([(math.nan, 2.0)], [0, 1]) == [2.0]


def test_votes_of_the_wrong_kind_of_prediction_say_what_to_set() -> None:
    with pytest.raises(StepError, match="vote_type='classification'"):
        mean([("a", "b")], [1, 1])
    with pytest.raises(StepError, match="needs labels, not list"):
        majority([([1], [2])], [1, 1])  # type: ignore[list-item]
    with pytest.raises(StepError, match="class probabilities"):
        soft([(0.5, 0.5)], [1, 1])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([1, 2], "classification"), (["a"], "classification"), ([True], "classification"), ([1, 2.0], "regression")],
)
def test_vote_type_is_inferred_from_what_is_predicted(rows: list[Any], expected: str) -> None:
    assert infer_vote_type({"m": rows, "n": [1]}) == expected


def test_vote_type_that_cannot_be_told_names_the_model() -> None:
    with pytest.raises(StepError, match="model 'm' predicts list"):
        infer_vote_type({"m": [[1.0]]})
    with pytest.raises(StepError, match="set vote_type"):
        infer_vote_type({"m": [1.0], "n": ["a"]})


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (np.array([1, 2]), [1, 2]),
        (np.array([[1], [2]]), [1, 2]),
        ([np.float32(0.5), np.int64(3)], [0.5, 3]),
        ([[1, 2], np.array([3, 4])], [[1, 2], [3, 4]]),
        ((1, "a"), [1, "a"]),
        ("text", None),
        ({"a": 1}, None),
    ],
)
def test_plain_rows_makes_python_values_of_what_models_return(value: Any, rows: Any) -> None:
    assert plain_rows(value) == rows


# -- weights --------------------------------------------------------------------------------------------------------


def test_weights_as_decimals_tie_where_their_decimals_do() -> None:
    weights = read_weights({"a": 0.1, "b": 0.2, "c": 0.3}, ["a", "b", "c"], 0, "e")
    assert majority([("x", "x", "y")], weights.of(["a", "b", "c"])) == ["x"]
    assert majority([("y", "x", "x")], weights.of(["c", "a", "b"])) == ["y"]  # a tie: the first


@given(st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1e6, allow_subnormal=False), min_size=1))
def test_weights_normalised_are_one_together_and_in_proportion(given_weights: dict[str, float]) -> None:
    models = sorted(given_weights)
    if not any(given_weights.values()):
        with pytest.raises(GraphError, match="all 0"):
            read_weights(given_weights, models, 0, "e")
        return
    normalised = read_weights(given_weights, models, 0, "e").normalised(models)
    assert math.fsum(normalised) == pytest.approx(1)
    total = math.fsum(given_weights.values())
    assert normalised == pytest.approx([given_weights[m] / total for m in models])


def test_weights_too_fine_for_whole_floats_still_give_a_mean() -> None:
    weights = read_weights({"a": 1e-300, "b": 1.0}, ["a", "b"], 0, "e")
    assert mean([(5.0, 7.0)], weights.of(["a", "b"])) == [7.0]


@pytest.mark.parametrize(
    ("weights", "missing", "message"),
    [
        ({"x": 1}, 0, "'x', which is no route"),
        ({"m": 1}, 0, "'m', which is no route"),  # two versions of m
        ({"a": -1}, 0, "0 or above"),
        ({"a": math.nan}, 0, "0 or above"),
        ({"a": math.inf}, 0, "0 or above"),
        ({"a": True}, 0, "0 or above"),
        ({"a": "1"}, 0, "0 or above"),
        ({"a": 0}, 0, "all 0"),
        ({"a": 1}, None, "leave out m:1, m:2"),
        ([1], 0, "mapping"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: Any, missing: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_weights(weights, ["a", "m:1", "m:2"], missing, "e")


def test_weights_name_a_model_by_its_only_version_and_fill_in_the_missing_weight() -> None:
    weights = read_weights({"m": 3}, ["m:1", "a"], 1, "e")
    assert weights.normalised(["m:1", "a"]) == [0.75, 0.25]
    assert weights.given == {"m": 3}


def test_best_class_is_the_first_of_the_most_probable() -> None:
    assert best_class([0.2, 0.4, 0.4], None) == 1
    assert best_class([0.2, 0.4, 0.4], ["a", "b", "c"]) == "b"
    with pytest.raises(StepError, match="3 probabilities a row for 2 classes"):
        best_class([0.2, 0.4, 0.4], ["a", "b"])
    with pytest.raises(StepError, match="no probabilities"):
        best_class([], None)
