"""Serves one Seldon component: REST, gRPC and metrics from one process, with one copy of the model."""

from __future__ import annotations

import logging
import re
import threading
from functools import partial
from typing import Any, Final

from servegraph.runtimes.edges import AsgiEdge
from servegraph.runtimes.function import ServingFunction, new_function
from servegraph.runtimes.listening import GRPC, METRICS
from servegraph.runtimes.local import LocalApplication, make_application, metrics_directory
from servegraph.runtimes.seldon.grpc_methods import grpc_edge
from servegraph.runtimes.seldon.metrics import MetricsPage, SeldonMetricSink, open_metrics
from servegraph.runtimes.seldon.options import MicroserviceOptions
from servegraph.runtimes.worker_protocol import WorkerInfo
from servegraph.serving.seldon.awaiting import waited_for
from servegraph.serving.seldon.endpoint import ComponentEndpoint
from servegraph.serving.seldon.locate import class_name
from servegraph.serving.seldon.state_store import state_key
from servegraph.serving.seldon.step import METRIC_SINKS
from servegraph.settings import ServerSettings

logger = logging.getLogger("servegraph")

_NOT_NAME: Final = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME: Final = 63
FACTORY: Final = "servegraph.runtimes.seldon.microservice:build_microservice"


def build_microservice(target: Any, settings: ServerSettings, worker: WorkerInfo | None) -> LocalApplication:
    """The application of a worker that serves one component; ``target`` is `MicroserviceOptions.to_dict`.

    Raises:
        GraphError: there is no such component, or it cannot be made.
        Exception: whatever the component's own module or constructor raises.
    """
    options = MicroserviceOptions.from_dict(target)
    metrics = open_metrics(metrics_directory(worker), worker.slot if worker is not None else 0)
    sinks = partial(SeldonMetricSink, metrics, count_feedback=options.count_feedback)
    function = component_function(options)
    application = make_application(function, settings, function.namespaces(), worker, {METRIC_SINKS: sinks})
    application.edges[METRICS] = AsgiEdge(MetricsPage(metrics, options.metrics_path), settings.limits)
    if options.grpc:
        application.edges[GRPC] = grpc_edge(application, settings, options.grpc_options)
    return application


def component_function(options: MicroserviceOptions) -> ServingFunction:
    """The function whose only step is the component."""
    name = class_name(options.component)
    function = new_function(function_name(name), kind="serving")
    graph = function.set_topology("flow", engine="async")
    graph.to(
        "servegraph.runtimes.seldon.microservice.MicroserviceEndpoint",
        name=name,
        component=options.component,
        parameters=options.parameters,
        unit=options.unit,
        threads=options.threads,
        metrics_in_response=options.metrics_in_response,
        passthrough=options.passthrough,
        metadata=options.metadata,
        flask_config=options.flask,
        state_store=options.state_store,
    ).respond()
    return function


def function_name(component: str) -> str:
    """A function's name for a component's class, which may be called in any script and at any length."""
    return _NOT_NAME.sub("-", component.lower())[:_LONGEST_NAME].strip("-") or "component"


class MicroserviceEndpoint(ComponentEndpoint):
    """A component that is served alone, and whose own service runs beside it."""

    def post_init(self, mode: str = "sync", **kwargs: Any) -> None:
        """Make the component ready, and start its own service."""
        super().post_init(mode, **kwargs)
        service = getattr(self.user_object, "custom_service", None)
        if callable(service) and self.context.worker_id == 0:
            threading.Thread(
                target=_serve_custom, args=(service, self.name), name="custom service", daemon=True
            ).start()

    def state_key(self) -> str:
        """What Seldon's runtime kept the component under."""
        unit = self.component.identity
        return state_key(unit.deployment_id, unit.predictor_id, unit.unit_id)


def _serve_custom(service: Any, name: str) -> None:
    try:
        waited_for(service())
    except Exception:
        logger.exception("the custom service of %s has ended with an error", name)
