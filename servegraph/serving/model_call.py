"""One predict or explain operation of a model, from its request to its response."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from servegraph.errors import ServegraphError
from servegraph.graph.clock import timestamp
from servegraph.graph.events import Event
from servegraph.serving.loading import LoadState
from servegraph.serving.protocols import oip

if TYPE_CHECKING:
    from servegraph.serving.v2 import V2ModelServer

request_metrics: ContextVar[dict[str, Any] | None] = ContextVar("servegraph_request_metrics", default=None)
"""The metrics that ``set_metric`` attaches to the request that is being served."""


class ModelCall:
    """What a model's hooks are called with, and what is made of what they give."""

    __slots__ = (
        "event", "event_id", "metrics", "microseconds", "model", "operation", "request", "start", "wanted", "when_ns",
    )  # fmt: skip

    def __init__(self, model: V2ModelServer, event: Event, body: Any, operation: str) -> None:
        self.model = model
        self.event = event
        self.request = body
        self.operation = operation
        self.wanted: tuple[str, ...] | None = None
        """For a tensor request the outputs it asks for; ``None`` for any other request."""
        self.event_id: str | None = None
        self.metrics: dict[str, Any] | None = None
        self.when_ns = time.time_ns()
        self.start = time.perf_counter_ns()

    def begin(self) -> None:
        """Refuse early, decode tensors, open the scope of the request's metrics."""
        model, body = self.model, self.request
        if model.loader.state is not LoadState.READY:
            model.check_ready(self.event)
        if body.__class__ is dict:
            self.event_id = body.get("id")
            if oip.is_tensor_request(body):
                self.request, self.wanted = oip.decode(body, model.context.tensor_rank)
        if model.context.recorder is not None:
            self.metrics = {}
            request_metrics.set(self.metrics)

    def response(self, outputs: Any) -> dict[str, Any]:
        """The response around a model's outputs."""
        model = self.model
        response: dict[str, Any] = {"id": self.event_id or self.event.id, "model_name": model.name, "outputs": outputs}
        if self.operation != "explain":
            response["timestamp"] = timestamp(self.when_ns)
        if model.version:
            response["model_version"] = model.version
        if model.model_endpoint_uid:
            response["model_endpoint_uid"] = model.model_endpoint_uid
        return response

    def finished(self, response: Any) -> Event:
        """Record the call and put its response into the event."""
        model, event = self.model, self.event
        elapsed = time.perf_counter_ns() - self.start
        if model.observe is not None:
            model.observe(elapsed * 1e-9, False)
        if model.context.recorder is not None:
            self.microseconds = elapsed // 1000
            model.context.recorder.record(model.prediction(self, response, None))
            request_metrics.set(None)
        if self.wanted is not None and isinstance(response, dict):
            response = oip.encode(response, self.wanted, model.output_names(), model.name, model.version)
        model.answer(event, response)
        return event

    def failed(self, exc: Exception) -> None:
        """Record a call that raised."""
        model = self.model
        elapsed = time.perf_counter_ns() - self.start
        self.event._model = model.name  # for the error that the caller gets
        if isinstance(exc, ServegraphError):
            exc.model = exc.model or model.name
        if model.observe is not None:
            model.observe(elapsed * 1e-9, True)
        if model.context.recorder is not None:
            self.microseconds = elapsed // 1000
            model.context.recorder.record(model.prediction(self, None, exc))
            request_metrics.set(None)
