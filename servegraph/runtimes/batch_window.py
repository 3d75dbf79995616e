"""The events in flight: started on an event loop in a thread of their own, collected in order by the caller."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from servegraph.graph.engine import Outcome
from servegraph.graph.events import Event
from servegraph.graph.plan import Plan
from servegraph.runtimes.batch_bodies import Request
from servegraph.runtimes.server import GraphServer


@dataclass(slots=True)
class Slot:
    """One request and, in time, its outcome."""

    request: Request
    event: Event | None
    """``None`` for a request that could not be made."""
    outcome: concurrent.futures.Future[Outcome] = field(default_factory=concurrent.futures.Future)

    @property
    def done(self) -> bool:
        """Whether the outcome is there."""
        return self.outcome.done()

    def wait(self) -> None:
        """Wait until it is."""
        concurrent.futures.wait((self.outcome,))


class EventLoop:
    """Runs a server's events on an event loop in a thread, so that it works where another loop is running.

    At the end of the ``with`` block what is still under way is cancelled, and what the graph holds on the loop is
    released.
    """

    def __init__(self, server: GraphServer) -> None:
        self._server = server
        self._engine = server.data_plane.engine
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[Slot] = deque()
        self._awake = False
        """Whether the loop has been told to look at what waits."""
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="servegraph-batch", daemon=True)

    def start(self, slot: Slot) -> None:
        """Start an event; its slot gets the outcome."""
        self._waiting.append(slot)
        if not self._awake:  # one signal does for all that come until the loop looks
            self._awake = True
            self._loop.call_soon_threadsafe(self._begin)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._ended.result()
        self._thread.join()

    # -- in the loop's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:  # noqa: BLE001 - raised where somebody waits for this thread
            (self._ended if self._started.done() else self._started).set_exception(exc)
        else:
            self._ended.set_result(None)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await self._server.astart()
        self._started.set_result(None)
        await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.adrain()

    def _begin(self) -> None:
        self._awake = False  # first: what is appended from now on signals again
        while self._waiting:
            slot = self._waiting.popleft()
            event, outcome = slot.event, slot.outcome
            assert event is not None
            try:
                self._server.data_plane.read(event)
                result = self._engine.run_now(event)
            except (Exception, SystemExit, KeyboardInterrupt) as exc:  # noqa: BLE001 - raised in the caller's thread
                outcome.set_exception(exc)
                continue
            if result is not None:
                outcome.set_result(result)
                continue
            task = self._loop.create_task(self._finish(slot, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _finish(self, slot: Slot, event: Event) -> None:
        try:
            result = await self._engine.run_in_loop(event)
        except asyncio.CancelledError:
            slot.outcome.cancel()
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as exc:  # noqa: BLE001 - raised in the caller's thread
            slot.outcome.set_exception(exc)
        else:
            slot.outcome.set_result(result)


def wait_for_all(plan: Plan) -> bool:
    """Let an event end only when all that it set off has ended; whether no step of the plan gives an answer.

    A server answers as soon as it can and lets side branches go on behind the answer. In a batch there would be no
    bound on how many of them pile up, and of a flow without an answer nobody would learn what failed.
    """
    silent = plan.detached
    if silent:
        for unit in plan.units:
            unit.leads = True  # its failure is the row's
    plan.background = plan.detached = False
    return silent
