"""What all outlier detectors are: a transformer, a model and a scorer around one way of scoring rows."""

from __future__ import annotations

import abc
import math
import threading
from typing import TYPE_CHECKING, Any, Final

from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.outliers.labels import LabelledOutcomes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]
    Scores = NDArray[np.float64]

_LARGEST: Final = 1e100
"""Larger numbers cannot be squared and summed."""


class OutlierDetector(abc.ABC):
    """As a transformer it passes its input on and adds tags; as a model it answers with 0 and 1 for each row.

    A row that holds something else than ordinary numbers (NaN, infinity) is an outlier without a score, and nothing is
    learnt from it. What concerns one request is kept for the thread that answers it, until `tags` and `metrics` are
    asked for.

    Args:
        threshold: the score from which on a row is an outlier.
        roll_window: of how many of the last labels the rolling scores are.
    """

    score_metric: str
    """Key of the gauge with the mean score of a request."""

    def __init__(self, threshold: float, roll_window: int) -> None:
        self.numpy = import_extra("numpy", feature="an outlier detector", extra="numpy")
        self.threshold = float(threshold)
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold is {threshold!r}; it is a number")
        if int(roll_window) < 1:
            raise ValueError(f"roll_window is {roll_window!r}; it is at least 1")
        self._lock = threading.Lock()
        self._observed = 0
        self._outliers = 0
        self._outcomes = LabelledOutcomes(int(roll_window))
        self._last = threading.local()

    # -- Seldon's methods -------------------------------------------------------------------------------------------

    def predict(self, features: Any, names: Any = None) -> NDArray[np.int64]:
        """1 for each row that is an outlier, else 0."""
        _, predicted = self._detect(features)
        return predicted

    def transform_input(self, features: Any, names: Any = None) -> Any:
        """The input as it came; its tags say what is unusual in it."""
        scores, predicted = self._detect(features)
        self._last.tags = {
            "outlier-predictions": predicted.tolist(),
            "is_outlier": bool(predicted.any()),
            "outlierScore": [None if math.isnan(score) else score for score in scores.tolist()],
        }
        return features

    def score(self, features: Any, names: Any = None) -> Scores:
        """The score of each row; NaN for a row that has none."""
        scores, _ = self._detect(features)
        return scores

    def send_feedback(
        self, features: Any, names: Any, reward: float, truth: Any = None, routing: int | None = None
    ) -> None:
        """Compare labels, 0 or 1 for each row of the request, with what the detector says about the rows now.

        Raises:
            SeldonMicroserviceException: 400, the labels do not fit the rows.
        """
        self._last.tags, self._last.metrics = {}, []
        labels = self._labels(truth)
        if not labels:
            return
        rows, usable = self._rows(features)
        if len(labels) != len(rows):
            raise _bad(f"feedback with {len(labels)} labels for {len(rows)} rows: truth holds one label for each row")
        _, predicted = self._spread(self._scores(rows[usable]), usable)
        with self._lock:
            self._outcomes.add(labels, predicted.tolist())
            values = self._outcomes.values()
        self._last.metrics = _gauges({"label": sum(labels) / len(labels)} | values)

    def tags(self) -> dict[str, Any]:
        """What this thread has just found in the input that it let through."""
        tags, self._last.tags = getattr(self._last, "tags", {}), {}
        return tags

    def metrics(self) -> list[dict[str, Any]]:
        """Means of the request that this thread has just seen, and what was seen so far; scores after feedback."""
        metrics, self._last.metrics = getattr(self._last, "metrics", []), []
        return metrics

    # -- state ------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What was seen so far, as something that has a JSON form."""
        with self._lock:
            counted = {"observed": self._observed, "outliers": self._outliers, "outcomes": self._outcomes.get_state()}
            return counted | {"learnt": self._get_learnt()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what was seen before."""
        with self._lock:
            self._set_learnt(state["learnt"])
            self._observed, self._outliers = int(state["observed"]), int(state["outliers"])
            self._outcomes = LabelledOutcomes(self._outcomes.roll_window)
            self._outcomes.merge_state(state["outcomes"])

    def merge_state(self, saved: dict[str, Any]) -> None:
        """Add what was seen before to what was seen since."""
        with self._lock:
            self._merge_learnt(saved["learnt"])
            self._observed += int(saved["observed"])
            self._outliers += int(saved["outliers"])
            self._outcomes.merge_state(saved["outcomes"])

    # -- what makes a detector --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _scores(self, rows: Rows) -> Scores:
        """The scores of rows, from which nothing is learnt."""

    def _observe(self, rows: Rows) -> Scores:
        """The scores of rows, from which a detector may learn."""
        return self._scores(rows)

    @abc.abstractmethod
    def _is_outlier(self, scores: Scores) -> NDArray[np.bool_]:
        """Which of the scores are those of outliers."""

    # The lock is held by the callers of the last three.

    def _get_learnt(self) -> Any:
        return None

    def _set_learnt(self, learnt: Any) -> None:  # noqa: B027 - some detectors learn nothing
        pass

    def _merge_learnt(self, learnt: Any) -> None:  # noqa: B027 - as above
        pass

    # -- inside -----------------------------------------------------------------------------------------------------

    def _detect(self, features: Any) -> tuple[Scores, NDArray[np.int64]]:
        self._last.tags, self._last.metrics = {}, []
        rows, usable = self._rows(features)
        scores, predicted = self._spread(self._observe(rows[usable]), usable)
        with self._lock:
            self._observed += len(rows)
            self._outliers += int(predicted.sum())
            observed, outliers = self._observed, self._outliers
        if len(rows):
            seen = {"is_outlier": float(predicted.mean())}
            if usable.any():
                seen[self.score_metric] = float(scores[usable].mean())
            seen |= {"nb_outliers": outliers, "fraction_outliers": outliers / observed, "observation": observed}
            self._last.metrics = _gauges(seen | {"threshold": self.threshold})
        return scores, predicted

    def _spread(self, scores: Scores, usable: NDArray[np.bool_]) -> tuple[Scores, NDArray[np.int64]]:
        """Scores and predictions of all rows, given the scores of those that can have one."""
        np = self.numpy
        every = np.full(len(usable), np.nan)
        every[usable] = scores
        predicted = np.ones(len(usable), dtype=np.int64)
        predicted[usable] = self._is_outlier(scores)
        return every, predicted

    def _rows(self, features: Any) -> tuple[Rows, NDArray[np.bool_]]:
        """The input as rows of numbers, and which of them are all ordinary numbers."""
        np = self.numpy
        try:
            rows = np.asarray(features, dtype=np.float64)
        except (TypeError, ValueError) as exc:
            raise _bad(f"an outlier detector takes rows of numbers: {exc}") from None
        if rows.ndim < 2:
            rows = rows.reshape(1, -1) if rows.size else rows.reshape(0, 0)
        if rows.ndim > 2 or (len(rows) and not rows.shape[1]):
            raise _bad(f"an outlier detector takes rows of numbers, not an array of shape {rows.shape}")
        with np.errstate(invalid="ignore"):
            return rows, (np.abs(rows) < _LARGEST).all(axis=1)

    def _labels(self, truth: Any) -> list[int]:
        np = self.numpy
        if truth is None:
            return []
        try:
            labels = np.asarray(truth, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            labels = np.array([np.nan])
        if not np.isin(labels, (0, 1)).all():
            raise _bad("feedback with a label that is neither 0 nor 1: 1 is an outlier")
        return [int(label) for label in labels]

    def _check_width(self, rows: Rows, width: int) -> None:
        if rows.shape[1] != width:
            raise _bad(f"rows of {rows.shape[1]} numbers; this outlier detector knows rows of {width}")


def _gauges(values: dict[str, float]) -> list[dict[str, Any]]:
    return [{"type": "GAUGE", "key": key, "value": value} for key, value in values.items()]


def _bad(message: str) -> SeldonMicroserviceException:
    return SeldonMicroserviceException(message, status_code=400)
