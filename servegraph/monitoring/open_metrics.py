"""Metrics that others name: of one metric each child has labels of its own, and names may clash.

What user code reports is not under our control. The same key may come with other tags, or once as a gauge and once
as a histogram. `OpenMetrics` keeps it all and shows a page that Prometheus reads whatever came::

    metrics = OpenMetrics(directory, slot)
    metrics.counter("rows_total", "Rows.", {"stage": "train"}).inc()
    metrics.counter("rows_total", "Rows.", {}).inc()

Values are kept as those of a `MetricsRegistry`; of a gauge the last value that any worker set is shown, for any
number of workers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from servegraph.monitoring import exposition
from servegraph.monitoring.metric_store import Cells, Family, Key, SharedCells
from servegraph.monitoring.metrics import (
    DEFAULT_BUCKETS,
    OVERFLOW,
    OVERFLOW_METRIC,
    Counter,
    Histogram,
    check_family,
    check_labels,
    limited,
)

_ORDER: Final = ("counter", "gauge", "histogram")
_MAX_FAMILIES: Final = 1000

Labels = tuple[tuple[str, str], ...]


class LastGauge:
    """A number that is set; of several workers the last one to set it is right."""

    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def set(self, value: float) -> None:
        """Put ``value`` in place of what was there."""
        self._cells[self._index] = value
        # The clock of the machine, the same for all of its processes; 0 stands for never.
        self._cells[self._index + 1] = time.monotonic()

    @property
    def value(self) -> float:
        """The value that this slot set last."""
        return self._cells[self._index]


class OpenMetrics:
    """Metrics with any labels, of all workers of a server.

    Args:
        directory: folder that the workers share and that nothing else uses; None keeps the values in this process.
        slot: number of this worker. A worker that takes the place of another has the same.
        max_label_sets: children per metric; more share one child whose only label is ``overflow``.

    Raises:
        ServegraphError: another process has the slot.
    """

    def __init__(self, directory: Path | None, slot: int = 0, *, max_label_sets: int = 2000) -> None:
        if directory is not None:
            directory.mkdir(mode=0o700, exist_ok=True)
        self._max_label_sets = max_label_sets
        self._shared = SharedCells(directory, slot)
        self._lock = threading.Lock()
        self._children: dict[Family, dict[tuple[str, ...], Key]] = {}
        for key in self._shared.store.known():
            self._children.setdefault(key.family, {})[key.values] = key

    def counter(self, name: str, help: str, labels: Mapping[str, str], *, ours: bool = False) -> Counter:
        """The counter with these labels; of all workers, the sum is shown.

        Args:
            name: name of the metric.
            help: what it counts.
            labels: names and values.
            ours: whether the name comes from this code, so that it is never one too many.

        Raises:
            ValueError: a name is not allowed, or there are too many metrics.
        """
        return Counter(*self._cells(Family(name, "counter", help, (), open=True), labels, ours=ours))

    def gauge(self, name: str, help: str, labels: Mapping[str, str]) -> LastGauge:
        """The gauge with these labels.

        Raises:
            ValueError: as for `counter`.
        """
        return LastGauge(*self._cells(Family(name, "gauge", help, (), open=True), labels))

    def histogram(
        self, name: str, help: str, labels: Mapping[str, str], buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> Histogram:
        """The histogram with these labels and upper bounds; of all workers, the sum is shown.

        Raises:
            ValueError: as for `counter`, or the bounds do not rise.
        """
        bounds = tuple(float(bound) for bound in buckets)
        return Histogram(*self._cells(Family(name, "histogram", help, (), bounds, open=True), labels), bounds)

    def render(self) -> bytes:
        """The metrics of all slots in the Prometheus text format 0.0.4; empty when there are none.

        Metrics whose series would have the same name are told apart by their kind, in the same way by all workers.
        """
        merged: dict[Family, dict[Labels, list[float]]] = {}
        with self._lock:
            own = (key for children in self._children.values() for key in children.values())
            for _, key, cells in self._shared.all(own):
                given = cells[key.first : key.first + key.family.cells]
                if key.family.kind == "gauge" and not given[1]:
                    continue
                labels = tuple(zip(key.values[::2], key.values[1::2], strict=True))
                _merge(merged.setdefault(key.family, {}), labels, given, key.family)
        return exposition.render((family, merged[known].items()) for known, family in _told_apart(merged))

    def _cells(self, family: Family, labels: Mapping[str, str], *, ours: bool = False) -> tuple[Cells, int]:
        values = tuple(part for name in sorted(labels) for part in (name, limited(labels[name])))
        with self._lock:
            children = self._children.get(family)
            if children is None:
                check_family(family)
                if len(self._children) >= _MAX_FAMILIES and not ours:
                    raise ValueError(f"there are {_MAX_FAMILIES} metrics already; {family.name!r} is one too many")
                children = self._children[family] = {}
            if values not in children:
                check_labels(family, labels)
                if len(children) >= self._max_label_sets:
                    self._count_overflow(family)
                    values = (OVERFLOW, "true")
            return self._shared.store.cells_of(children.get(values) or self._add(family, values))

    def _add(self, family: Family, values: tuple[str, ...]) -> Key:
        key = self._shared.store.add(family, values)
        self._children.setdefault(family, {})[values] = key
        return key

    def _count_overflow(self, refused: Family) -> None:
        family = Family(OVERFLOW_METRIC, "counter", "Label sets beyond the limit of a metric.", (), open=True)
        values = ("metric", refused.name)
        cells, index = self._shared.store.cells_of(
            self._children.get(family, {}).get(values) or self._add(family, values)
        )
        cells[index] += 1


def _merge(children: dict[Labels, list[float]], labels: Labels, cells: Sequence[float], family: Family) -> None:
    """Take the cells of one worker into what the others have of a child."""
    total = children.get(labels)
    if total is None:
        children[labels] = list(cells)
    elif family.kind != "gauge":
        for i, value in enumerate(cells):
            total[i] += value
    elif cells[1] > total[1]:
        total[:] = cells


def _told_apart(families: Iterable[Family]) -> Iterator[tuple[Family, Family]]:
    """Each family as it is and as it is shown: with a longer name where one before has a series of its name."""
    taken: set[str] = set()
    for family in sorted(families, key=lambda f: (_ORDER.index(f.kind), f.name, f.help, f.buckets)):
        shown = family
        while not taken.isdisjoint(_series(shown)):
            shown = replace(shown, name=f"{shown.name}_{family.kind}")
        taken.update(_series(shown))
        yield family, shown


def _series(family: Family) -> set[str]:
    endings = ("", "_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
    return {family.name + ending for ending in endings}
