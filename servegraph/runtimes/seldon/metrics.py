"""Where the custom metrics of components are kept and shown: the sink, and the page of the metrics port."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from servegraph.monitoring import exposition
from servegraph.monitoring.open_metrics import OpenMetrics
from servegraph.runtimes.worker_protocol import Receive, Scope, Send
from servegraph.serving.seldon.custom_metrics import COUNTER, GAUGE, METHODS, CustomMetric
from servegraph.serving.seldon.identity import UnitIdentity

FOLDER: Final = "seldon"
"""The folder for these metrics in the folder that the workers of a server share."""

_STEPS: Final = 49
TIMER_BUCKETS: Final = (
    0.0,
    *(10 ** (-3 + i * (math.log10(30) + 3) / _STEPS) for i in range(_STEPS)),
    30.0,
)
"""Upper bounds of timers in seconds: 0, then 50 from a millisecond to 30 seconds in equal ratios."""

FEEDBACK: Final = "seldon_api_model_feedback_total"
REWARD: Final = "seldon_api_model_feedback_reward_total"
REJECTED: Final = "servegraph_custom_metrics_rejected_total"

_NO_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_CACHED: Final = 20_000

Write = Callable[[float], None]


def open_metrics(directory: Path | None, slot: int = 0, *, max_label_sets: int = 2000) -> OpenMetrics:
    """The metrics of all components of a worker, seen by its siblings too.

    Args:
        directory: folder that the workers of the server share; None for a server without workers.
        slot: number of the worker.
        max_label_sets: how many different sets of labels one metric may have.
    """
    return OpenMetrics(None if directory is None else directory / FOLDER, slot, max_label_sets=max_label_sets)


class SeldonMetricSink:
    """Keeps the custom metrics and the feedback of one component, with the labels of its node.

    Args:
        metrics: those of the worker, which the components of a graph share.
        identity: the node's names.
        worker_id: shown as the label ``worker_id`` when given, as dashboards per worker want it.
        more_labels: further labels of all metrics.
        count_feedback: whether rewards are counted here (an old engine counts them itself:
            ``SELDON_EXECUTOR_ENABLED=false``).
    """

    def __init__(
        self,
        metrics: OpenMetrics,
        identity: UnitIdentity,
        *,
        worker_id: str | None = None,
        more_labels: Mapping[str, str] | None = None,
        count_feedback: bool = True,
    ) -> None:
        self._metrics = metrics
        self._labels = {**(more_labels or {}), **identity.labels()}
        if worker_id is not None:
            self._labels["worker_id"] = worker_id
        self._count_feedback = count_feedback
        self._writers: dict[tuple[str, str, tuple[tuple[str, str], ...], str], Write] = {}

    def record(self, metric: CustomMetric, method: str) -> None:
        """Add to a counter, set a gauge, or count a time.

        Raises:
            ValueError: there are too many metrics already.
        """
        key = (metric.type, metric.key, metric.tags, method)
        write = self._writers.get(key)
        if write is None:
            write = self._writer(metric, method)
            if len(self._writers) < _CACHED:
                self._writers[key] = write
        write(metric.value)

    def reject(self, method: str) -> None:
        """Count a metric that was left out."""
        help_text = "Custom metrics that were left out because they were not valid; the log says why."
        self._metrics.counter(REJECTED, help_text, {"method": method, **self._labels}, ours=True).inc()

    def feedback(self, reward: float) -> None:
        """Count a feedback and its reward; one without a reward is not counted."""
        if not self._count_feedback or not reward or not math.isfinite(reward):
            return
        labels = {"method": METHODS["send_feedback"], **self._labels}
        self._metrics.counter(FEEDBACK, "Feedback with a reward.", labels, ours=True).inc()
        self._metrics.counter(REWARD, "Sum of the rewards of feedback.", labels, ours=True).add(reward)

    def _writer(self, metric: CustomMetric, method: str) -> Write:
        name = metric_name(metric.key)
        labels = {label_name(tag): value for tag, value in metric.tags}
        labels |= {"method": method, **self._labels}
        if metric.type == COUNTER:
            ended = name if name.endswith("_total") else f"{name}_total"
            return self._metrics.counter(ended, "Counter of a component.", labels).inc
        if metric.type == GAUGE:
            return self._metrics.gauge(name, "Gauge of a component.", labels).set
        if "le" in labels:  # the label of the buckets themselves
            labels["le_"] = labels.pop("le")
        timer = self._metrics.histogram(name, "Timer of a component, in seconds.", labels, TIMER_BUCKETS)

        def observe(milliseconds: float) -> None:
            timer.observe(milliseconds / 1000)

        return observe


def metric_name(key: str) -> str:
    """A name for a metric that Prometheus takes: other characters than letters, digits, ``_`` and ``:`` replaced."""
    name = _NO_NAME.sub("_", key)
    return f"_{name}" if name[:1].isdigit() else name


def label_name(tag: str) -> str:
    """A name for a label that Prometheus takes; such with two underscores first are its own."""
    name = _NO_LABEL.sub("_", tag)
    if name.startswith("__"):
        name = name.lstrip("_")
    return f"_{name}" if not name or name[0].isdigit() else name


class Shown(Protocol):
    """Metrics that can be shown."""

    def render(self) -> bytes:
        """All of them, in Prometheus' text format."""


class MetricsPage:
    """The page of the metrics port, as an ASGI application; empty as long as nothing was recorded.

    Args:
        metrics: what it shows.
        path: its path (``PREDICTIVE_UNIT_METRICS_ENDPOINT``); every other one is not there.
    """

    def __init__(self, metrics: Shown, path: str = "/metrics") -> None:
        self._metrics = metrics
        self._path = path if path.startswith("/") else f"/{path}"

    def answer(self, method: str, path: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, header fields and body for a request."""
        if path != self._path:
            return 404, [(b"content-type", b"text/plain; charset=utf-8")], f"The metrics are at {self._path}\n".encode()
        if method not in ("GET", "HEAD"):
            return 405, [(b"allow", b"GET, HEAD"), (b"content-type", b"text/plain; charset=utf-8")], b"GET only\n"
        body = self._metrics.render()
        return 200, [(b"content-type", exposition.CONTENT_TYPE.encode())], body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the metrics page answers HTTP, not {scope['type']}")
        status, headers, body = self.answer(scope["method"], scope["path"])
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
