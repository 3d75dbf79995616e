"""The custom metrics of components: what of them is good, and where it goes.

A component gives metrics with `metrics()`, with a `SeldonResponse`, or in a message of its own. A bad one never
fails a request whose prediction succeeded: it is left out, counted and logged once.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Final, NamedTuple, Protocol

from servegraph.errors import closest

COUNTER: Final = "COUNTER"
GAUGE: Final = "GAUGE"
TIMER: Final = "TIMER"
TYPES: Final = (COUNTER, GAUGE, TIMER)
"""A counter adds up, a gauge is set, and a timer counts times given in milliseconds."""

METHODS: Final[Mapping[str, str]] = {
    "predict": "predict",
    "transform_input": "inputtransform",
    "transform_output": "outputtransform",
    "route": "router",
    "aggregate": "aggregate",
    "send_feedback": "feedback",
    "health_status": "health",
}
"""The value of the label ``method`` for each operation of a component."""

_LOGGED_PROBLEMS: Final = 200

logger = logging.getLogger("servegraph")


class CustomMetric(NamedTuple):
    """One good metric."""

    type: str
    key: str
    value: float
    tags: tuple[tuple[str, str], ...] = ()


class MetricSink(Protocol):
    """Keeps the metrics of one component."""

    def record(self, metric: CustomMetric, method: str) -> None:
        """Add to a counter, set a gauge, or count a time; ``method`` is a value of `METHODS`.

        Raises:
            ValueError: the metric cannot be kept, for the reason given.
        """

    def reject(self, method: str) -> None:
        """Count a metric that was left out."""

    def feedback(self, reward: float) -> None:
        """Count a feedback that has a reward."""


class NoSink:
    """Keeps nothing: for components that run where no metrics are shown."""

    def record(self, metric: CustomMetric, method: str) -> None:
        """Nothing."""

    def reject(self, method: str) -> None:
        """Nothing."""

    def feedback(self, reward: float) -> None:
        """Nothing."""


class CustomMetrics:
    """Takes what a component gives as metrics and hands the good ones to a sink.

    Args:
        sink: where they are kept.
        in_response: whether callers see them in ``meta.metrics`` (``INCLUDE_METRICS_IN_CLIENT_RESPONSE``).
        component: the component's name, for the log.
    """

    def __init__(self, sink: MetricSink | None = None, *, in_response: bool = True, component: str = "") -> None:
        self.sink: MetricSink = sink if sink is not None else NoSink()
        self.in_response = in_response
        self._component = component
        self._logged: set[str] = set()
        self._lock = threading.Lock()

    def take(self, given: Any, operation: str) -> list[dict[str, Any]]:
        """Keep the good ones of the metrics of one call.

        Args:
            given: what the component gave: a list or a tuple of metrics, one metric, or None.
            operation: the operation that was called, a key of `METHODS`.

        Returns:
            The metrics as callers see them, new dictionaries; none when callers are not to see them.
        """
        if not given and isinstance(given, (list, tuple, type(None))):
            return []
        method = METHODS[operation]
        seen: list[dict[str, Any]] = []
        for item in self._items(given, method):
            try:
                metric, shown = checked(item)
                self.sink.record(metric, method)
            except ValueError as exc:
                self._left_out(str(exc), method)
                continue
            if self.in_response:
                if "tags" in shown:
                    shown["tags"]["method"] = method
                seen.append(shown)
        return seen

    def take_message(self, metrics: Any, operation: str) -> None:
        """Keep the metrics in a message that the component made itself; they stay in it as they are.

        There the type may be missing, which is a counter, and the value, which is 0, as protobuf leaves both out.
        """
        method = METHODS[operation]
        for item in self._items(metrics, method):
            try:
                whole = {"type": COUNTER, "value": 0, **item} if isinstance(item, Mapping) else item
                self.sink.record(checked(whole)[0], method)
            except ValueError as exc:
                self._left_out(str(exc), method)

    def _items(self, given: Any, method: str) -> Iterable[Any]:
        if given is None:
            return ()
        if isinstance(given, Mapping):
            return (given,)
        if isinstance(given, (list, tuple)):
            # ``metrics = [...],`` is a tuple with the list in it.
            return given[0] if len(given) == 1 and isinstance(given[0], (list, tuple)) else given
        self._left_out(f"metrics must be a list of metrics, got {type(given).__name__}", method)
        return ()

    def _left_out(self, problem: str, method: str) -> None:
        self.sink.reject(method)
        fault = problem.partition(", got ")[0]  # the same fault with another value is not told again
        with self._lock:
            known = fault in self._logged or len(self._logged) >= _LOGGED_PROBLEMS
            if not known:
                self._logged.add(fault)
        if not known:
            logger.warning("custom metric of %s left out: %s", self._component or "the component", problem)


def checked(item: Any) -> tuple[CustomMetric, dict[str, Any]]:
    """A metric that a component gave, and the dictionary that callers see of it.

    Raises:
        ValueError: it is none; the message says why.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"a metric must be a dictionary with 'key', 'type' and 'value', got {type(item).__name__}")
    missing = [field for field in ("key", "type", "value") if field not in item]
    if missing:
        raise ValueError(f"metric {_short(item.get('key'))} has no {' and no '.join(map(repr, missing))}")
    key, kind = item["key"], item["type"]
    if not isinstance(key, str) or not key:
        raise ValueError(f"the key of a metric must be a text that is not empty, got {_short(key)}")
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"metric {_short(key)} has the type {_short(kind)}; {closest(str(kind), TYPES)}")
    value = _number(item["value"])
    if value is None:
        raise ValueError(f"the value of metric {_short(key)} must be a finite number, got {_short(item['value'])}")
    if value < 0 and kind != GAUGE:
        raise ValueError(f"metric {_short(key)} is a {kind}, which is never negative (a GAUGE may be), got {value}")
    shown: dict[str, Any] = {"type": kind, "key": key, "value": value}
    tags = item.get("tags")
    if tags is None:
        return CustomMetric(kind, key, float(value)), shown
    if not isinstance(tags, Mapping):
        raise ValueError(f"the tags of metric {_short(key)} must be a dictionary, got {type(tags).__name__}")
    shown["tags"] = {str(name): str(text) for name, text in tags.items()}
    return CustomMetric(kind, key, float(value), tuple(sorted(shown["tags"].items()))), shown


def _number(value: Any) -> int | float | None:
    """A plain finite number, also of a numpy one or of an array with a single value."""
    if not isinstance(value, Real):
        if getattr(value, "size", None) != 1 or not hasattr(value, "item"):
            return None
        value = value.item()
        if not isinstance(value, Real):
            return None
    try:
        number = int(value) if isinstance(value, Integral) else float(value)
        return number if math.isfinite(number) else None
    except OverflowError:
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def is_valid(metrics: Any) -> bool:
    """Whether something is a list of metrics without a fault, as the components' own tests ask."""
    if not isinstance(metrics, list):
        return False
    try:
        for item in metrics:
            checked(item)
    except ValueError:
        return False
    return True


def create_counter(key: str, value: float) -> dict[str, Any]:
    """A metric that adds ``value`` to a counter."""
    return _created(COUNTER, key, value)


def create_gauge(key: str, value: float) -> dict[str, Any]:
    """A metric that sets a gauge."""
    return _created(GAUGE, key, value)


def create_timer(key: str, value: float) -> dict[str, Any]:
    """A metric that counts a time in milliseconds."""
    return _created(TIMER, key, value)


def _created(kind: str, key: str, value: Any) -> dict[str, Any]:
    if _number(value) is None:
        raise TypeError(f"the value of metric {_short(key)} must be a finite number, got {_short(value)}")
    return {"key": key, "type": kind, "value": value}
