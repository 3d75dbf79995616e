"""The Mahalanobis detector: its numbers are those of a computation over all rows at once."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegraph.jsoncodec import dumps, loads
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.outliers import MahalanobisDetector
from servegraph.serving.seldon.persistence import Persistence
from servegraph.serving.seldon.state_store import MemoryStore

NEVER_CLIP = {"start_clip": 10**9}


def usual(rows: int, seed: int = 0, columns: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns))
    return rng.normal(size=(rows, columns)) @ mixing + rng.normal(size=columns) * 5


@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    columns=st.integers(1, 5),
    offset=st.sampled_from([0.0, -1e3, 1e6]),
)
@settings(max_examples=40)
def test_moments_learnt_in_batches_are_those_of_all_rows(
    seed: int, sizes: list[int], columns: int, offset: float
) -> None:
    rows = usual(sum(sizes) + 1, seed, columns) + offset
    detector = MahalanobisDetector(**NEVER_CLIP)
    start = 0
    for size in [*sizes, 1]:
        detector.predict(rows[start : start + size])
        start += size
    assert detector.mean is not None
    assert detector.covariance is not None
    np.testing.assert_allclose(detector.mean, rows.mean(axis=0), rtol=1e-9)
    expected = np.cov(rows, rowvar=False).reshape(columns, columns)
    np.testing.assert_allclose(detector.covariance, expected, rtol=1e-6, atol=1e-9)


def test_score_is_the_squared_distance_of_scipy() -> None:
    distance = pytest.importorskip("scipy.spatial.distance", reason="comes with scikit-learn: pip install scipy")
    rows, new = usual(500), usual(20, seed=9)
    detector = MahalanobisDetector(n_components=3, **NEVER_CLIP)
    detector.predict(rows)
    inverse = np.linalg.inv(np.cov(rows, rowvar=False))
    expected = [distance.mahalanobis(row, rows.mean(axis=0), inverse) ** 2 for row in new]
    np.testing.assert_allclose(detector.score(new), expected, rtol=1e-8)


def test_score_looks_at_the_components_with_the_most_variance_only() -> None:
    rng = np.random.default_rng(1)
    detector = MahalanobisDetector(n_components=1, **NEVER_CLIP)
    detector.predict(rng.normal(size=(2000, 2)) * [10, 0.1])
    along, across = detector.score(np.array([[100.0, 0.0], [0.0, 5.0]]))
    assert along == pytest.approx(100, rel=0.1)
    assert across < 1


def test_row_far_away_is_an_outlier_and_the_input_is_let_through_unchanged() -> None:
    detector = MahalanobisDetector()
    for seed in range(5):
        detector.transform_input(usual(100, seed=0)[seed * 20 : seed * 20 + 20])
    rows = np.vstack([usual(100)[:2], usual(100)[:1] + 1000])
    assert detector.transform_input(rows, ["a", "b", "c"]) is rows
    tags = detector.tags()
    assert tags["outlier-predictions"] == [0, 0, 1]
    assert tags["is_outlier"] is True
    assert len(tags["outlierScore"]) == 3
    assert tags["outlierScore"][2] > 25
    told = {metric["key"]: metric["value"] for metric in detector.metrics()}
    assert told["observation"] == 103
    assert told["is_outlier"] == pytest.approx(1 / 3)
    assert told["threshold"] == 25
    assert told["nb_outliers"] / 103 == told["fraction_outliers"]
    assert told["outlier_score"] == pytest.approx(np.mean(tags["outlierScore"]))
    assert (detector.tags(), detector.metrics()) == ({}, [])


def test_outliers_are_clipped_so_that_they_do_not_become_usual() -> None:
    clipping, other = MahalanobisDetector(), MahalanobisDetector(**NEVER_CLIP)
    far = usual(1) + 1000
    for detector in (clipping, other):
        detector.predict(usual(200))
        for _ in range(5):
            detector.predict(far)
    assert clipping.score(far)[0] > 25
    assert other.score(far)[0] < clipping.score(far)[0]


def test_past_with_a_limit_gives_way_to_a_drift() -> None:
    drifting = MahalanobisDetector(max_n=50, **NEVER_CLIP)
    drifting.predict(usual(1000))
    drifting.predict(usual(500) + 40)
    assert drifting.mean is not None
    np.testing.assert_allclose(drifting.mean, usual(500).mean(axis=0) + 40, atol=1)


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[1.0, 2.0]] * 40], ids=["one row", "rows that are all the same"])
def test_score_without_any_variance_is_zero(rows: Any) -> None:
    detector = MahalanobisDetector()
    detector.predict(rows)
    assert detector.score([[9.0, 9.0]]).tolist() == [0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_row_that_holds_no_ordinary_number_is_an_outlier_and_teaches_nothing(bad: float) -> None:
    detector = MahalanobisDetector()
    detector.predict(usual(100))
    before = detector.mean
    detector.transform_input(np.array([[bad, 0, 0]]))
    assert detector.tags() == {"outlier-predictions": [1], "is_outlier": True, "outlierScore": [None]}
    assert "outlier_score" not in {metric["key"] for metric in detector.metrics()}
    np.testing.assert_array_equal(detector.mean, before)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a", "b", "c"]], "rows of numbers"),
        ([[1.0, 2.0]], "rows of 2 numbers; this outlier detector knows rows of 3"),
        (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\)"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
        ([[1], [1, 2]], "rows of numbers"),
        ("text", "rows of numbers"),
    ],
)
def test_input_that_cannot_be_scored_is_the_callers_fault(rows: Any, message: str) -> None:
    detector = MahalanobisDetector()
    detector.predict(usual(10))
    with pytest.raises(SeldonMicroserviceException, match=message) as caught:
        detector.transform_input(rows)
    assert caught.value.status_code == 400
    assert detector.tags() == {}


def test_input_without_rows_and_input_that_is_one_row_are_taken() -> None:
    detector = MahalanobisDetector()
    assert detector.predict([]).tolist() == []
    assert detector.metrics() == []
    assert detector.predict([1, 2, 3]).tolist() == [0]


def test_feedback_scores_what_was_predicted_against_labels() -> None:
    detector = MahalanobisDetector(roll_window=2)
    detector.predict(usual(200))
    rows = np.vstack([usual(200)[:3], usual(200)[:1] + 1000])
    seen = detector.mean
    detector.send_feedback(rows, [], 0.0, np.array([[1], [0], [0], [1]]), routing=None)
    told = {metric["key"]: metric["value"] for metric in detector.metrics()}
    counts = [told[key] for key in ("true_negative", "false_positive", "false_negative", "true_positive")]
    assert counts == [2, 0, 1, 1]
    assert (told["precision_tot"], told["recall_tot"], told["accuracy_tot"]) == (1, 0.5, 0.75)
    assert told["f1_tot"] == pytest.approx(2 / 3)
    assert told["f2_tot"] == pytest.approx(5 / 9)
    assert (told["recall_roll"], told["accuracy_roll"], told["label"]) == (1, 1, 0.5)
    assert (told["nb_labels_tot"], told["nb_outliers_tot"], told["nb_labels_roll"]) == (2, 1, 1)
    np.testing.assert_array_equal(detector.mean, seen)


@pytest.mark.parametrize("truth", [None, [], np.array([])])
def test_feedback_without_labels_changes_nothing(truth: Any) -> None:
    detector = MahalanobisDetector()
    detector.send_feedback(usual(2), [], 1.0, truth)
    assert detector.metrics() == []


@pytest.mark.parametrize(
    ("truth", "message"), [([1], "1 labels for 2 rows"), ([0, 2], "neither 0 nor 1"), (["a", "b"], "neither 0 nor 1")]
)
def test_feedback_with_labels_that_do_not_fit_is_the_callers_fault(truth: Any, message: str) -> None:
    with pytest.raises(SeldonMicroserviceException, match=message):
        MahalanobisDetector().send_feedback(usual(2), [], 1.0, truth)


def test_observations_of_eight_threads_are_counted_exactly() -> None:
    detector = MahalanobisDetector(**NEVER_CLIP)
    rows = usual(800)

    def observe(which: int) -> None:
        for row in rows[which::8]:
            detector.predict(row)

    threads = [threading.Thread(target=observe, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert detector.get_state()["observed"] == detector.get_state()["learnt"]["seen"] == 800
    assert detector.mean is not None
    np.testing.assert_allclose(detector.mean, rows.mean(axis=0), rtol=1e-9)


def test_state_goes_on_where_it_was() -> None:
    first, store = MahalanobisDetector(), MemoryStore()
    first.predict(usual(200))
    first.send_feedback(usual(2), [], 0.0, [0, 1])
    assert Persistence(first, store, "k").save()
    second = MahalanobisDetector()
    Persistence(second, store, "k").restore()
    assert second.get_state() == first.get_state()
    np.testing.assert_array_equal(second.score(usual(5, seed=3)), first.score(usual(5, seed=3)))


def test_state_that_is_merged_is_that_of_all_rows() -> None:
    rows = usual(300)
    before, since = MahalanobisDetector(**NEVER_CLIP), MahalanobisDetector(**NEVER_CLIP)
    before.predict(rows[:200])
    since.predict(rows[200:])
    since.merge_state(loads(dumps(before.get_state())))
    assert since.covariance is not None
    np.testing.assert_allclose(since.covariance, np.cov(rows, rowvar=False), rtol=1e-9)
    assert since.get_state()["observed"] == 300


def test_state_of_another_width_is_refused() -> None:
    detector = MahalanobisDetector()
    detector.predict(usual(10))
    other = MahalanobisDetector()
    other.predict(usual(10, columns=2))
    with pytest.raises(ValueError, match="rows of 2 numbers, not 3"):
        detector.merge_state(other.get_state())


@pytest.mark.parametrize(
    "arguments", [{"threshold": "inf"}, {"n_components": 0}, {"n_stdev": 0}, {"roll_window": 0}], ids=str
)
def test_detector_with_a_wrong_argument_names_it(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MahalanobisDetector(**arguments)
