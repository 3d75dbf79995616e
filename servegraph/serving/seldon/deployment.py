"""A SeldonDeployment as data: what its YAML says, with defaults filled in, frozen.

`deployment_reading.py` makes these of YAML or JSON and tells what is wrong where; `deployment_steps` (in the
runtimes) makes a graph of them. Nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

EMPTY: Final[Mapping[str, str]] = MappingProxyType({})

TYPES: Final = ("UNKNOWN_TYPE", "MODEL", "ROUTER", "COMBINER", "TRANSFORMER", "OUTPUT_TRANSFORMER")
METHODS: Final = ("TRANSFORM_INPUT", "TRANSFORM_OUTPUT", "ROUTE", "AGGREGATE", "SEND_FEEDBACK")
HARD_CODED: Final = ("SIMPLE_MODEL", "SIMPLE_ROUTER", "RANDOM_ABTEST", "AVERAGE_COMBINER")
"""Implementations that need no code: what they are overrides the node's type and methods."""
UNKNOWN_IMPLEMENTATION: Final = "UNKNOWN_IMPLEMENTATION"
WITHOUT_MODEL_URI: Final = ("HUGGINGFACE_SERVER",)
"""Packaged servers that get their model by a parameter."""
REST_TIMEOUT: Final = "seldon.io/rest-timeout"
GRPC_TIMEOUT: Final = "seldon.io/grpc-timeout"
MESSAGE_SIZE: Final = "seldon.io/grpc-max-message-size"
CLASS: Final = "servegraph.io/class"
"""The annotation that names the local code of a component, and with ``.NODE`` behind it that of one of several."""


@dataclass(frozen=True, slots=True)
class UnitParameter:
    """A parameter of a node, as text with its type."""

    name: str
    value: str
    type: str = "STRING"

    def to_dict(self) -> dict[str, str]:
        """The form in which it stands in a deployment."""
        return {"name": self.name, "value": self.value, "type": self.type}


@dataclass(frozen=True, slots=True)
class UnitEndpoint:
    """Where a node that runs elsewhere listens."""

    host: str = ""
    port: int = 0
    """The port of its protocol; 0 where the deployment leaves it to the cluster."""
    type: str = "REST"
    """``REST`` or ``GRPC``."""

    def to_dict(self) -> dict[str, str | int]:
        """The arguments of a remote unit."""
        return {"host": self.host, "port": self.port, "type": self.type}


@dataclass(frozen=True, slots=True)
class UnitLogger:
    """Which payloads of a node are logged, and where to."""

    mode: str = "all"
    """``all``, ``request`` or ``response``."""
    url: str = ""
    """Where the events go; empty is the server's default."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container that the cluster would run for a node."""

    name: str
    image: str = ""
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    env_elsewhere: tuple[str, ...] = ()
    """The variables whose values are elsewhere in the cluster, such as in secrets."""
    annotations: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Those of its pod."""
    alone: bool = True
    """Whether it is the only one of its pod, so that the pod's annotations are about it."""


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """A node of a graph."""

    name: str
    path: str
    """Where it stands in the deployment: ``spec.predictors[0].graph.children[1]``."""
    type: str = "MODEL"
    implementation: str = UNKNOWN_IMPLEMENTATION
    methods: tuple[str, ...] = ()
    children: tuple[UnitSpec, ...] = ()
    endpoint: UnitEndpoint | None = None
    parameters: tuple[UnitParameter, ...] = ()
    model_uri: str = ""
    logger: UnitLogger | None = None
    container: Container | None = None

    @property
    def hard_coded(self) -> bool:
        """Whether its implementation is built in."""
        return self.implementation in HARD_CODED

    @property
    def packaged(self) -> bool:
        """Whether its implementation is a packaged server."""
        return self.implementation != UNKNOWN_IMPLEMENTATION and not self.hard_coded

    @property
    def image(self) -> str:
        """What the request's path says of the node: its container's image, else its implementation."""
        if self.container is not None and self.container.image:
            return self.container.image
        return "" if self.implementation == UNKNOWN_IMPLEMENTATION else self.implementation

    def walk(self) -> Iterator[UnitSpec]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """One of the graphs of a deployment, with its share of the traffic."""

    name: str
    path: str
    graph: UnitSpec
    traffic: int = 0
    """Percent of the requests."""
    shadow: bool = False
    """It gets a copy of each request; its answers go nowhere."""
    annotations: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Its own over those of the deployment."""
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Environment variables of its orchestrator."""

    @property
    def version(self) -> str:
        """Its label ``version``."""
        return self.labels.get("version", self.name)

    def timeout_s(self, kind: str = "REST") -> float | None:
        """Seconds that one call of a node may take; None is any time.

        Args:
            kind: how the node is asked, ``REST`` or ``GRPC``; where its own annotation is missing, the other counts.
        """
        own, other = (GRPC_TIMEOUT, REST_TIMEOUT) if kind == "GRPC" else (REST_TIMEOUT, GRPC_TIMEOUT)
        text = self.annotations.get(own) or self.annotations.get(other)
        return None if not text else float(text) / 1000

    @property
    def max_message_bytes(self) -> int | None:
        """Bytes of the largest message over gRPC; None leaves it to the server."""
        text = self.annotations.get(MESSAGE_SIZE)
        return None if not text else int(text)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A SeldonDeployment."""

    name: str
    namespace: str = "default"
    any_namespace: bool = False
    """Whether its paths hold for any namespace, because it names none."""
    protocol: str = "seldon"
    transport: str = "rest"
    predictors: tuple[PredictorSpec, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    @property
    def split(self) -> tuple[PredictorSpec, ...]:
        """The predictors that answer requests."""
        return tuple(p for p in self.predictors if not p.shadow)
