"""Steps that come with the package: filter, map, extend, choice by field, merge."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from servegraph.errors import GraphError, UnprocessableError
from servegraph.graph.copying import isolate
from servegraph.graph.events import DROP, Event
from servegraph.graph.expressions import compile_expression


class Filter:
    """Lets an event pass when ``fn(body)`` is true; otherwise the event ends here.

    Args:
        fn: a function, or (as ``_fn`` in a spec) a function's name or an ``"(expression)"`` over ``event``.
    """

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn

    def do(self, body: Any) -> Any:
        """The body, or `DROP`."""
        return body if self.fn(body) else DROP


class Map:
    """Replaces the body by ``fn(body)``; arguments as for `Filter`."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn

    def do(self, body: Any) -> Any:
        """What the function makes of the body."""
        return self.fn(body)


class Extend:
    """Adds the keys of ``fn(body)`` to a dict body; arguments as for `Filter`."""

    def __init__(self, fn: Callable[[Any], Mapping[str, Any]]) -> None:
        self.fn = fn

    def do(self, body: Any) -> Any:
        """A new dict: the body's keys and those of the function's result."""
        if not isinstance(body, Mapping):
            raise UnprocessableError(f"Extend takes a body that is an object, not {type(body).__name__}")
        return {**body, **self.fn(body)}


class ChoiceByField:
    """Sends an event to the step or steps that a field of its body names.

    Args:
        field_name: the key in the body; its value is one step name or a list of them.
    """

    def __init__(self, field_name: str) -> None:
        self.field_name = field_name

    def select_outlets(self, body: Any) -> list[str]:
        """The names of the next steps.

        Raises:
            UnprocessableError: the field is missing, empty or holds something other than names.
        """
        if not isinstance(body, Mapping) or self.field_name not in body:
            raise UnprocessableError(f"the body has no field {self.field_name!r}, which names the next step")
        value = body[self.field_name]
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not names or not all(isinstance(n, str) and n for n in names):
            raise UnprocessableError(f"field {self.field_name!r} must hold the name of a step or a list of names")
        return list(names)


class Merge:
    """Joins what several steps give for one event into one list, in the order of the steps it runs after.

    Without ``key_path`` it joins the branches of one request; the engine keeps the parts with the request, so
    nothing is left over when a branch drops its event. With ``key_path`` it joins events of different requests that
    have the same key: each caller but the last gets "no result" at once, the last one gets the list.

    Args:
        key_path: an expression over ``event`` (the body) that gives the key, such as ``"event['order']"``.
        expected_num_events: how many events make a set; the number of steps it runs after where none is given.
        max_behind: how many incomplete sets are kept (``key_path`` only); the oldest is given up for a new one.
        partial: when a branch has ended without reaching the merge: pass on what has arrived instead of nothing.
        full_event: ``merge_function`` gets and gives events.
    """

    merges = True

    def __init__(
        self,
        full_event: bool | None = None,
        key_path: str | None = None,
        max_behind: int | None = None,
        expected_num_events: int | None = None,
        partial: bool = False,
        context: Any = None,
        name: str = "",
    ) -> None:
        if expected_num_events is not None and expected_num_events < 1:
            raise GraphError(f"expected_num_events must be at least 1, not {expected_num_events}")
        self.full_event = bool(full_event)
        self.expected_num_events = expected_num_events
        self.partial = partial
        self.max_behind = 64 if max_behind is None else max_behind
        if self.max_behind < 1:
            raise GraphError(f"max_behind must be at least 1, not {max_behind}")
        self.context = context
        self.name = name
        self._key = compile_expression(key_path) if key_path else None
        self._sets: OrderedDict[Any, list[Event]] = OrderedDict()
        self._given_up: OrderedDict[Any, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def across_requests(self) -> bool:
        """Whether events of different requests are joined."""
        return self._key is not None or type(self).get_join_key is not Merge.get_join_key

    def get_join_key(self, event: Event) -> Any:
        """The key by which events of different requests belong together."""
        return event.id if self._key is None else self._key(event.body)

    def merge_function(self, last_event: Event, events: list[Event]) -> Event:
        """One event from those that belong together; override for another shape than a list of bodies."""
        bodies: list[Any] = []
        seen: set[int] = set()
        for event in events:
            # Branches that change nothing share one body; what comes behind may change the parts one by one.
            bodies.append(isolate(event.body) if id(event.body) in seen else event.body)
            seen.add(id(event.body))
        return last_event.fork(bodies)

    def collect(self, event: Event, expected: int) -> Event | None:
        """Add an event to its set; the merged event once the set is complete, else ``None``.

        Raises:
            UnprocessableError: the event's set was given up before it came, or its key is an object or a list.
        """
        key = self.get_join_key(event)
        try:
            hash(key)
        except TypeError:
            raise UnprocessableError(
                f"merge {self.name!r}: the key must be a number, a string or the like, not a {type(key).__name__}"
            ) from None
        with self._lock:
            if key in self._given_up:
                raise UnprocessableError(f"merge {self.name!r}: the set {key!r} was given up before this event came")
            parts = self._sets.setdefault(key, [])
            parts.append(event)
            if len(parts) >= expected:
                del self._sets[key]
                return self.merge_function(event, parts)
            evicted = self._make_room()
        if evicted is not None and self.context is not None:
            old_key, old = evicted
            message = f"set {old_key!r} was given up with {len(old)} of {expected} events"
            self.context.push_error(old[-1], message, source=self.name)
        return None

    def _make_room(self) -> tuple[Any, list[Event]] | None:
        if len(self._sets) <= self.max_behind:
            return None
        evicted = self._sets.popitem(last=False)
        self._given_up[evicted[0]] = None
        if len(self._given_up) > self.max_behind:
            self._given_up.popitem(last=False)
        return evicted
