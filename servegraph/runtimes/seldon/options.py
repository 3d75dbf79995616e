"""What a microservice is started with, as plain data that the supervisor can hand to its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class MicroserviceOptions:
    """One component and how it is served."""

    component: str
    """Name of its class: ``Name``, ``package.module.Name``, or a packaged server."""
    parameters: list[Any] = field(default_factory=list)
    """Arguments of its class, with types."""
    unit: dict[str, str] = field(default_factory=dict)
    """The fields of `UnitIdentity`."""
    threads: int = 1
    """How many of its methods may run at the same time in one worker."""
    grpc: bool = True
    """Whether gRPC is served."""
    metrics_path: str = "/metrics"
    """Path of the page on the metrics port."""
    metrics_in_response: bool = True
    """Whether callers are shown the component's metrics."""
    count_feedback: bool = True
    """Whether feedback and rewards are counted."""
    passthrough: bool = False
    """Whether ``/predict`` hands on the undecoded body."""
    metadata: str = ""
    """YAML or JSON over what the component says of itself."""
    flask: dict[str, bool] = field(default_factory=dict)
    """Fields of Flask's configuration, for components that use it."""
    state_store: str = ""
    """Where the component's state is kept; ``off`` for nowhere."""
    grpc_options: dict[str, Any] = field(default_factory=dict)
    """Fields of the gRPC edge's options that differ from the server's settings."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The options of `to_dict`."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})
