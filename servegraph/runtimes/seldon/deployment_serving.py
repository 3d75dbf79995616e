"""What a server gives a deployment besides HTTP: the metrics of its components, and Seldon's gRPC service."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from servegraph.graph.flow import RouterGraph
from servegraph.runtimes.control import METRICS_PATHS, MORE_METRICS
from servegraph.runtimes.listening import GRPC
from servegraph.settings import ServerSettings

if TYPE_CHECKING:
    from servegraph.runtimes.function import ServingFunction
    from servegraph.runtimes.local import LocalApplication

ROUTER: Final = "servegraph.serving.seldon.deployment_router.SeldonDeploymentRouter"
"""The class at the root of a deployment's graph."""


class DeploymentServing:
    """The parts of a server that are for a deployment.

    Args:
        directory: the folder that the workers share for their metrics.
        slot: the worker's number.
    """

    def __init__(self, directory: Path | None, slot: int) -> None:
        from servegraph.runtimes.seldon.metrics import SeldonMetricSink, open_metrics
        from servegraph.serving.seldon.step import METRIC_SINKS

        self.metrics = open_metrics(directory, slot)
        """What components report."""
        self.services: dict[str, Any] = {
            METRIC_SINKS: partial(SeldonMetricSink, self.metrics),
            METRICS_PATHS: ("/prometheus",),
            MORE_METRICS: (self.metrics.render,),
        }
        """What its steps find by name."""

    def attach(self, application: LocalApplication, settings: ServerSettings) -> None:
        """Give an application the gRPC edge of the deployment, where grpcio is installed."""
        try:
            import grpc  # noqa: F401
        except ImportError:
            return
        from servegraph.runtimes.grpc_edge import GrpcEdge, GrpcOptions
        from servegraph.runtimes.seldon.grpc_methods import graph_method
        from servegraph.serving.seldon.deployment_pages import GRAPH_METADATA, MODEL_METADATA
        from servegraph.serving.seldon.proto import prediction_pb2  # noqa: F401 - reflection shows its messages

        paths = {
            "Predict": "/predict",
            "SendFeedback": "/send-feedback",
            "ModelMetadata": MODEL_METADATA,
            "GraphMetadata": GRAPH_METADATA,
        }
        methods = {f"/seldon.protos.Seldon/{name}": graph_method(application, path) for name, path in paths.items()}
        options = GrpcOptions.of(settings)
        application.edges[GRPC] = GrpcEdge(methods, options, ready=lambda: application.ready)


def serving_of(function: ServingFunction, directory: Path | None, slot: int) -> DeploymentServing | None:
    """What a function needs that is a deployment; ``None`` for all others."""
    return DeploymentServing(directory, slot) if is_deployment(function) else None


def is_deployment(function: ServingFunction) -> bool:
    """Whether the graph of a function is that of a deployment."""
    graph = function.spec.graph
    if not isinstance(graph, RouterGraph):
        return False
    name = graph.class_name
    if isinstance(name, type):
        name = f"{name.__module__}.{name.__qualname__}"
    return bool(name == ROUTER)
