"""How right an outlier detector is, by the labels that feedback brings."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class _Confusion(NamedTuple):
    """How often each outcome came, of labels (0 or 1) and what was predicted for them."""

    true_negative: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_positive: int = 0

    def plus(self, pairs: Iterable[tuple[int, int]]) -> _Confusion:
        counts = list(self)
        for label, predicted in pairs:
            counts[2 * label + predicted] += 1
        return _Confusion(*counts)

    @property
    def predicted(self) -> int:
        return self.false_positive + self.true_positive

    @property
    def labelled(self) -> int:
        return self.false_negative + self.true_positive

    def scores(self) -> dict[str, float]:
        """Shares from 0 to 1; 0 where there is nothing to take a share of."""
        return {
            "accuracy": _share(self.true_negative + self.true_positive, sum(self)),
            "precision": _share(self.true_positive, self.predicted),
            "recall": _share(self.true_positive, self.labelled),
            "f1": self._f(1),
            "f2": self._f(2),
        }

    def _f(self, beta: int) -> float:
        hits = (1 + beta**2) * self.true_positive
        return _share(hits, hits + beta**2 * self.false_negative + self.false_positive)


class LabelledOutcomes:
    """Counts outcomes: all of them, and the last ones. Its owner holds a lock.

    Args:
        roll_window: how many of the last ones.
    """

    def __init__(self, roll_window: int) -> None:
        self.roll_window = roll_window
        self._all = _Confusion()
        self._last: deque[tuple[int, int]] = deque(maxlen=roll_window)

    def add(self, labels: Sequence[int], predicted: Sequence[int]) -> None:
        """Count the labels of a batch and what was predicted for it."""
        pairs = list(zip(labels, predicted, strict=True))
        self._all = self._all.plus(pairs)
        self._last.extend(pairs)

    def values(self) -> dict[str, float]:
        """Every number by the key of its metric; ``_tot`` is of all outcomes, ``_roll`` of the last ones."""
        rolling = _Confusion().plus(self._last)
        values: dict[str, float] = dict(self._all._asdict())
        for ending, outcomes in (("tot", self._all), ("roll", rolling)):
            values |= {f"{name}_{ending}": score for name, score in outcomes.scores().items()}
            values |= {f"nb_outliers_{ending}": outcomes.predicted, f"nb_labels_{ending}": outcomes.labelled}
        return values

    def get_state(self) -> dict[str, Any]:
        """The counts as something that has a JSON form."""
        return {"all": list(self._all), "last": [list(pair) for pair in self._last]}

    def merge_state(self, state: dict[str, Any]) -> None:
        """Add counts from before to what was counted since."""
        self._all = _Confusion(*(int(a) + b for a, b in zip(state["all"], self._all, strict=True)))
        since = list(self._last)
        self._last.clear()
        self._last.extend((int(label), int(predicted)) for label, predicted in state["last"])
        self._last.extend(since)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
