"""The state of one request on its way through a plan, how it may end, and what counts as a failure of a step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from servegraph.graph.calls import Offloader
from servegraph.graph.events import Event
from servegraph.graph.plan import Unit


@dataclass(frozen=True, slots=True)
class NoResult:
    """The explicit end of a request that nothing answered."""

    reason: str
    """Which step ended the event, in words."""


Outcome = Event | NoResult


class Run:
    """The state of one request on its way through a plan."""

    __slots__ = ("answer", "counts", "deadline", "dropped", "offloader", "parts", "waiter")

    def __init__(self, offloader: Offloader | None, deadline: float | None) -> None:
        self.offloader = offloader
        """The threads of the event loop's driver; ``None`` in a plain call."""
        self.deadline = deadline
        self.answer: Event | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.dropped: str | None = None
        self.counts: dict[Unit, int] | None = None
        self.parts: dict[Unit, dict[str, Event]] | None = None

    def respond(self, event: Event) -> None:
        """Keep the first answer."""
        if self.answer is None:
            self.answer = event
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)


FAILURES: Final = (Exception, asyncio.CancelledError, SystemExit)
"""What a step may fail with: also by asking the process to end, or by waiting for a task that was cancelled."""


def let_cancel(exc: BaseException, run: Run) -> None:
    """Raise a cancellation that comes from outside again; one that nobody asked for is the step's own failure."""
    if isinstance(exc, asyncio.CancelledError) and run.offloader is not None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise exc
