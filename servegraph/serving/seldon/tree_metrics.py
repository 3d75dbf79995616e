"""What Seldon's executor counts: the requests of a deployment, and its calls of each node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from servegraph.serving.seldon.identity import UnitIdentity

REGISTRY: Final = "metrics.registry"
"""The service of a runtime that keeps metrics; see `Registry`."""
SERVER: Final = "seldon_api_executor_server_requests_seconds"
CLIENT: Final = "seldon_api_executor_client_requests_seconds"
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms, in seconds."""
_SERVER_HELP: Final = "Time of a deployment's requests, in seconds."
_CLIENT_HELP: Final = "Time of the calls of a node, in seconds."
_PATHS: Final[Mapping[str, str]] = {"down": "predict", "up": "transform-output", "health_status": "health/status"}

ObserveServer = Callable[[str, str, float, int], None]
"""Told of each request: predictor, service, seconds, status."""
ObserveNode = Callable[[float, int], None]
"""Told of each call of a node: seconds and status."""


class _Histogram(Protocol):
    def observe(self, seconds: float) -> None: ...


class Registry(Protocol):
    """Makes the metrics that a runtime shows."""

    def histogram(self, name: str, help: str, labels: Mapping[str, str], buckets: Sequence[float]) -> _Histogram:
        """A histogram with these labels."""


def server_observer(services: Mapping[str, Any], deployment: str, versions: Mapping[str, str]) -> ObserveServer | None:
    """What is told of a deployment's requests; ``None`` where nothing is counted.

    Args:
        services: those of the runtime.
        deployment: the deployment's name.
        versions: for each predictor its version.
    """
    registry: Registry | None = services.get(REGISTRY)
    if registry is None:
        return None
    known: dict[tuple[str, str, int], _Histogram] = {}

    def observe(predictor: str, service: str, seconds: float, status: int) -> None:
        found = known.get((predictor, service, status))
        if found is None:
            labels = {
                "deployment_name": deployment,
                "predictor_name": predictor,
                "predictor_version": versions.get(predictor, ""),
                "service": service,
                "method": "post" if service in ("predictions", "feedback") else "get",
                "code": str(status),
            }
            found = known[predictor, service, status] = registry.histogram(SERVER, _SERVER_HELP, labels, BUCKETS)
        found.observe(seconds)

    return observe


def node_observer(services: Mapping[str, Any], identity: UnitIdentity, op: str) -> ObserveNode | None:
    """What is told of a node's calls of one operation; ``None`` where nothing is counted."""
    registry: Registry | None = services.get(REGISTRY)
    if registry is None:
        return None
    known: dict[int, _Histogram] = {}

    def observe(seconds: float, status: int) -> None:
        found = known.get(status)
        if found is None:
            labels = {
                "deployment_name": identity.deployment_id,
                "predictor_name": identity.predictor_id,
                "predictor_version": identity.predictor_version,
                "service": f"/{_PATHS.get(op, op).replace('_', '-')}",
                "method": "post",
                "code": str(status),
                "model_name": identity.unit_id,
                "model_image": identity.image_name,
                "model_version": identity.image_version,
            }
            found = known[status] = registry.histogram(CLIENT, _CLIENT_HELP, labels, BUCKETS)
        found.observe(seconds)

    return observe
