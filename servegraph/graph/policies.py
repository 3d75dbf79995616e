"""What a step does about time, failure and load: `StepPolicy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from servegraph.errors import GraphError, closest

OnError = Literal["fail", "skip", "fallback", "default"]
Execution = Literal["auto", "inline", "thread"]


class _Unset:
    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""Tells "not given" from ``None``, which is a value."""


# Field, type, least value, whether it may be None.
_NUMBERS: Final[tuple[tuple[str, Any, int, bool], ...]] = (
    ("timeout_s", (int, float), 0, True),
    ("retries", int, 0, False),
    ("backoff_s", (int, float), 0, False),
    ("backoff_max_s", (int, float), 0, False),
    ("max_in_flight", int, 1, True),
)


@dataclass(frozen=True, slots=True, repr=False)
class StepPolicy:
    """How a step is run. Every field has a default that changes nothing."""

    timeout_s: float | None = None
    """Seconds one try may take. A coroutine is cancelled; a call on a thread is abandoned. Then the step has failed."""
    retries: int = 0
    """How often a failed try is repeated. Only for steps that may safely run twice."""
    backoff_s: float = 0.1
    """Seconds before the first repetition; doubled for each further one."""
    backoff_max_s: float = 10.0
    """The longest wait between two tries, in seconds."""
    on_error: OnError = "fail"
    """When the last try failed: ``fail``; ``skip`` (the event goes on as it came); ``fallback`` (the event goes to
    the step named by ``fallback``); ``default`` (the body becomes ``default``)."""
    fallback: str | None = None
    """The step that takes over with ``on_error="fallback"``; its output goes where this step's would have gone."""
    default: Any = UNSET
    """The body that stands in with ``on_error="default"``."""
    max_in_flight: int | None = None
    """How many events may be inside the step at once; more wait, within the request's deadline."""
    execution: Execution = "auto"
    """Where synchronous code runs when a server's event loop drives the graph: ``thread``; ``inline`` (on the event
    loop: only for code that never blocks); ``auto`` (a thread, until it has shown itself fast)."""

    def __post_init__(self) -> None:
        for name, kinds, least, optional in _NUMBERS:
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or value < least or value != value:
                wanted = "a whole number" if kinds is int else "a number"
                raise GraphError(f"policy: {name} must be {wanted} of at least {least}, not {value!r}")
        if self.timeout_s == 0:
            raise GraphError("policy: timeout_s must be above 0")
        if self.on_error not in ("fail", "skip", "fallback", "default"):
            choices = ("fail", "skip", "fallback", "default")
            raise GraphError(f"policy: on_error is {self.on_error!r}; {closest(self.on_error, choices)}")
        if self.execution not in ("auto", "inline", "thread"):
            raise GraphError(f"policy: execution is {self.execution!r}; valid: auto, inline, thread")
        if (self.on_error == "fallback") != (self.fallback is not None):
            raise GraphError("policy: on_error='fallback' and fallback='<step>' go together")
        if (self.on_error == "default") != (self.default is not UNSET):
            raise GraphError("policy: on_error='default' and default=<value> go together")

    @property
    def plain(self) -> bool:
        """Whether a step with this policy can be run by a plain call, without an event loop."""
        return self.timeout_s is None and self.max_in_flight is None and self.retries == 0

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            # The stand-in body may be an array, which does not say whether it is equal to something.
            if value is not f.default and (f.name == "default" or value != f.default):
                out[f.name] = value
        return out

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self.to_dict().items())
        return f"StepPolicy({inner})"


DEFAULT_POLICY: Final = StepPolicy()


def as_policy(value: StepPolicy | Mapping[str, Any] | None) -> StepPolicy:
    """A policy from an object, from the mapping in a spec, or the default one.

    Raises:
        GraphError: a field is unknown or has a value it cannot take.
    """
    if value is None:
        return DEFAULT_POLICY
    if isinstance(value, StepPolicy):
        return value
    if not isinstance(value, Mapping):
        raise GraphError(f"policy must be a StepPolicy or a mapping of its fields, not {type(value).__name__}")
    names = [f.name for f in fields(StepPolicy)]
    for key in value:
        if key not in names:
            raise GraphError(f"policy has no field {key!r}; {closest(str(key), names)}")
    return StepPolicy(**value)
