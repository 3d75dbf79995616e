"""An outlier detector that learns from the requests themselves what is usual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from servegraph.serving.seldon.outliers.base import OutlierDetector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from servegraph.serving.seldon.outliers.base import Rows, Scores

_LEAST_PIECE: Final = 32
_FLAT: Final = 1e-12
"""A direction with less than this share of the largest variance is taken as one without any."""


@dataclass(slots=True)
class _Moments:
    """Mean and covariance of what was seen, and the weight that this has beside what comes."""

    seen: int
    weight: int
    mean: Rows
    covariance: Rows

    @classmethod
    def of(cls, rows: Rows, np: Any) -> _Moments:
        mean = rows.mean(axis=0)
        away = rows - mean
        return cls(len(rows), len(rows), mean, away.T @ away / max(len(rows) - 1, 1))

    def plus(self, more: _Moments, np: Any, max_n: int) -> _Moments:
        """The moments of both together, as if they had been taken of all rows at once."""
        weight = self.weight + more.weight
        apart = more.mean - self.mean
        scatter = (
            self.covariance * max(self.weight - 1, 0)
            + more.covariance * max(more.weight - 1, 0)
            + np.outer(apart, apart) * (self.weight * more.weight / weight)
        )
        mean = self.mean + apart * (more.weight / weight)
        kept = min(weight, max_n) if max_n > 0 else weight
        return _Moments(self.seen + more.seen, kept, mean, scatter / max(weight - 1, 1))


class MahalanobisDetector(OutlierDetector):
    """Finds rows far from the mean of all rows before, in the directions in which those vary most.

    The score is the square of the Mahalanobis distance in the space of the first principal components: 25 is five
    standard deviations. A large batch is scored in pieces, each against everything before it. The first rows, of
    which there must be two more than components, have the score 0.

    Args:
        threshold: rows with a larger score are outliers.
        n_components: how many principal components are looked at.
        n_stdev: rows are clipped to so many standard deviations around the mean before anything is learnt from them.
        start_clip: how many rows are learnt from without clipping.
        max_n: the past weighs no more than so many rows, so that the detector follows a drift; -1 for no limit.
        roll_window: of how many of the last labels the rolling scores are.
        push_frequency: seconds between two savings; read by persistence.

    Raises:
        ValueError: an argument makes no sense.
    """

    score_metric = "outlier_score"

    def __init__(
        self,
        threshold: float = 25.0,
        n_components: int = 3,
        n_stdev: float = 3.0,
        start_clip: int = 50,
        max_n: int = -1,
        roll_window: int = 100,
        push_frequency: float = 60.0,
    ) -> None:
        super().__init__(threshold, roll_window)
        self.n_components = int(n_components)
        self.n_stdev = float(n_stdev)
        self.start_clip = int(start_clip)
        self.max_n = int(max_n)
        self.push_frequency = push_frequency
        if self.n_components < 1:
            raise ValueError(f"n_components is {n_components!r}; it is at least 1")
        if not self.n_stdev > 0:
            raise ValueError(f"n_stdev is {n_stdev!r}; it is a positive number")
        self._moments: _Moments | None = None
        self._axes: tuple[Rows, Rows] | None = None

    @property
    def mean(self) -> Rows | None:
        """Of all rows that were learnt from; ``None`` before the first one."""
        with self._lock:
            return None if self._moments is None else self._moments.mean.copy()

    @property
    def covariance(self) -> Rows | None:
        """Of all rows that were learnt from; ``None`` before the first one."""
        with self._lock:
            return None if self._moments is None else self._moments.covariance.copy()

    def _observe(self, rows: Rows) -> Scores:
        scores: Scores = self.numpy.empty(len(rows))
        start = 0
        with self._lock:
            while start < len(rows):
                known = 0 if self._moments is None else self._moments.seen
                size = max(known, _LEAST_PIECE)
                # A piece that outweighs the past as a whole would count for more than its rows one by one.
                piece = slice(start, start + (min(size, self.max_n) if self.max_n > 0 else size))
                scores[piece] = self._distances(rows[piece])
                self._learn(rows[piece])
                start = piece.stop
        return scores

    def _scores(self, rows: Rows) -> Scores:
        with self._lock:
            return self._distances(rows)

    # The lock is held by the callers of all that follow.

    def _distances(self, rows: Rows) -> Scores:
        known = self._moments
        scores: Scores = self.numpy.zeros(len(rows))
        if known is None or not len(rows):
            return scores
        self._check_width(rows, len(known.mean))
        if known.seen >= min(self.n_components, len(known.mean)) + 2:
            directions, variances = self._axes or self._principal(known)
            scores[:] = ((rows - known.mean) @ directions) ** 2 @ (1 / variances)
        return scores

    def _principal(self, known: _Moments) -> tuple[Rows, Rows]:
        """The directions of most variance, as columns, and the variances. One without variance tells nothing."""
        np = self.numpy
        variances, directions = np.linalg.eigh(known.covariance)
        variances, directions = variances[-self.n_components :], directions[:, -self.n_components :]
        vary = variances > max(_FLAT * variances[-1], 0.0)
        self._axes = directions[:, vary], variances[vary]
        return self._axes

    def _learn(self, rows: Rows) -> None:
        np, known = self.numpy, self._moments
        if known is not None and known.seen > self.start_clip:
            width = self.n_stdev * np.sqrt(np.diag(known.covariance))
            rows = np.clip(rows, known.mean - width, known.mean + width)
        new = _Moments.of(rows, np)
        self._moments = new if known is None else known.plus(new, np, self.max_n)
        self._axes = None

    def _is_outlier(self, scores: Scores) -> NDArray[np.bool_]:
        return scores > self.threshold

    def _get_learnt(self) -> Any:
        known = self._moments
        if known is None:
            return None
        numbers = {"mean": known.mean.tolist(), "covariance": known.covariance.tolist()}
        return {"seen": known.seen, "weight": known.weight} | numbers

    def _set_learnt(self, learnt: Any) -> None:
        self._moments, self._axes = None if learnt is None else self._read(learnt), None

    def _merge_learnt(self, learnt: Any) -> None:
        if learnt is None:
            return
        saved = self._read(learnt)
        if self._moments is not None and len(saved.mean) != len(self._moments.mean):
            raise ValueError(f"what is kept is of rows of {len(saved.mean)} numbers, not {len(self._moments.mean)}")
        self._moments = saved if self._moments is None else saved.plus(self._moments, self.numpy, self.max_n)
        self._axes = None

    def _read(self, learnt: Any) -> _Moments:
        np = self.numpy
        mean, covariance = (np.array(learnt[name], dtype=np.float64) for name in ("mean", "covariance"))
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"a covariance of shape {covariance.shape} for a mean of shape {mean.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all() and math.isfinite(learnt["weight"])):
            raise ValueError("mean and covariance must be finite")
        return _Moments(int(learnt["seen"]), int(learnt["weight"]), mean, covariance)
