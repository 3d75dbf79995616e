"""Runs a plan: one meaning, two drivers.

The way of an event through a plan is written once, as coroutines. Where nothing in the plan has to wait, a plain
call drives them to their end in the caller's thread; otherwise an event loop does. What a step may see of the
difference is nothing.

Rules, the same in both drivers:

- A step with one follower hands its event on. With several, each branch gets the event with a body of its own (a
  copy, unless the branch is declared read-only); branches run at the same time on a loop, one after the other in a
  plain call.
- The answer is the output of the step marked with ``respond()``, or of the last step of a sync flow without one.
  Work that cannot become the answer (side branches, what follows the responder) goes on behind the answer; a
  failure in it is logged and pushed to the error stream, and changes no answer.
- A failure goes to the step's handler, else its policy, else the graph's handler, else to the caller, named after
  its step. Sibling branches are let end (``fail_fast`` cancels them); of several failures the first in graph order
  counts.
- An event that ends without an answer gives `NoResult`, which says where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn

from servegraph.errors import DeadlineError, GraphError, ServegraphError, StepError, closest, summary
from servegraph.graph.calls import Call, Offloader, clock
from servegraph.graph.context import GraphContext
from servegraph.graph.copying import isolate
from servegraph.graph.events import DROP, Event
from servegraph.graph.plan import Plan, Unit, reachable
from servegraph.graph.policies import UNSET
from servegraph.graph.run import FAILURES, NoResult, Outcome, Run, let_cancel

__all__ = ["Engine", "NoResult", "Outcome", "Run"]


class Engine:
    """Runs events through one plan.

    Args:
        plan: the compiled graph.
        context: takes failures that reach no caller.
        offloader: the threads that synchronous code runs on when an event loop drives.
    """

    def __init__(self, plan: Plan, context: GraphContext, offloader: Offloader) -> None:
        self.plan = plan
        self.context = context
        self.offloader = offloader
        self._tasks: set[asyncio.Task[None]] = set()
        self._quick: Callable[[Event], tuple[Call, str] | None] | None = None
        self._quick_path: Callable[[str], tuple[Call, str] | None] | None = None
        if plan.direct is not None:
            self._quick = getattr(plan.direct.target, "quick_route", None)
            self._quick_path = getattr(plan.direct.target, "quick_path", None)

    # -- drivers ----------------------------------------------------------------------------------------------------

    def run_plain(self, event: Event) -> Outcome:
        """Run an event in this thread; the plan must be ``plain`` and the event without a deadline."""
        run = event._run = Run(None, None)
        direct = self.plan.direct
        if direct is not None and not direct.call.is_async:
            try:
                result = direct.call.function(event)
            except FAILURES as exc:
                self._fail(direct, event, exc)
            return result if isinstance(result, Event) else self._ended(direct, event, result)
        coroutine = self._run(event, run)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        coroutine.close()
        raise GraphError("a step waited for an event loop in a plain call: declare it with 'async def'")

    def run_now(self, event: Event) -> Outcome | None:
        """Run an event at once, when all there is to do is one fast call; ``None`` when it may have to wait.

        The short way of the requests that a trusted model answers: the same call as on every other way, without a
        coroutine around it.
        """
        direct = self.plan.direct
        if direct is None:
            return None
        call = direct.call
        if self._quick is not None:
            found = self._quick(event)
            if found is None or not found[0].at_once():
                return None
            call, event.path = found
        elif not call.at_once():
            return None
        try:
            result = call.run_inline(event, event.deadline)
        except FAILURES as exc:
            self._fail(direct, event, exc)
        return result if isinstance(result, Event) else self._ended(direct, event, result)

    def is_quick(self, path: str) -> bool:
        """Whether `run_now` is likely to answer an event of this path."""
        direct = self.plan.direct
        if direct is None:
            return False
        if self._quick_path is None:
            return direct.call.at_once()
        found = self._quick_path(path)
        return found is not None and found[0].at_once()

    def run_in_loop(self, event: Event) -> Coroutine[Any, Any, Outcome]:
        """Run an event on the running event loop, within its deadline."""
        run = event._run = Run(self.offloader, event.deadline)
        if self.plan.background:
            return self._run_background(event, run)
        return self._run(event, run)

    async def _run(self, event: Event, run: Run) -> Outcome:
        direct = self.plan.direct
        if direct is None:
            try:
                await self._enter(event, run)
            except ServegraphError:
                if run.answer is None:
                    raise
            return self._outcome(run)
        try:
            result = await direct.call.run(event, run)
        except FAILURES as exc:
            let_cancel(exc, run)
            self._fail(direct, event, exc)
        return result if isinstance(result, Event) else self._ended(direct, event, result)

    def _ended(self, unit: Unit, event: Event, result: object) -> NoResult:
        """What it means that a unit gave no event."""
        if result is None or result is DROP:
            return NoResult(f"step {unit.call.step(event)!r} ended the event")
        name = unit.call.step(event)
        raise GraphError(
            f"step {name!r} gets the whole event and must return it (or servegraph.DROP), not {type(result).__name__}",
            step=name,
        )

    def _note_end(self, unit: Unit, event: Event, result: object, run: Run) -> None:
        """Keep why an event goes no further; a merge has told it already."""
        if unit.merge is None:
            run.dropped = self._ended(unit, event, result).reason

    async def _run_background(self, event: Event, run: Run) -> Outcome:
        """The answer as soon as there is one; what is left goes on in a task that the engine owns."""
        loop = asyncio.get_running_loop()
        run.waiter = loop.create_future()
        answer_now = Event({"id": event.id}) if self.plan.detached else None
        task = loop.create_task(self._enter(event, run))
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)
        if answer_now is not None:
            return answer_now
        try:
            await asyncio.wait({task, run.waiter}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if run.answer is None and task.done():
            task.result()
        return self._outcome(run)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        # Failures of steps were told to the context where they happened.
        if failure is not None and not isinstance(failure, ServegraphError):
            self.context.logger.error("work behind an answer failed", exc_info=failure)

    async def wait_for_background(self) -> None:
        """Wait until the work that goes on behind answers has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def cancel_background(self) -> None:
        """Cancel the work that goes on behind answers."""
        for task in self._tasks:
            task.cancel()

    @staticmethod
    def _outcome(run: Run) -> Outcome:
        if run.answer is not None:
            return run.answer
        # A merge that waits in vain is the reason, whichever of the other branches ended last.
        for unit, parts in (run.parts or {}).items():
            missing = [n for n in unit.uplinks if n not in parts]
            got = f"{len(parts)} of {unit.merge_expected} events"
            return NoResult(f"merge {unit.name!r} got {got} (none from {missing})")
        return NoResult(run.dropped or "no step gave an answer")

    # -- the way of an event ----------------------------------------------------------------------------------------

    async def _enter(self, event: Event, run: Run) -> None:
        starts = self.plan.starts
        if self.plan.detached and run.offloader is None:
            run.respond(Event({"id": event.id}))
        if len(starts) == 1:
            await self._walk(starts[0], event, run, "")
        else:
            await self._fan_out(starts, event, run, "")
        while unit := self._partial_merge(run):
            assert run.parts is not None
            events = _in_order(run.parts.pop(unit), unit.uplinks)
            await self._follow(unit, events, run)

    async def _walk(self, unit: Unit, event: Event, run: Run, came_from: str) -> None:
        """Take an event through a unit and what follows it."""
        while True:
            try:
                if unit.max_iterations:
                    self._count(unit, event, run)
                if unit.merge is None:
                    result = await unit.call.run(event, run)
                else:
                    result = self._join(unit, event, run, came_from)
                if not isinstance(result, Event):
                    self._note_end(unit, event, result, run)
                    return
                if result is not event and result._run is not run:
                    event.continued_by(result)
                followers = self._selected(unit, result, run) if unit.chooses else unit.next
            except FAILURES as exc:  # goes to a handler, a policy or the caller
                let_cancel(exc, run)
                recovered = await self._recover(unit, event, exc, run)
                if recovered is None:
                    return
                event, unit = recovered
                followers = unit.next
            else:
                event = result
            if unit.responder or unit.answers or event.terminated:
                self._respond(unit, event, run)
            if len(followers) != 1 or event.terminated:
                break
            came_from = unit.name
            unit = followers[0]
        if followers and not event.terminated:
            await self._fan_out(followers, event, run, unit.name)

    def _respond(self, unit: Unit, event: Event, run: Run) -> None:
        if any(u.mutates for u in unit.next):
            # The answer is written out while its followers may change the body.
            event = event.fork(self._isolated(event, unit.name))
        run.respond(event)

    def _isolated(self, event: Event, step: str) -> Any:
        """A copy of the body that a step gave; a failure is named after that step."""
        try:
            return isolate(event.body)
        except ServegraphError as exc:
            exc.step = step or None
            if exc.status >= 500:
                self.context.push_error(event, str(exc), source=step)
            raise

    async def _follow(self, unit: Unit, events: list[Event], run: Run) -> None:
        """Go on behind a merge with what has come to it."""
        assert unit.merge is not None
        try:
            event = unit.merge.merge_function(events[-1], events)
        except Exception as exc:  # noqa: BLE001 - goes to a handler, a policy or the caller
            recovered = await self._recover(unit, events[-1], exc, run)
            if recovered is None:
                return
            event, unit = recovered
        if unit.responder or unit.answers:
            self._respond(unit, event, run)
        if unit.next:
            await self._fan_out(unit.next, event, run, unit.name)

    @staticmethod
    def _selected(unit: Unit, event: Event, run: Run) -> Sequence[Unit]:
        """The units that a choice names; all that follow where it names none (``None``)."""
        chosen, event._outlets = event._outlets, None
        if chosen is None:
            return unit.next
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        if not names:
            run.dropped = f"step {unit.name!r} chose no step"
        if len(set(names)) != len(names):
            raise GraphError(f"step {unit.name!r} chose a step twice: {names}", step=unit.name)
        for name in names:
            if name not in unit.outlets:
                raise GraphError(
                    f"step {unit.name!r} chose {name!r}, which does not follow it; {closest(str(name), unit.outlets)}",
                    step=unit.name,
                )
        return [unit.outlets[n] for n in names]

    async def _fan_out(self, units: Sequence[Unit], event: Event, run: Run, came_from: str) -> None:
        """Take an event through several branches."""
        branches = list(zip(units, self._branch_events(units, event, came_from), strict=True))
        if run.offloader is None:
            failures = []
            for unit, mine in branches:
                try:
                    await self._walk(unit, mine, run, came_from)
                except Exception as exc:
                    if self.plan.fail_fast:
                        raise
                    failures.append(exc)
            _raise_first(failures)
            return
        walks = [self._walk(unit, mine, run, came_from) for unit, mine in branches]
        if not self.plan.fail_fast:
            _raise_first(await asyncio.gather(*walks, return_exceptions=True))
            return
        try:
            async with asyncio.TaskGroup() as group:
                for walk in walks:
                    group.create_task(walk)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def _branch_events(self, units: Sequence[Unit], event: Event, step: str) -> list[Event]:
        """An event for each branch: none sees what another does to the body."""
        writers = sum(u.mutates for u in units)
        # With only writers, one of them may have the original; a reader beside writers needs it unchanged.
        spare = writers == len(units)
        events = []
        for unit in units:
            if not unit.mutates:
                events.append(event.fork(event.body))
            elif spare:
                spare = False
                events.append(event)
            else:
                events.append(event.fork(self._isolated(event, step)))
        return events

    # -- merges and cycles ------------------------------------------------------------------------------------------

    @staticmethod
    def _join(unit: Unit, event: Event, run: Run, came_from: str) -> Event | None:
        merge = unit.merge
        assert merge is not None
        if merge.across_requests:
            merged = merge.collect(event, unit.merge_expected)
            if merged is None:
                run.dropped = f"merge {unit.name!r} keeps the event until its set is complete"
            return merged
        if unit.merge_expected <= 1:
            return event
        if run.parts is None:
            run.parts = {}
        parts = run.parts.setdefault(unit, {})
        came_from = unit.stand_ins.get(came_from, came_from)
        key = came_from if came_from not in parts else f"{came_from}#{len(parts)}"
        parts[key] = event
        if len(parts) < unit.merge_expected:
            return None
        del run.parts[unit]
        return merge.merge_function(event, _in_order(parts, unit.uplinks))

    @staticmethod
    def _partial_merge(run: Run) -> Unit | None:
        """A merge that passes on what has arrived, now that nothing more can come: one behind no other of them."""
        waiting = [u for u in run.parts or () if u.merge is not None and u.merge.partial]
        behind = reachable(f for u in waiting for f in u.next) if len(waiting) > 1 else ()
        return next((u for u in waiting if u not in behind), waiting[0] if waiting else None)

    @staticmethod
    def _count(unit: Unit, event: Event, run: Run) -> None:
        if run.counts is None:
            run.counts = {}
        passed = run.counts[unit] = run.counts.get(unit, 0) + 1
        if passed > unit.max_iterations:
            raise GraphError(
                f"max iterations exceeded: event {event.id} passed step {unit.name!r} {unit.max_iterations} times",
                step=unit.name,
            )

    # -- failures ---------------------------------------------------------------------------------------------------

    async def _recover(self, unit: Unit, event: Event, exc: BaseException, run: Run) -> tuple[Event, Unit] | None:
        """Where an event goes on after a failure: the event and the unit whose followers get it; or nowhere.

        Raises the failure, named after its step, where nothing takes it.
        """
        step = unit.call.step(event)
        out_of_time = run.deadline is not None and clock() >= run.deadline
        policy = unit.policy
        handler = unit.on_error or (self.plan.on_error if policy.on_error == "fail" else None)
        if out_of_time or (handler is None and policy.on_error == "fail"):
            self._give_up(unit, event, exc)
            return None
        if isinstance(exc, DeadlineError):
            event = event.fork(event.body)  # the try that was given up may still hold the event
        event.error, event.origin_state = exc, step
        if handler is None:
            if policy.on_error == "default":
                assert policy.default is not UNSET
                event.body = isolate(policy.default)
            elif unit.fallback is not None:
                handler = unit.fallback
        if handler is None:
            event.error = event.origin_state = None
            return event, unit
        result = await self._handled(handler, event, run)
        if result is None:
            return None
        if handler is unit.fallback:
            return result, unit
        if not handler.next:
            if unit.leads or handler is self.plan.on_error:
                run.respond(result)
            return None
        return result, handler

    async def _handled(self, handler: Unit, event: Event, run: Run) -> Event | None:
        """What a step's stand-in makes of the event; ``None`` when it ends there."""
        try:
            result = await handler.call.run(event, run)
            if not isinstance(result, Event):
                self._note_end(handler, event, result, run)
                return None
        except FAILURES as exc:
            let_cancel(exc, run)
            self._give_up(handler, event, exc)
            return None
        if result is not event:
            event.continued_by(result)
        result.error = result.origin_state = None
        return result

    def _fail(self, unit: Unit, event: Event, exc: BaseException) -> NoReturn:
        failure = self._failed(unit, event, exc)
        raise failure from failure.__cause__

    def _give_up(self, unit: Unit, event: Event, exc: BaseException) -> None:
        failure = self._failed(unit, event, exc)
        if unit.leads:
            raise failure from failure.__cause__

    def _failed(self, unit: Unit, event: Event, exc: BaseException) -> ServegraphError:
        """The error that the caller gets; server-side faults are told to the context, once."""
        step = unit.call.step(event)
        if isinstance(exc, RuntimeError) and isinstance(exc.__cause__, StopIteration):
            exc = exc.__cause__  # Python lets none out of a coroutine
        if isinstance(exc, ServegraphError):
            failure = exc
            if failure.step is None:
                failure.step = step
        else:
            failure = StepError(f"step {step!r} failed: {summary(exc)}", step=step)
            failure.__cause__ = exc
        if failure.model is None:
            failure.model = event._model
        if failure.status >= 500 and unit.leads:  # the caller gets it, and who answers the caller logs it
            self.context.report_error(event, str(failure), source=step)
        elif failure.status >= 500:
            self.context.push_error(event, str(failure), source=step)
        return failure


def _in_order(parts: dict[str, Event], uplinks: Iterable[str]) -> list[Event]:
    order = {name: i for i, name in enumerate(uplinks)}
    return [parts[k] for k in sorted(parts, key=lambda k: order.get(k.partition("#")[0], len(order)))]


def _raise_first(results: Sequence[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result
