"""The isolation forest detector: where its forest comes from, and what it says."""

from __future__ import annotations

import hashlib
import pickle
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.outliers import IsolationForestDetector

ROWS = np.random.default_rng(0).normal(size=(300, 2))
FAR = np.array([[50.0, -50.0]])


@pytest.fixture(scope="module")
def forest() -> Any:
    return IsolationForest(n_estimators=20, random_state=0).fit(ROWS)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    path = tmp_path / "reference.npy"
    np.save(path, ROWS)
    return str(path)


def test_forest_fitted_to_reference_rows_finds_what_is_far(reference: str) -> None:
    detector = IsolationForestDetector(reference_uri=reference, n_estimators=20)
    rows = np.vstack([ROWS[:1] * 0, FAR])
    assert detector.transform_input(rows) is rows
    tags = detector.tags()
    assert tags["outlier-predictions"] == [0, 1]
    assert tags["outlierScore"][1] < 0 < tags["outlierScore"][0]
    told = {metric["key"]: metric["value"] for metric in detector.metrics()}
    assert told["anomaly_score"] == pytest.approx(np.mean(tags["outlierScore"]))
    assert (told["observation"], told["nb_outliers"], told["threshold"]) == (2, 1, 0)


def test_scores_are_those_of_scikit_learn_and_the_same_in_every_worker(reference: str, forest: Any) -> None:
    workers = [IsolationForestDetector(reference_uri=reference, n_estimators=20) for _ in range(2)]
    for worker in workers:
        np.testing.assert_array_equal(worker.score(ROWS), forest.decision_function(ROWS))


@pytest.mark.parametrize("ending", ["pickle", "joblib"])
def test_fitted_forest_is_loaded_from_its_folder_where_this_is_allowed(
    tmp_path: Path, forest: Any, ending: str
) -> None:
    path = tmp_path / f"mine.{ending}"
    if ending == "pickle":
        path.write_bytes(pickle.dumps(forest))
    else:
        joblib.dump(forest, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    detector = IsolationForestDetector(
        load_path=f"{tmp_path}/", model_name="mine", allow_pickle=True, sha256=digest, threshold=-0.2
    )
    detector.load()
    assert detector.predict(np.vstack([ROWS[:3], FAR])).tolist() == [0, 0, 0, 1]


def test_fitted_forest_is_not_loaded_without_permission(tmp_path: Path, forest: Any) -> None:
    joblib.dump(forest, tmp_path / "if.joblib")
    detector = IsolationForestDetector(model_uri=str(tmp_path / "if.joblib"), allow_pickle=False)
    with pytest.raises(ModelLoadError, match="allow_pickle"):
        detector.load()


def test_fitted_forest_with_another_digest_is_not_loaded(tmp_path: Path, forest: Any) -> None:
    joblib.dump(forest, tmp_path / "if.joblib")
    detector = IsolationForestDetector(model_uri=str(tmp_path), allow_pickle=True, sha256="0" * 64)
    with pytest.raises(ModelLoadError, match="SHA-256"):
        detector.load()


def test_folder_without_a_forest_and_a_file_that_is_none_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"none of if\.pickle, if\.joblib, if\.pkl"):
        IsolationForestDetector(model_uri=str(tmp_path), allow_pickle=True).load()
    joblib.dump({"a": 1}, tmp_path / "if.joblib")
    with pytest.raises(ModelLoadError, match="a dict has no decision_function"):
        IsolationForestDetector(model_uri=str(tmp_path), allow_pickle=True).load()


def test_forest_that_was_fitted_to_named_columns_takes_bare_rows_without_a_warning(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["a", "b"])
    joblib.dump(IsolationForest(n_estimators=5, random_state=0).fit(frame), tmp_path / "if.joblib")
    detector = IsolationForestDetector(model_uri=str(tmp_path), allow_pickle=True)
    assert detector.predict(FAR, ["a", "b"]).tolist() == [1]


def test_forest_is_loaded_once_by_many_threads(reference: str) -> None:
    detector = IsolationForestDetector(reference_uri=reference, n_estimators=5)
    forests: list[Any] = []

    def load() -> None:
        detector.load()
        forests.append(detector._forest)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, forests))) == 1


def test_row_that_holds_no_ordinary_number_is_an_outlier(reference: str) -> None:
    detector = IsolationForestDetector(reference_uri=reference, n_estimators=5)
    detector.transform_input([[float("nan"), 0.0], [0.0, 0.0]])
    tags = detector.tags()
    assert tags["outlier-predictions"] == [1, 0]
    assert tags["outlierScore"][0] is None


def test_rows_of_another_width_are_the_callers_fault(reference: str) -> None:
    with pytest.raises(SeldonMicroserviceException, match="rows of 3 numbers; this outlier detector knows rows of 2"):
        IsolationForestDetector(reference_uri=reference, n_estimators=5).predict([[1, 2, 3]])


def test_feedback_with_labels_is_scored_and_kept(reference: str) -> None:
    detector = IsolationForestDetector(reference_uri=reference, n_estimators=20)
    detector.send_feedback(np.vstack([ROWS[:1] * 0, FAR]), [], 1.0, [0, 1])
    told = {metric["key"]: metric["value"] for metric in detector.metrics()}
    assert (told["true_negative"], told["true_positive"], told["f1_tot"]) == (1, 1, 1)
    other = IsolationForestDetector(reference_uri=reference, n_estimators=20)
    other.set_state(detector.get_state())
    other.merge_state(detector.get_state())
    assert other.get_state()["outcomes"]["all"] == [2, 0, 0, 2]


@pytest.mark.parametrize("given", [{}, {"model_uri": "a", "reference_uri": "b"}], ids=["none", "two"])
def test_detector_with_no_or_two_sources_says_what_it_needs(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs one of the parameters model_uri or load_path"):
        IsolationForestDetector(**given)
