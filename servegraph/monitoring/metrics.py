"""Counters, gauges and histograms that are right with several worker processes and cheap to write.

A child, one metric with one set of label values, is asked for once and kept by its user; writing to it is then an
addition to a cell of an array, without lock, look-up or system call. Any worker can show the metrics of all::

    registry = MetricsRegistry(Path(info.metrics_directory), info.slot)
    requests = registry.counter("requests_total", "Requests.", {"model": "iris"})
    requests.inc()
    body = registry.render()

Values are exact: an addition to a cell is not interrupted by another thread of CPython, which switches threads
between calls and jumps only. A build of Python without the global lock would need a lock here.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from servegraph.monitoring import exposition
from servegraph.monitoring.metric_store import Cells, Family, Key, SharedCells

DEFAULT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds, from half a millisecond to the longest request."""

OVERFLOW = "overflow"
"""The value of all labels of the child that takes what is beyond the limit of label sets."""

OVERFLOW_METRIC = "servegraph_metrics_overflow_total"

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_VALUE_LIMIT = 256


class Counter:
    """A number that only grows."""

    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def inc(self, n: float = 1) -> None:
        """Add ``n``, which is not negative."""
        if n < 0:
            raise ValueError(f"a counter only grows: {n}")
        self._cells[self._index] += n

    def add(self, n: float) -> None:
        """Add ``n``, which may be negative: for sums that dashboards know as counters."""
        self._cells[self._index] += n

    @property
    def value(self) -> float:
        """The count of this slot."""
        return self._cells[self._index]


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def set(self, value: float) -> None:
        """Put ``value`` in place of what was there."""
        self._cells[self._index] = value

    def inc(self, n: float = 1) -> None:
        """Add ``n``."""
        self._cells[self._index] += n

    def dec(self, n: float = 1) -> None:
        """Take ``n`` away."""
        self._cells[self._index] -= n

    @property
    def value(self) -> float:
        """The value of this slot."""
        return self._cells[self._index]


class Histogram:
    """Counts values by size."""

    __slots__ = ("_bounds", "_cells", "_index", "_sum")

    def __init__(self, cells: Cells, index: int, bounds: tuple[float, ...]) -> None:
        self._cells = cells
        self._index = index
        self._sum = index + len(bounds) + 1
        self._bounds = bounds

    def observe(self, seconds: float) -> None:
        """Count a value; it falls into the first bucket whose bound is not below it."""
        cells = self._cells
        cells[self._index + bisect_left(self._bounds, seconds)] += 1
        cells[self._sum] += seconds

    @property
    def count(self) -> float:
        """How many values this slot has counted."""
        return sum(self._cells[self._index : self._sum])

    @property
    def sum(self) -> float:
        """The sum of the values of this slot."""
        return self._cells[self._sum]


class MetricsRegistry:
    """All metrics of a process, and a view of those of its sibling workers.

    Args:
        directory: folder that the workers of a server share; None keeps the values in this process.
        slot: number of this worker. A worker that takes the place of another has the same.
        max_label_sets: children per metric; more share one child whose labels are all ``overflow``.

    Raises:
        ServegraphError: another process has the slot.
    """

    _MAX_FAMILIES: ClassVar[int] = 1000

    def __init__(self, directory: Path | None, slot: int = 0, *, max_label_sets: int = 2000) -> None:
        self._max_label_sets = max_label_sets
        self._shared = SharedCells(directory, slot)
        self._store = self._shared.store
        self._lock = threading.Lock()
        self._families: dict[str, Family] = {}
        self._children: dict[str, dict[tuple[str, ...], Key]] = {}
        self._inherited: dict[tuple[Family, tuple[str, ...]], Key] = {}
        for key in self._store.known():
            self._inherited[key.family, key.values] = key
            if key.family.kind == "gauge":  # what the worker before had in hand is gone with it
                cells, index = self._store.cells_of(key)
                cells[index] = 0.0

    def counter(self, name: str, help: str, labels: Mapping[str, str] | None = None) -> Counter:
        """The counter with these labels; of all workers, the sum is shown.

        Raises:
            ValueError: a name is not allowed, or the metric exists with another type, help or labels.
        """
        labels = labels or {}
        return Counter(*self._cells(Family(name, "counter", help, tuple(sorted(labels))), labels))

    def gauge(self, name: str, help: str, labels: Mapping[str, str] | None = None, *, summed: bool = False) -> Gauge:
        """The gauge with these labels; each worker's is shown with a label ``worker``, or with ``summed`` the sum.

        Raises:
            ValueError: as for `counter`.
        """
        labels = labels or {}
        return Gauge(*self._cells(Family(name, "gauge", help, tuple(sorted(labels)), summed=summed), labels))

    def histogram(
        self,
        name: str,
        help: str,
        labels: Mapping[str, str] | None = None,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
    ) -> Histogram:
        """The histogram with these labels and upper bounds; of all workers, the sum is shown.

        Raises:
            ValueError: as for `counter`, or the bounds do not rise.
        """
        labels = labels or {}
        bounds = tuple(float(bound) for bound in buckets)
        family = Family(name, "histogram", help, tuple(sorted(labels)), buckets=bounds)
        return Histogram(*self._cells(family, labels), bounds)

    def render(self) -> bytes:
        """The metrics of all slots in the Prometheus text format 0.0.4 (`exposition.CONTENT_TYPE`)."""
        merged: dict[str, tuple[Family, dict[tuple[tuple[str, str], ...], list[float]]]] = {}
        with self._lock:
            # What this process has declared decides, where another slot has an older declaration.
            for name, family in self._families.items():
                merged[name] = (family, {})
            own = (key for children in self._children.values() for key in children.values())
            for slot, key, cells in self._shared.all(own):
                family, children = merged.setdefault(key.family.name, (key.family, {}))
                if family != key.family:
                    continue
                labels = tuple(zip(family.labels, key.values, strict=True))
                if family.kind == "gauge" and not family.summed:
                    labels = (*labels, ("worker", str(slot)))
                total = children.setdefault(labels, [0.0] * family.cells)
                for i, value in enumerate(cells[key.first : key.first + family.cells]):
                    total[i] += value
        return exposition.render((family, children.items()) for family, children in merged.values())

    def _cells(self, family: Family, labels: Mapping[str, str]) -> tuple[Cells, int]:
        with self._lock:
            children = self._declare(family)
            values = tuple(limited(labels[name]) for name in family.labels)
            overflow = (OVERFLOW,) * len(values)
            if values not in children and len(children) >= self._max_label_sets and values != overflow:
                self._count_overflow(family)
                values = overflow
            return self._store.cells_of(children.get(values) or self._add(family, values))

    def _add(self, family: Family, values: tuple[str, ...]) -> Key:
        key = self._inherited.get((family, values)) or self._store.add(family, values)
        self._children[family.name][values] = key
        return key

    def _declare(self, family: Family) -> dict[tuple[str, ...], Key]:
        known = self._families.get(family.name)
        if known is None:
            check_family(family)
            if len(self._families) >= self._MAX_FAMILIES:
                raise ValueError(f"there are {self._MAX_FAMILIES} metrics already; {family.name!r} is one too many")
            self._families[family.name] = family
            # What an earlier worker of the slot has made counts towards the limit: it is shown as well.
            inherited = (key for key in self._inherited.values() if key.family == family)
            return self._children.setdefault(family.name, {key.values: key for key in inherited})
        if known != family:
            raise ValueError(f"metric {family.name!r} is declared twice: as {known} and as {family}")
        return self._children[family.name]

    def _count_overflow(self, refused: Family) -> None:
        family = Family(
            OVERFLOW_METRIC, "counter", "Label sets beyond the limit of a metric, by the metric.", ("metric",)
        )
        children = self._declare(family)
        cells, index = self._store.cells_of(children.get((refused.name,)) or self._add(family, (refused.name,)))
        cells[index] += 1


def limited(value: object) -> str:
    """A label's value, cut where it is too long."""
    text = str(value)
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"


def check_family(family: Family) -> None:
    """Find a name, a label or buckets that Prometheus would not take.

    Raises:
        ValueError: there is one.
    """
    if not _METRIC_NAME.fullmatch(family.name):
        raise ValueError(f"{family.name!r} is not a metric name: letters, digits, '_' and ':', not a digit first")
    check_labels(family, family.labels)
    if family.kind == "histogram":
        bounds = family.buckets
        rising = all(low < high for low, high in itertools.pairwise(bounds))
        if not bounds or not rising or not all(math.isfinite(bound) for bound in bounds):
            raise ValueError(f"the buckets of {family.name!r} must rise and be finite: {bounds}")


def check_labels(family: Family, labels: Iterable[str]) -> None:
    """Find a label name that Prometheus would not take, or that the metric has already.

    Raises:
        ValueError: there is one.
    """
    reserved = {"histogram": "le", "gauge": "" if family.open else "worker", "counter": ""}[family.kind]
    for label in labels:
        if not _LABEL_NAME.fullmatch(label) or label.startswith("__"):
            raise ValueError(f"{label!r} of metric {family.name!r} is not a label name: letters, digits and '_'")
        if label == reserved:
            raise ValueError(f"label {label!r} of metric {family.name!r} is taken: each {family.kind} has it already")
