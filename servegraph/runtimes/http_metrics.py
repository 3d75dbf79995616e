"""What the server counts: requests by status, their latency, and each model's operations."""

from __future__ import annotations

from collections.abc import Callable

from servegraph.monitoring.metrics import Counter, MetricsRegistry

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histograms, in seconds."""


class HttpMetrics:
    """Counts the requests of one worker."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        self._by_status: dict[int, Counter] = {}
        self._latency = registry.histogram(
            "servegraph_request_duration_seconds", "Time from a request's head to its reply, in seconds.", {}, BUCKETS
        )
        self._cancelled = registry.counter(
            "servegraph_requests_cancelled_total", "Requests whose client went away before the reply.", {}
        )

    def answered(self, status: int, seconds: float) -> None:
        """Count a request that got a reply."""
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._registry.counter(
                "servegraph_requests_total", "Requests by the status of their reply.", {"code": str(status)}
            )
        counter.inc()
        self._latency.observe(seconds)

    def cancelled(self) -> None:
        """Count a request whose client went away."""
        self._cancelled.inc()


class ModelObserver:
    """Counts the operations of each model, as an `Observer` of the graph."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry

    def model(self, name: str, version: str) -> Callable[[float, bool], None]:
        """A function of (seconds, failed) that counts one model's operations."""
        labels = {"model": name, "version": version}
        duration = self._registry.histogram(
            "servegraph_model_duration_seconds", "Time in a model's hooks per operation, in seconds.", labels, BUCKETS
        )
        errors = self._registry.counter("servegraph_model_errors_total", "Operations of a model that failed.", labels)

        def observe(seconds: float, failed: bool) -> None:
            duration.observe(seconds)
            if failed:
                errors.inc()

        return observe
