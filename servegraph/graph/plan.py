"""A graph compiled for running: bound calls wired to each other, nothing left to look up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from servegraph.errors import GraphError
from servegraph.graph.builtin import Merge
from servegraph.graph.calls import Call
from servegraph.graph.events import DROP, Event
from servegraph.graph.policies import DEFAULT_POLICY, StepPolicy


class Unit:
    """One step, or a chain of plain steps that run as one call, and what follows."""

    __slots__ = (
        "answers",
        "call",
        "chooses",
        "fallback",
        "index",
        "leads",
        "max_iterations",
        "merge",
        "merge_expected",
        "mutates",
        "name",
        "next",
        "on_error",
        "outlets",
        "policy",
        "responder",
        "stand_ins",
        "target",
        "uplinks",
    )

    def __init__(self, name: str, call: Call, policy: StepPolicy = DEFAULT_POLICY) -> None:
        self.name = name
        self.call = call
        self.policy = policy
        self.target: Any = None
        """The object or function behind a unit of one step."""
        self.next: tuple[Unit, ...] = ()
        self.on_error: Unit | None = None
        self.fallback: Unit | None = None
        self.chooses = False
        """Whether the call leaves the names of the next units on the event."""
        self.outlets: dict[str, Unit] = {}
        self.responder = False
        self.answers = False
        """A last step whose output is the answer because no step is marked with ``respond()``."""
        self.leads = True
        """Whether what happens here can still become the answer."""
        self.mutates = True
        """Whether this step, or one after it up to the next merge, may change the body it is given."""
        self.merge: Merge | None = None
        self.merge_expected = 0
        self.uplinks: tuple[str, ...] = ()
        self.stand_ins: dict[str, str] = {}
        """For a merge: the uplink in whose place an error handler's event counts."""
        self.max_iterations = 0
        self.index = 0

    def __repr__(self) -> str:
        return f"<Unit {self.name!r} -> {[u.name for u in self.next]}>"


@dataclass(slots=True)
class Route:
    """A route of a router, ready to be called."""

    key: str
    call: Call
    target: Any
    """The object or function behind the route."""
    model_name: str = ""
    version: str = ""

    async def run(self, event: Event) -> Event:
        """The route's answer, as an event; raises what the route raises."""
        result = await self.call.run(event, event._run)
        if not isinstance(result, Event):
            raise GraphError(f"route {self.key!r} gave {type(result).__name__} instead of the event")
        return result


@dataclass(slots=True)
class Plan:
    """Everything the engine needs to run a graph."""

    starts: tuple[Unit, ...]
    units: tuple[Unit, ...]
    on_error: Unit | None = None
    plain: bool = True
    """Whether a plain call can run it: nothing in it needs an event loop."""
    background: bool = False
    """Whether work may go on after the answer."""
    detached: bool = False
    """Async flow without a responder: the caller gets ``{"id": ...}`` at once."""
    fail_fast: bool = False
    direct: Unit | None = None
    """The only unit, when nothing but a call is needed."""
    objects: dict[str, Any] = field(default_factory=dict)
    """The object of each step and route (``router/route``), for loading, readiness and closing."""


BodyFunction = Callable[[Any], Any]


def body_function(name: str, function: BodyFunction, read: Any, write: Any) -> BodyFunction:
    """A function of the body that reads its input from a path and writes its result to one."""
    if read is None and write is None:
        return function
    if write is None:
        return lambda body: function(read(body))
    if read is None:
        return lambda body: _written(body, function(body), write)
    return lambda body: _written(body, function(read(body)), write)


def _written(body: Any, result: Any, write: Callable[[Any, Any], Any]) -> Any:
    return DROP if result is DROP else write(body, result)


def async_body_function(function: Callable[[Any], Any], read: Any, write: Any) -> Callable[[Event], Any]:
    """A coroutine function of the event, from one of the body."""

    async def call(event: Event) -> Event | None:
        body = event.body
        result = await function(body if read is None else read(body))
        if result is DROP:
            return None
        event.body = result if write is None else write(body, result)
        return event

    return call


def chain(steps: Sequence[tuple[str, BodyFunction]]) -> Callable[[Event], Event | None]:
    """A function of the event that runs body functions in order; the event knows which one is running."""
    if len(steps) == 1:
        return _one(steps[0][1])
    pairs = tuple(steps)

    def call(event: Event) -> Event | None:
        body = event.body
        try:
            for event._at, function in pairs:  # where a failure is looked for
                body = function(body)
                if body is DROP:
                    return None
        finally:
            event.body = body  # on a failure: as it came to the step that failed
        return event

    return call


def reachable(units: Iterable[Unit]) -> set[Unit]:
    """These units and all that may run after them."""
    seen: set[Unit] = set()
    stack = list(units)
    while stack:
        unit = stack.pop()
        if unit not in seen:
            seen.add(unit)
            stack.extend(unit.next)
            if unit.on_error is not None:
                stack.extend(unit.on_error.next)
    return seen


def _one(function: BodyFunction) -> Callable[[Event], Event | None]:
    def call(event: Event) -> Event | None:
        body = function(event.body)
        if body is DROP:
            return None
        event.body = body
        return event

    return call
