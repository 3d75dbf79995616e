"""Settings of servers of Seldon's protocol, where they differ from those of other servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from servegraph.serving.seldon.deployment import Deployment

_LARGEST: Final = 128 * 1024**2

DEFAULTS: Final[Mapping[str, Any]] = {
    "timeouts.request_s": 5000.0,
    "limits.body_json_bytes": _LARGEST,
    "limits.body_binary_bytes": _LARGEST,
    "limits.json_elements": 16_000_000,
}
"""Of components and of deployments: Seldon's servers had no limits, and clients count on it."""


def deployment_settings(deployment: Deployment) -> dict[str, Any]:
    """The settings of a server for a deployment.

    Over gRPC its executor took messages of any size. Here they may be as large as they may be over REST, or as large
    as the annotation says; several predictors share the port, and the largest number counts.
    """
    sizes = [p.max_message_bytes for p in deployment.predictors if p.max_message_bytes is not None]
    return {**DEFAULTS, "grpc.max_message_bytes": max(sizes, default=_LARGEST)}
