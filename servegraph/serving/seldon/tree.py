"""The way of a request through a Seldon tree, written once for both drivers.

For a node: its own transformation on the way down; then its choice of children (all, none, or one); the children,
at the same time where several of them may have to wait; the aggregation of what they answer; and its transformation
on the way up. Where no node waits, nothing here does: a plain call drives it to its end.

Messages are Python values all the way. What nodes say in their meta is gathered by the `Trip`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from servegraph.graph.calls import Call, clock
from servegraph.graph.copying import isolate
from servegraph.serving.seldon.errors import BAD_DATA
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.tree_errors import INVALID_ROUTING, NodeError, node_error
from servegraph.serving.seldon.tree_parallel import together
from servegraph.serving.seldon.tree_trip import Trip, changed, for_each

ALL: Final = -1
"""A router's choice of all its children."""
STOP: Final = -2
"""A router's choice of none: its message is the answer of its subtree."""
_WORTH_TASKS: Final = 2
"""From so many children that may have to wait on they are run at the same time."""
_CANCELLED: Final = 499
"""The status of a call that nobody waits for any more: its sibling has failed, or the caller is gone."""

Observe = Callable[[float, int], None]
"""Told of each call of a node: seconds and status."""


class Branch(Protocol):
    """What a node's children are to it."""

    name: str
    mutates: bool
    """Whether something in it may change the values that it is given."""

    def at_once(self) -> bool:
        """Whether running it waits for nothing."""

    def learns_at_once(self) -> bool:
        """Whether telling it a feedback waits for nothing."""

    async def run(self, message: Message, trip: Trip) -> Message:
        """Its answer to a message."""

    async def learn(self, feedback: Feedback, trip: Trip) -> Message | None:
        """Its answer to a feedback; ``None`` where it takes none."""


class NodeCall:
    """One operation of a node.

    Args:
        node: the node's name, for errors.
        call: runs the code: gets the event with the input as its body, gives the answer.
        observe: told of each call.
    """

    __slots__ = ("call", "node", "observe")

    def __init__(self, node: str, call: Call, observe: Observe | None = None) -> None:
        self.node = node
        self.call = call
        self.observe = observe

    async def ask(self, body: Any, trip: Trip) -> Any:
        """What the node makes of a body.

        Raises:
            NodeError: it failed.
        """
        event, run, call = trip.event, trip.run, self.call
        event.body = body
        start = clock()
        status = _CANCELLED
        try:
            answer = call.run_inline(event, run.deadline) if call.at_once() else await call.run(event, run)
            status = 200
            return answer
        except Exception as exc:
            failure = node_error(self.node, exc)
            status = failure.status
            if failure is exc:
                raise
            raise failure from exc
        finally:
            if self.observe is not None:
                self.observe(clock() - start, status)


class Node:
    """A node of a tree, ready to run.

    Args:
        name: its name in the graph.
        image: what the request's path says of it.
        calls: its operations: ``down``, ``route``, ``aggregate``, ``up``, ``send_feedback``; those that it has.
        children: the nodes below it.
        mutates: whether its own code may change the values that it is given.
    """

    __slots__ = (
        "_aggregate", "_asked", "_down", "_feedback", "_route", "_up", "children", "image", "logged", "mutates", "name",
        "url",
    )  # fmt: skip

    def __init__(
        self, name: str, image: str, calls: dict[str, NodeCall], children: Sequence[Branch] = (), mutates: bool = True
    ) -> None:
        self.name = name
        self.image = image
        self.children = tuple(children)
        self.mutates = mutates or any(c.mutates for c in self.children)
        self.logged: frozenset[str] = frozenset()
        """Which payloads are logged: ``request``, ``response``."""
        self.url = ""
        """Where they are logged."""
        self._down = calls.get("down")
        self._up = calls.get("up")
        self._route = calls.get("route") if children else None
        self._aggregate = calls.get("aggregate") if children else None
        self._feedback = calls.get("send_feedback")
        asked = (self._down, self._route, self._aggregate, self._up)
        self._asked = tuple(c.call for c in asked if c is not None)

    def at_once(self) -> bool:
        """Whether each call of a request in it, and below it, is of trusted code that runs on the spot."""
        for call in self._asked:
            if not call.at_once():
                return False
        for child in self.children:  # noqa: SIM110 - a generator would cost more than the loop
            if not child.at_once():
                return False
        return True

    def learns_at_once(self) -> bool:
        """Whether each call of a feedback in it, and below it, is of trusted code that runs on the spot."""
        own = self._feedback is None or self._feedback.call.at_once()
        return own and all(child.learns_at_once() for child in self.children)

    # -- requests ---------------------------------------------------------------------------------------------------

    async def run(self, message: Message, trip: Trip) -> Message:
        """The answer of the node, and of what is below it, to a message.

        Raises:
            NodeError: a node failed; the error names it.
        """
        logs = trip.log if self.logged else None
        if logs is not None and "request" in self.logged:
            logs.put("request", self.name, self.url, trip.puid, _with_meta(message, trip))
        trip.path[self.name] = self.image
        if self._down is not None:
            message = await self._transformed(self._down, message, trip)
        if self.children:
            message = await self._descend(message, trip)
        if self._up is not None:
            message = await self._transformed(self._up, message, trip)
        if logs is not None and "response" in self.logged:
            logs.put("response", self.name, self.url, trip.puid, _with_puid(message, trip))
        return message

    async def _transformed(self, call: NodeCall, message: Message, trip: Trip) -> Message:
        reply: Message = await call.ask(_with_meta(message, trip), trip)
        trip.take(reply.meta)
        return reply

    async def _descend(self, message: Message, trip: Trip) -> Message:
        """The answer of the children that the node chooses."""
        chosen = ALL
        if self._route is not None:
            shared = self.mutates and message.kind in ("data", "jsonData")
            asked = Message(
                message.kind, isolate(message.value) if shared else message.value, message.names, message.encoding,
                trip.meta(),
            )  # fmt: skip
            chosen = self._choice(await self._route.ask(asked, trip), trip)
        trip.routing[self.name] = chosen
        if chosen == STOP:
            return message
        if chosen >= 0:
            answers, given = [_with_meta(await self.children[chosen].run(message, trip), trip)], trip.tags
        else:
            answers, given = await self._all(message, trip)
        if self._aggregate is None:
            return answers[0]
        reply: Message = await self._aggregate.ask(answers, trip)
        # It has repeated the tags of what it was given; only what it says itself goes over them.
        reply.meta.tags = changed(given, reply.meta.tags)
        trip.take(reply.meta)
        return reply

    async def _all(self, message: Message, trip: Trip) -> tuple[list[Message], dict[str, Any]]:
        """The answers of all children, each with its meta, and the tags of all of them."""
        children = self.children
        if len(children) == 1:
            answer = await children[0].run(message, trip)
            return [_with_meta(answer, trip)], trip.tags
        branches = [trip.branch() for _ in children]
        messages = for_each(message, [c.mutates for c in children])
        work = zip(children, messages, branches, strict=True)
        # Where one alone waits, the others lose nothing by standing in line with it.
        if trip.run.offloader is None or sum([not c.at_once() for c in children]) < _WORTH_TASKS:
            answers = [await child.run(mine, branch) for child, mine, branch in work]
        else:
            answers = await together([child.run(mine, branch) for child, mine, branch in work])
        trip.join(branches)
        given: dict[str, Any] = {}
        for branch in branches:
            given.update(branch.tags)
        return [_with_meta(a, b) for a, b in zip(answers, branches, strict=True)], given

    def _choice(self, reply: Any, trip: Trip) -> int:
        """The child that a router's reply names."""
        if isinstance(reply, Message):
            trip.take(reply.meta)
            chosen = branch_of(reply, self.name)
        else:
            chosen = reply
        if not STOP <= chosen < len(self.children):
            raise NodeError(
                self.name,
                f"it chose child {chosen}, and has {len(self.children)}: valid are -2 (none), -1 (all) and "
                f"0 to {len(self.children) - 1}",
                reason=INVALID_ROUTING,
            )
        return chosen

    # -- feedback ---------------------------------------------------------------------------------------------------

    async def learn(self, feedback: Feedback, trip: Trip) -> Message | None:
        """Tell the nodes along the recorded route how good their answer was, children first.

        Returns:
            What this node says; ``None`` where it takes no feedback.

        Raises:
            NodeError: a node failed, or the recorded route leads nowhere (400).
        """
        children = self._followed(feedback)
        if trip.run.offloader is None or sum([not c.learns_at_once() for c in children]) < _WORTH_TASKS:
            for child in children:
                await child.learn(feedback, trip)
        else:
            await together([child.learn(feedback, trip.branch()) for child in children])
        if self._feedback is None:
            return None
        if trip.log is not None and "response" in self.logged:
            trip.log.put("feedback", self.name, self.url, trip.puid, feedback)
        reply: Message = await self._feedback.ask(own_feedback(feedback), trip)
        reply.meta.puid = reply.meta.puid or trip.puid
        reply.meta.request_path[self.name] = self.image
        return reply

    def _followed(self, feedback: Feedback) -> tuple[Branch, ...]:
        """The children that the answer came from."""
        if not self.children:
            return ()
        chosen = feedback.response.meta.routing.get(self.name, ALL)
        if chosen == STOP:
            return ()
        if chosen == ALL:
            return self.children
        if not 0 <= chosen < len(self.children):
            raise NodeError(
                self.name,
                f"the response's routing says child {chosen}, and the node has {len(self.children)}",
                status=400,
                reason=BAD_DATA,
            )
        return (self.children[chosen],)


def _with_meta(message: Message, trip: Trip) -> Message:
    """A message as a node gets it; the one that it is made of is not changed."""
    return Message(message.kind, message.value, message.names, message.encoding, trip.meta(), message.status)


def _with_puid(message: Message, trip: Trip) -> Message:
    """A message that has the request's id, also where what made it left it out."""
    if message.meta.puid:
        return message
    meta = message.meta.copy()
    meta.puid = trip.puid
    return Message(message.kind, message.value, message.names, message.encoding, meta, message.status)


def own_feedback(feedback: Feedback) -> Feedback:
    """A feedback whose values no other node sees."""
    return Feedback(
        _copied(feedback.request), _copied(feedback.response), _copied(feedback.truth), feedback.reward, feedback.source
    )


def _copied(message: Message) -> Message:
    value = isolate(message.value) if message.kind in ("data", "jsonData") else message.value
    meta = message.meta.copy()
    return Message(message.kind, value, message.names, message.encoding, meta, message.status, message.source)


def branch_of(reply: Message, node: str) -> int:
    """The number in a router's answer: of an array or a list its first value; all children where it has none.

    Raises:
        NodeError: it holds something else.
    """
    value = reply.value
    if reply.kind is None:
        return ALL
    if reply.kind in ("data", "jsonData"):
        if hasattr(value, "ravel"):
            flat = value.ravel()
            value = flat[0].item() if flat.size else ALL
        while isinstance(value, (list, tuple)):
            value = value[0] if value else ALL
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, (int, float)) and value == int(value):
            return int(value)
    raise NodeError(node, "its answer holds no number of a child", reason=INVALID_ROUTING)
