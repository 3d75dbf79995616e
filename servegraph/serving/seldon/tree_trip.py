"""The state of one request on its way through a tree: what the nodes have said so far, and who they are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, Protocol

from servegraph.graph.copying import isolate
from servegraph.graph.events import Event
from servegraph.graph.run import Run
from servegraph.serving.seldon.message import Feedback, Message, Meta

PUID: Final = "seldon-puid"
"""The header with the id of a request."""
_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuv"
_LENGTH: Final = 26
_random = random.SystemRandom()


class PayloadSink(Protocol):
    """Takes copies of what goes into a node and comes out of it; never waits, never raises."""

    def put(self, kind: str, node: str, url: str, puid: str, message: Any) -> None:
        """Hand a payload over: ``request``, ``response`` or ``feedback``."""


def new_puid() -> str:
    """An id for a request: 26 characters of base 32, 130 random bits."""
    bits = _random.getrandbits(5 * _LENGTH)
    return "".join([_ALPHABET[(bits >> shift) & 31] for shift in range(0, 5 * _LENGTH, 5)])


class Trip:
    """One request on its way through a tree, or through one branch of it.

    Args:
        event: the request; each branch has an event of its own.
        run: the engine's state of the request.
        puid: the request's id.
        log: takes payloads; ``None`` logs none.
    """

    __slots__ = ("event", "given", "log", "metrics", "path", "puid", "routing", "run", "tags")

    def __init__(self, event: Event, run: Run, puid: str, log: PayloadSink | None = None) -> None:
        self.event = event
        self.run = run
        self.puid = puid
        self.log = log
        self.given: dict[str, Any] = {}
        """The tags with which this branch began."""
        self.tags: dict[str, Any] = {}
        self.metrics: list[dict[str, Any]] = []
        self.routing: dict[str, int] = {}
        self.path: dict[str, str] = {}

    @classmethod
    def start(cls, event: Event, run: Run, meta: Meta, puid: str = "", log: PayloadSink | None = None) -> Trip:
        """The trip of a request that brought this meta; an id is drawn where it has none."""
        trip = cls(event, run, meta.puid or puid or new_puid(), log)
        trip.given = dict(meta.tags)
        trip.tags = dict(meta.tags)
        trip.metrics = list(meta.metrics)
        trip.path = dict(meta.request_path)
        return trip

    @classmethod
    def of_feedback(
        cls, event: Event, run: Run, feedback: Feedback, puid: str = "", log: PayloadSink | None = None
    ) -> Trip:
        """The trip of a feedback; its id is that of the request that was answered, and among the event's headers."""
        given = feedback.response.meta.puid or feedback.request.meta.puid or puid
        trip = cls(event, run, given or new_puid(), log)
        event.headers = {**event.headers, PUID: trip.puid}
        return trip

    def meta(self) -> Meta:
        """The meta that a node is given: the id and what is said so far; metrics are gathered here alone."""
        return Meta(self.puid, dict(self.tags))

    def finished(self) -> Meta:
        """The meta of the answer."""
        return Meta(self.puid, self.tags, self.routing, self.path, self.metrics)

    def take(self, meta: Meta) -> None:
        """Take over what a node's answer says; its tags go over those that were there."""
        if meta.tags:
            self.tags.update(meta.tags)
        if meta.metrics:
            self.metrics.extend(meta.metrics)
        for node, image in meta.request_path.items():
            self.path.setdefault(node, image)

    def branch(self) -> Trip:
        """The trip of one of several children: it begins with what is said so far and adds to nothing else."""
        other = Trip(self.event.fork(None), self.run, self.puid, self.log)
        other.given = dict(self.tags)
        other.tags = dict(self.tags)
        return other

    def join(self, branches: Sequence[Trip]) -> None:
        """Take over what the branches have said, in their order."""
        for branch in branches:
            if branch.tags:
                self.tags.update(changed(branch.given, branch.tags))
            self.metrics.extend(branch.metrics)
            self.routing.update(branch.routing)
            for node, image in branch.path.items():
                self.path.setdefault(node, image)


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The entries that were added or given another value."""
    return {k: v for k, v in after.items() if k not in before or _differs(before[k], v)}


def _differs(old: Any, new: Any) -> bool:
    if old is new:
        return False
    try:
        return bool(old != new)
    except (ValueError, TypeError):  # arrays do not say whether they are equal
        return True


def for_each(message: Message, mutates: Sequence[bool]) -> list[Message]:
    """The message for each of several nodes: none sees what another does to it."""
    # One that writes may have the original where all others have copies.
    spare = all(mutates)
    out = []
    for writes in mutates:
        value = message.value
        if writes and spare:
            spare = False
        elif writes:
            value = isolate(value)
        out.append(Message(message.kind, value, message.names, message.encoding, message.meta, message.status))
    return out
