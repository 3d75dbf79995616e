"""``seldon_core.metrics``: how components make metrics, and where tests of components keep them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from servegraph.monitoring import exposition
from servegraph.runtimes.seldon.metrics import TIMER_BUCKETS, SeldonMetricSink, open_metrics
from servegraph.serving.seldon.compat.seldon_methods import (
    AGGREGATE_METRIC_METHOD_TAG,
    FEEDBACK_METRIC_METHOD_TAG,
    HEALTH_METRIC_METHOD_TAG,
    INPUT_TRANSFORM_METRIC_METHOD_TAG,
    OUTPUT_TRANSFORM_METRIC_METHOD_TAG,
    PREDICT_METRIC_METHOD_TAG,
    ROUTER_METRIC_METHOD_TAG,
)
from servegraph.serving.seldon.custom_metrics import (
    COUNTER,
    GAUGE,
    METHODS,
    TIMER,
    CustomMetric,
    CustomMetrics,
    create_counter,
    create_gauge,
    create_timer,
    is_valid,
)
from servegraph.serving.seldon.environment import read_environment
from servegraph.serving.seldon.identity import UnitIdentity

FEEDBACK_KEY: Final = "seldon_api_model_feedback"
FEEDBACK_REWARD_KEY: Final = "seldon_api_model_feedback_reward"
BINS: Final = [*TIMER_BUCKETS, float("inf")]
"""Upper bounds of timers in seconds."""

DEFAULT_LABELS: Final = read_environment().identity.labels()
"""The labels of all metrics, by the variables that were set when this was imported."""

_OPERATIONS = {method: operation for operation, method in METHODS.items()}


class SeldonMetrics:
    """Keeps the metrics of a component in this process; a sink like those of a server.

    Args:
        worker_id_func: gives the label ``worker_id``.
        extra_default_labels: further labels of all metrics.
    """

    def __init__(
        self,
        worker_id_func: Callable[[], Any] = os.getpid,
        extra_default_labels: Mapping[str, str] | None = None,
    ) -> None:
        self._worker_id = str(worker_id_func())
        self._extra = dict(extra_default_labels or {})
        self.clear()

    def clear(self) -> None:
        """Forget all that was recorded."""
        environment = read_environment()
        self._metrics = open_metrics(None)
        self._sink = SeldonMetricSink(
            self._metrics,
            environment.identity,
            worker_id=self._worker_id,
            more_labels=self._extra,
            count_feedback=environment.executor_enabled,
        )

    def update(self, custom_metrics: list[dict[str, Any]], method: str) -> None:
        """Record metrics, with ``method`` as their label of that name."""
        CustomMetrics(self).take(custom_metrics, _OPERATIONS[method])

    def update_reward(self, reward: float) -> None:
        """Count a feedback and its reward; one without a reward is not counted."""
        self.feedback(reward)

    def generate_metrics(self) -> tuple[str, str]:
        """The metrics in Prometheus' text format, and its media type."""
        return self.render().decode(), exposition.CONTENT_TYPE

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return self._metrics.render()

    def record(self, metric: CustomMetric, method: str) -> None:
        """Keep one good metric.

        Raises:
            ValueError: there are too many already.
        """
        self._sink.record(metric, method)

    def reject(self, method: str) -> None:
        """Count a metric that was left out."""
        self._sink.reject(method)

    def feedback(self, reward: float) -> None:
        """Count a feedback and its reward."""
        self._sink.feedback(reward)


def validate_metrics(metrics: Any) -> bool:
    """Whether something is a list of metrics without a fault."""
    return is_valid(metrics)


def split_image_tag(tag: str) -> tuple[str, str]:
    """An image's name, and its version behind the last colon."""
    identity = UnitIdentity(image=tag)
    return identity.image_name, identity.image_version


__all__ = [
    "AGGREGATE_METRIC_METHOD_TAG",
    "BINS",
    "COUNTER",
    "DEFAULT_LABELS",
    "FEEDBACK_KEY",
    "FEEDBACK_METRIC_METHOD_TAG",
    "FEEDBACK_REWARD_KEY",
    "GAUGE",
    "HEALTH_METRIC_METHOD_TAG",
    "INPUT_TRANSFORM_METRIC_METHOD_TAG",
    "OUTPUT_TRANSFORM_METRIC_METHOD_TAG",
    "PREDICT_METRIC_METHOD_TAG",
    "ROUTER_METRIC_METHOD_TAG",
    "TIMER",
    "SeldonMetrics",
    "create_counter",
    "create_gauge",
    "create_timer",
    "split_image_tag",
    "validate_metrics",
]
