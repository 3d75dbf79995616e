"""What a node of a tree is told besides its code, as a step's spec holds it: `UnitOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from servegraph.errors import GraphError, SettingsError, closest
from servegraph.serving.seldon.deployment import HARD_CODED, METHODS, TYPES, UNKNOWN_IMPLEMENTATION
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.step_state import state_place

CALLS_OF_TYPE: Final[Mapping[str, tuple[str, ...]]] = {
    "UNKNOWN_TYPE": (),
    "MODEL": ("predict", "send_feedback"),
    "TRANSFORMER": ("transform_input",),
    "OUTPUT_TRANSFORMER": ("transform_output",),
    "ROUTER": ("route", "send_feedback"),
    "COMBINER": ("aggregate",),
}
CALL_OF_METHOD: Final[Mapping[str, str]] = {
    "TRANSFORM_INPUT": "transform_input",
    "TRANSFORM_OUTPUT": "transform_output",
    "ROUTE": "route",
    "AGGREGATE": "aggregate",
    "SEND_FEEDBACK": "send_feedback",
}


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """A node's place and kind; every field may be left out."""

    name: str = ""
    """The node's name; that of its step where none is given."""
    type: str = "MODEL"
    """``MODEL``, ``ROUTER``, ``COMBINER``, ``TRANSFORMER``, ``OUTPUT_TRANSFORMER`` or ``UNKNOWN_TYPE``."""
    methods: tuple[str, ...] = ()
    """Operations besides those of its type: ``TRANSFORM_INPUT``, ``SEND_FEEDBACK``, …."""
    implementation: str = ""
    """``SIMPLE_MODEL`` and the like, or a packaged server."""
    image: str = ""
    """What the request's path says of the node."""
    deployment: str = ""
    predictor: str = ""
    version: str = ""
    """Of the predictor."""
    timeout_s: float | None = None
    """Seconds that one call of the node may take."""
    threads: int = 1
    """How many of the component's methods may run at the same time; 0 is any number."""
    endpoint: Mapping[str, Any] | None = None
    """``host``, ``port`` and ``type`` (``REST`` or ``GRPC``) of a node that runs elsewhere."""
    forward_headers: tuple[str, ...] | None = None
    """Headers of a request that a remote node is sent; nearly all where it is left out, see `remote_unit.KEPT_BACK`."""
    logged: tuple[str, ...] = ()
    """Which payloads are logged: ``request``, ``response``."""
    log_url: str = ""
    """Where they are logged."""
    metadata: str = ""
    """YAML or JSON over what the component says of itself (``MODEL_METADATA``)."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its container; see `NodeEnvironment`."""
    env_elsewhere: tuple[str, ...] = ()
    """Variables whose values only its cluster knows."""
    state_store: str | bool = ""
    """Where the component's state is kept: an address, ``on`` (where the server keeps it, else Redis on this
    machine), ``off``; empty leaves it to the server."""

    @classmethod
    def from_dict(cls, given: Mapping[str, Any] | UnitOptions | None) -> UnitOptions:
        """The options that a spec holds.

        Raises:
            GraphError: one is unknown or has a value that it cannot have.
        """
        if isinstance(given, UnitOptions):
            return given
        names = [f.name for f in fields(cls)]
        for key in given or {}:
            if key not in names:
                raise GraphError(f"unit has no {key!r}; {closest(str(key), names)}")
        lists = ("methods", "logged", "forward_headers", "env_elsewhere")
        values: dict[str, Any] = {k: tuple(v) if k in lists and v is not None else v for k, v in (given or {}).items()}
        options = cls(**values)
        options.check()
        return options

    def check(self) -> None:
        """Raise `GraphError` for a value that is none of the valid ones."""
        if self.type not in TYPES:
            raise GraphError(f"unit: type is {self.type!r}; {closest(self.type, TYPES)}")
        for method in self.methods:
            if method not in METHODS:
                raise GraphError(f"unit: methods has {method!r}; {closest(method, METHODS)}")
        for kind in self.logged:
            if kind not in ("request", "response"):
                raise GraphError(f"unit: logged has {kind!r}; valid: request, response")
        if not isinstance(self.env, Mapping) or not all(isinstance(x, str) for item in self.env.items() for x in item):
            raise GraphError(f"unit: env is {self.env!r}; it is an object of texts")
        try:
            state_place(self.state_store)
        except SettingsError as exc:
            raise GraphError(f"unit: state_store: {exc.message}") from exc

    @property
    def hard_coded(self) -> bool:
        """Whether it needs no code."""
        return self.implementation in HARD_CODED

    @property
    def packaged(self) -> str:
        """The packaged server that it asks for, if any."""
        return "" if self.hard_coded or self.implementation == UNKNOWN_IMPLEMENTATION else self.implementation

    def operations(self) -> tuple[str, ...]:
        """The operations that the node has: those of its type, and those its methods add."""
        found = dict.fromkeys(CALLS_OF_TYPE[self.type])
        found.update(dict.fromkeys(CALL_OF_METHOD[m] for m in self.methods))
        return tuple(found)

    def identity(self, name: str) -> UnitIdentity:
        """Who the node is."""
        return UnitIdentity(self.name or name, self.image, self.predictor, self.version, self.deployment)
