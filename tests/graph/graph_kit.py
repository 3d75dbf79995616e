"""Compiles graphs for tests of the engine, without a function or a server around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from servegraph.graph.calls import InlineLimits, Offloader, clock
from servegraph.graph.compile import Compiler
from servegraph.graph.context import GraphContext
from servegraph.graph.engine import Engine, Outcome
from servegraph.graph.events import Event
from servegraph.graph.flow import FlowGraph, Graph

THREADS = InlineLimits(mode="never")
INLINE = InlineLimits(mode="always")

logging.getLogger("servegraph").addHandler(logging.NullHandler())


class Running:
    """A compiled graph with an engine; in a ``with`` block, so that its threads end."""

    def __init__(
        self, graph: Graph, limits: InlineLimits | None = None, *, current: str = "*", threads: int = 8
    ) -> None:
        self.context = GraphContext(name="test")
        self.context.current_function = current
        self.errors: list[Mapping[str, Any]] = []
        self.context.error_sink = self.errors.append
        self.plan = Compiler(graph, self.context, [], limits).compile()
        self.offloader = Offloader(threads)
        self.engine = Engine(self.plan, self.context, self.offloader)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.offloader.close()

    def plain(self, body: Any) -> Outcome:
        """The outcome by a plain call."""
        return self.engine.run_plain(Event(body))

    def loop(self, body: Any, *, seconds: float | None = None) -> Outcome:
        """The outcome on an event loop of its own, with the work behind the answer ended."""

        async def run() -> Outcome:
            try:
                return await self.start(body, seconds=seconds)
            finally:
                await self.engine.wait_for_background()

        return asyncio.run(run())

    async def start(self, body: Any, *, seconds: float | None = None) -> Outcome:
        """The outcome on the running loop, within a deadline."""
        event = Event(body)
        event.deadline = None if seconds is None else clock() + seconds
        return await self.engine.run_in_loop(event)


def body_of(outcome: Outcome) -> Any:
    """The body of an answer; fails the test where there is none."""
    assert isinstance(outcome, Event), outcome
    return outcome.body


def flow(engine: str = "async", **options: Any) -> FlowGraph:
    return FlowGraph(engine, **options)


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
