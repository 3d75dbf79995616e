"""What may stand below a node of a tree besides other nodes: models of servegraph, and steps of any other kind.

A `V2ModelServer` gets the rows of a message as ``inputs``, and its ``outputs`` are the rows of the answer. Any
other step gets the whole `Message` as the event's body and gives one, or a value that becomes one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from servegraph.graph.events import Event, Response
from servegraph.graph.plan import Route
from servegraph.serving.seldon.answers import answer
from servegraph.serving.seldon.arrays import array_of
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.tree import Branch, Node
from servegraph.serving.seldon.tree_errors import PassedThroughError, node_error
from servegraph.serving.seldon.tree_trip import Trip
from servegraph.serving.v2 import V2ModelServer


class Visit:
    """The body of an event that takes a message to a node behind a step's policy."""

    __slots__ = ("content", "trip")

    def __init__(self, content: Message | Feedback, trip: Trip) -> None:
        self.content = content
        self.trip = trip

    def __deepcopy__(self, memo: object) -> Visit:
        return self


def branch_for(route: Route) -> Branch:
    """What a route is to the node above it."""
    target = route.target
    node = getattr(target, "node", None)
    if isinstance(node, Node):
        return node if route.call.policy.plain else GuardedBranch(route, node)
    if isinstance(target, V2ModelServer):
        return ModelBranch(route)
    return StepBranch(route)


class GuardedBranch:
    """A node whose step has a policy: each way into it is a call under that policy."""

    def __init__(self, route: Route, node: Node) -> None:
        self.name = node.name
        self.mutates = node.mutates
        self._route = route

    def at_once(self) -> bool:
        """Never: a policy may wait."""
        return False

    def learns_at_once(self) -> bool:
        """Never, for the same reason."""
        return False

    async def run(self, message: Message, trip: Trip) -> Message:
        """The node's answer."""
        reply: Message = await self._visit(message, trip)
        return reply

    async def learn(self, feedback: Feedback, trip: Trip) -> Message | None:
        """The node's answer to a feedback."""
        reply: Message | None = await self._visit(feedback, trip)
        return reply

    async def _visit(self, content: Message | Feedback, trip: Trip) -> Any:
        inner = trip.branch()  # a try that fails leaves nothing behind
        try:
            event = await self._route.run(inner.event.fork(Visit(content, inner)))
        except Exception as exc:
            failure = node_error(self.name, exc)
            if failure is exc:
                raise
            raise failure from exc
        trip.join([inner])
        return event.body


class StepBranch:
    """A step of any kind as a leaf: it gets a `Message` and gives one, or a value that becomes one."""

    mutates = True

    def __init__(self, route: Route) -> None:
        self.name = route.key
        self.route = route

    def at_once(self) -> bool:
        """Whether its call is of trusted code."""
        return self.route.call.at_once()

    def learns_at_once(self) -> bool:
        """Always: it takes no feedback."""
        return True

    async def run(self, message: Message, trip: Trip) -> Message:
        """The step's answer.

        Raises:
            NodeError: it failed.
        """
        trip.path[self.name] = type(self.route.target).__name__
        given = Message(message.kind, message.value, message.names, message.encoding, trip.meta(), message.status)
        try:
            event = trip.event.fork(None)
            event.path, event.body = self.path, self.body(given)
            reply = self.reply((await self.route.run(event)).body, given)
        except Exception as exc:
            failure = node_error(self.name, exc)
            if failure is exc:
                raise
            raise failure from exc
        trip.take(reply.meta)
        return reply

    async def learn(self, feedback: Feedback, trip: Trip) -> Message | None:
        """Nothing: it takes no feedback."""
        return None

    path = "predict"

    def body(self, message: Message) -> Any:
        """What the step gets."""
        return message

    def reply(self, body: Any, request: Message) -> Message:
        """The message that a step's answer is; see `step_reply`."""
        return step_reply(body, request)


class ModelBranch(StepBranch):
    """A `V2ModelServer` as a leaf."""

    path = "infer"

    def body(self, message: Message) -> Any:
        """The request of the model; see `model_request`."""
        return model_request(message)

    def reply(self, body: Any, request: Message) -> Message:
        """The message of the model's answer; see `model_reply`."""
        return super().reply(_outputs(body, request), request)


def model_request(message: Message) -> Any:
    """What a `V2ModelServer` is asked: a message's rows as ``inputs``, or the whole object that was sent as JSON."""
    value = message.value
    if message.kind == "jsonData" and isinstance(value, dict):
        return value
    if message.kind == "data":
        rows = value.tolist() if isinstance(value, np.ndarray) else value
        return {"inputs": rows}
    return {"inputs": [value]}


def model_reply(body: Any, request: Message) -> Message:
    """The message of a model's ``outputs``, encoded as the request was; without them of the whole answer."""
    return step_reply(_outputs(body, request), request)


def _outputs(body: Any, request: Message) -> Any:
    if not isinstance(body, dict) or "outputs" not in body or request.kind == "jsonData":
        return body
    outputs = body["outputs"]
    return array_of(outputs) if request.encoding == "tensor" and isinstance(outputs, list) else outputs


def step_reply(body: Any, request: Message) -> Message:
    """The message that a step's answer is.

    Raises:
        PassedThroughError: it is an error response.
    """
    if isinstance(body, Response):
        if body.status_code >= 400:
            raise PassedThroughError(body.status_code, body.body)
        body = body.body
    return body if isinstance(body, Message) else answer(body, request, Meta(), None, "rest")


def as_visit(event: Event) -> Visit | None:
    """The visit that an event carries, if it does."""
    body = event.body
    return body if body.__class__ is Visit else None
