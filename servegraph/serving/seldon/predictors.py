"""`SeldonPredictor`: one graph of a deployment as a step, with what it says of its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from servegraph.errors import GraphError
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.plan import Route
from servegraph.graph.run import Run
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.payload_log import LogOrigin, PayloadLog
from servegraph.serving.seldon.rest import feedback_answer_to_rest
from servegraph.serving.seldon.tree_branches import branch_for
from servegraph.serving.seldon.tree_trip import Trip
from servegraph.serving.seldon.unit import (
    SeldonUnit,
    as_feedback,
    as_message,
    in_form_of,
    is_feedback,
    read_body,
    run_of,
    with_meta,
)
from servegraph.settings import environment


class SeldonPredictor:
    """One graph of a deployment; its only route is the root of the graph.

    Args:
        context: the graph's context; supplied by the server.
        name: the step's name, which is the predictor's; supplied by the server.
        routes: the root of its graph; supplied by the server.
        deployment: name of the deployment.
        namespace: its namespace.
        traffic: its share of the requests, in percent.
        shadow: it gets copies of requests, and its answers go nowhere.
        version: its version.
        log_url: where payloads go whose nodes name no address.

    Raises:
        GraphError: it has no graph, or several.
    """

    keeps_time = True

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        deployment: str = "",
        namespace: str = "default",
        traffic: int = 0,
        shadow: bool = False,
        version: str = "",
        log_url: str = "",
    ) -> None:
        self.context = context if context is not None else GraphContext()
        self.name = name or "default"
        self.routes: dict[str, Route] = dict(routes or {})
        if len(self.routes) != 1:
            raise GraphError(f"predictor {self.name!r} has one graph, not {len(self.routes)}")
        self.traffic = traffic
        self.shadow = shadow
        self.version = version or self.name
        self.root = branch_for(next(iter(self.routes.values())))
        self.units = dict(_units(self.routes))
        """Its nodes by name, parents first."""
        self.log: PayloadLog | None = None
        if any(unit.node.logged for unit in self.units.values()):
            url = log_url or environment().get("REQUEST_LOGGER_DEFAULT_ENDPOINT", "")
            self.log = PayloadLog(LogOrigin(deployment, namespace, self.name, url))

    def at_once(self) -> bool:
        """Whether it answers without waiting for anything."""
        return self.root.at_once()

    async def answer(self, message: Message, event: Event, run: Run, *, puid: str = "", logs: bool = True) -> Message:
        """Its answer to a message, with the meta that its nodes have made.

        Args:
            message: the request.
            event: the request's event; it is not changed.
            run: the engine's state of the request.
            puid: the request's id where the message brings none.
            logs: whether payloads are logged.

        Raises:
            NodeError: a node failed.
        """
        trip = Trip.start(event.fork(None), run, message.meta, puid, self.log if logs else None)
        reply = await self.root.run(message, trip)
        return with_meta(reply, trip.finished())

    async def learn(
        self, feedback: Feedback, event: Event, run: Run, *, puid: str = "", logs: bool = True
    ) -> Message | None:
        """What its graph says to a feedback; ``None`` where the root takes none.

        Raises:
            NodeError: a node failed, or the recorded route leads nowhere.
        """
        trip = Trip.of_feedback(event.fork(None), run, feedback, puid, self.log if logs else None)
        return await self.root.learn(feedback, trip)

    async def do_event(self, event: Event) -> Event:
        """The answer of the graph, as a step of another one."""
        run, body = run_of(event), event.body
        if is_feedback(body):
            answer = await self.learn(read_body(self.name, as_feedback, body), event, run)
            if answer is not None:
                event.body = feedback_answer_to_rest(answer) if isinstance(body, dict) else answer
            return event
        reply = await self.answer(read_body(self.name, as_message, event.body), event, run)
        event.body = in_form_of(event.body, reply, self.name)
        return event

    def close(self) -> None:
        """Send the payloads that are still queued."""
        if self.log is not None:
            self.log.close()

    async def metadata(self) -> dict[str, Any]:
        """What the nodes say of themselves, and the inputs and outputs of the whole graph.

        Raises:
            NodeError: one of them says nothing valid, or runs elsewhere and says nothing.
        """
        local = {name: await unit.describe() for name, unit in self.units.items() if unit.remote is None}
        far = {name: unit.describe() for name, unit in self.units.items() if unit.remote is not None}
        # Where all of them are here, nothing waits, and no event loop is needed.
        answers = await asyncio.gather(*far.values()) if far else []
        described = {**local, **dict(zip(far, answers, strict=True))}
        models = {name: _without_empty(described[name]) for name in self.units}
        root = next(iter(self.units.values()), None)
        inputs, outputs = _ends(root, models) if root is not None else ([], [])
        return {"name": self.name, "models": models, "graphinputs": inputs, "graphoutputs": outputs}


def _without_empty(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a graph says of one of its models; Seldon's executor leaves these out where they are empty."""
    return {key: v for key, v in model.items() if v or key not in ("name", "platform", "versions", "custom")}


def _units(routes: Mapping[str, Route]) -> Iterator[tuple[str, SeldonUnit]]:
    for route in routes.values():
        target = route.target
        if isinstance(target, SeldonUnit):
            yield target.name, target
            yield from _units(target.routes)


def _ends(unit: SeldonUnit, models: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The inputs and outputs of a node with what is below it."""
    own = models[unit.name]
    inputs, outputs = own.get("inputs") or [], own.get("outputs") or []
    first = next(iter(unit.routes.values())).target if unit.routes else None
    if not isinstance(first, SeldonUnit):
        return inputs, outputs
    below_in, below_out = _ends(first, models)
    kind = unit.options.type
    if kind in ("OUTPUT_TRANSFORMER", "COMBINER"):
        return below_in, outputs or below_out
    if kind == "ROUTER":
        return below_in, below_out
    return inputs or below_in, below_out
