"""How one piece of user code is called: on a thread or inline, with a time limit, retries and a bound in flight.

A `Call` has one meaning in both drivers. Driven by a plain call it simply runs. Driven by an event loop,
synchronous code runs on a thread until its `Guard` has seen that it is fast; from then on it runs on the loop, until
it is slow by its own doing.
"""

from __future__ import annotations

import asyncio
import contextvars
import resource
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from servegraph.errors import DeadlineError, RequestError
from servegraph.graph.policies import DEFAULT_POLICY, StepPolicy
from servegraph.graph.threads import ThreadPool

if TYPE_CHECKING:
    from servegraph.graph.events import Event
    from servegraph.graph.run import Run

clock: Final = time.monotonic


@dataclass(frozen=True, slots=True)
class InlineLimits:
    """When synchronous code may run on the event loop."""

    mode: str = "auto"
    """For steps that leave it open: ``auto`` (once they are seen to be fast), ``always`` or ``never``."""
    below_s: float = 0.0005
    """A call faster than this counts as fast, in seconds."""
    slow_s: float = 0.005
    """A call on the loop slower than this sends the code back to threads."""
    streak: int = 8
    """Fast calls in a row that are needed first; doubled each time the code was sent back."""
    longest_streak: int = 65_536
    """The most fast calls in a row that are ever needed."""
    watch_calls: int = 256
    """How many calls on the loop are watched closely after a long one."""
    forgive_s: float = 10.0
    """Seconds after which it is forgotten that code was sent back."""


class Guard:
    """Decides where one piece of synchronous code runs, by how long its calls take.

    A call that takes long need not be slow: the process may have been held up by others. So the first long call on
    the event loop only has the next ones watched more closely, by their CPU time and by whether they waited for
    something; a watched call that was slow by its own doing sends the code back to threads, and so does any call
    that held the loop up for very long.
    """

    __slots__ = ("_limits", "_needed", "_slow_at", "_streak", "_watched", "fixed", "inline", "slow_s", "watching")

    def __init__(self, execution: str, limits: InlineLimits) -> None:
        self.fixed = execution != "auto"
        self.inline = execution == "inline"
        self.slow_s = limits.slow_s
        self.watching = False
        self._limits = limits
        self._needed = limits.streak
        self._streak = 0
        self._watched = 0
        self._slow_at = -limits.forgive_s

    def fast_enough(self, seconds: float) -> None:
        """Take note of a call that ran on a thread."""
        if self.fixed:
            return
        if seconds < self._limits.below_s:
            self._streak += 1
            if self._streak >= self._needed:
                self.inline = True
        else:
            self._streak = 0

    def took_long(self, seconds: float, now: float) -> None:
        """Take note of a call that held up the event loop."""
        if self.fixed:
            return
        if seconds > _VERY_LONG * self.slow_s:
            self._back_to_threads(now)
        else:
            self.watching = True
            self._watched = 0

    def watch(self, function: Callable[[Event], Any], event: Event) -> Any:
        """Run a call on the event loop and find out why it takes long, if it does."""
        waits, cpu, start = _waits(), time.thread_time(), clock()
        result = function(event)
        end = clock()
        if end - start > self.slow_s:
            waited, used = _waits() - waits, time.thread_time() - cpu
            if waited or used > self.slow_s or end - start > _VERY_LONG * self.slow_s:
                self._back_to_threads(end)
        self._watched += 1
        if self._watched >= self._limits.watch_calls:
            self.watching = False
        return result

    def _back_to_threads(self, now: float) -> None:
        """Code that is slow again after a short time has to be fast for twice as long as the last time."""
        limits = self._limits
        again = now - self._slow_at < limits.forgive_s
        self._needed = min(self._needed * 2, limits.longest_streak) if again else limits.streak
        self._slow_at = now
        self._streak = 0
        self.inline = self.watching = False


_VERY_LONG: Final = 20


def _waits() -> int:
    """How often this thread has given up the processor to wait for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Offloader:
    """The threads of one server, and the calls on them that nobody waits for any more."""

    def __init__(self, threads: int = 8) -> None:
        self._pool = ThreadPool(threads, "servegraph-step")
        self._abandoned: list[tuple[Future[Any], float]] = []

    async def call(self, function: Callable[[Event], Any], event: Event, guard: Guard) -> Any:
        """The result of a function on a thread; cancelling takes it from the queue or abandons it."""
        context = contextvars.copy_context()
        future = self._pool.submit(_timed, context, function, event)
        try:
            result, seconds = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and not future.done():
                # It has as long as its request had: that the client is gone does not make it late.
                self._abandoned.append((future, max(clock(), event.deadline or 0.0)))
            raise
        guard.fast_enough(seconds)
        return result

    def stuck(self, grace_s: float) -> int:
        """How many abandoned calls are still running this many seconds after their time was up."""
        self._abandoned = [(f, at) for f, at in self._abandoned if not f.done()]
        limit = clock() - grace_s
        return sum(at < limit for _, at in self._abandoned)

    def close(self) -> None:
        """Take no more calls; calls that are running are not waited for."""
        self._pool.close()


def _timed(context: contextvars.Context, function: Callable[[Event], Any], event: Event) -> tuple[Any, float]:
    start = clock()
    try:
        result = context.run(function, event)
    except StopIteration as exc:
        # It cannot pass through a future: who waits for it would wait for ever.
        raise RuntimeError("the step raised StopIteration") from exc
    return result, clock() - start


class Call:
    """User code bound to a step: gets an event, gives an event (or ``None`` for a dropped one)."""

    __slots__ = ("chained", "function", "guard", "is_async", "is_free", "keeps_time", "name")
    policy: StepPolicy = DEFAULT_POLICY

    def __init__(self, name: str, function: Callable[[Event], Any], is_async: bool, guard: Guard) -> None:
        self.name = name
        self.function = function
        self.is_async = is_async
        self.guard = guard
        self.keeps_time = False
        """Whether the code only ever waits for other calls, which keep to the deadline themselves."""
        self.chained = False
        """Whether several steps run in this one call; then the event knows which of them is running."""
        self.is_free: Callable[[], bool] | None = None
        """Tells, for code that lets only so many calls in, whether one more would start at once."""

    def step(self, event: Event) -> str:
        """The name of the step that is running, or ran last, for this event."""
        return event._at if self.chained else self.name

    def at_once(self) -> bool:
        """Whether `run_inline` is all there is to do: trusted synchronous code, under no policy that waits."""
        return (
            self.guard.inline
            and not self.is_async
            and self.__class__ is Call
            and (self.is_free is None or self.is_free())
        )

    async def run(self, event: Event, run: Run) -> Any:
        """The result of the code; raises what it raises, or `DeadlineError` when the request's time is up."""
        if self.is_async:
            if self.keeps_time:
                return await self.function(event)
            return await self._awaited(self.function(event), event, run.deadline)
        offloader = run.offloader
        if offloader is None:
            return self.function(event)
        if self.guard.inline and (self.is_free is None or self.is_free()):
            return self.run_inline(event, run.deadline)
        return await self._awaited(offloader.call(self.function, event, self.guard), event, run.deadline)

    def run_inline(self, event: Event, deadline: float | None) -> Any:
        """The result of synchronous code, called on the event loop under its guard."""
        guard = self.guard
        start = clock()
        result = guard.watch(self.function, event) if guard.watching else self.function(event)
        end = clock()
        if end - start > guard.slow_s and not guard.watching:
            guard.took_long(end - start, end)
        if deadline is not None and end > deadline:
            raise self._late(event)
        return result

    async def _awaited(self, work: Coroutine[Any, Any, Any], event: Event, deadline: float | None) -> Any:
        """Await, up to the deadline."""
        if deadline is None:
            return await work
        remaining = deadline - clock()
        if remaining <= 0:
            work.close()
            raise self._late(event)
        scope = asyncio.timeout(remaining)
        try:
            async with scope:
                return await work
        except TimeoutError:
            if scope.expired():
                raise self._late(event) from None
            raise

    def _late(self, event: Event) -> DeadlineError:
        name = self.step(event)
        return DeadlineError(f"the request's time was up in step {name!r}", step=name)


class PolicyCall(Call):
    """A call with a time limit, retries or a bound on the events in flight. Needs an event loop."""

    __slots__ = ("_semaphore", "policy")

    def __init__(
        self, name: str, function: Callable[[Event], Any], is_async: bool, guard: Guard, policy: StepPolicy
    ) -> None:
        super().__init__(name, function, is_async, guard)
        self.policy = policy
        self._semaphore = None if policy.max_in_flight is None else asyncio.Semaphore(policy.max_in_flight)

    async def run(self, event: Event, run: Run) -> Any:
        """The result of the code under its policy."""
        if self._semaphore is None:
            return await self._tries(event, run)
        await self._awaited(self._semaphore.acquire(), event, run.deadline)
        try:
            return await self._tries(event, run)
        finally:
            self._semaphore.release()

    async def _tries(self, event: Event, run: Run) -> Any:
        policy = self.policy
        body = event.body
        for attempt in range(policy.retries + 1):
            # Each try has its own event: what a failed one did to it, or an abandoned one still does on its thread,
            # is not seen here.
            mine = event.fork(body) if policy.timeout_s is not None or policy.retries else event
            try:
                return await self._once(mine, run)
            except RequestError:
                raise
            except Exception:
                if attempt == policy.retries or self._over(run):
                    raise
            pause = min(policy.backoff_s * 2**attempt, policy.backoff_max_s)
            await self._awaited(asyncio.sleep(pause), event, run.deadline)
        raise AssertionError("unreachable")

    async def _once(self, event: Event, run: Run) -> Any:
        if self.policy.timeout_s is None:
            return await super().run(event, run)
        scope = asyncio.timeout(self.policy.timeout_s)
        try:
            async with scope:
                return await super().run(event, run)
        except TimeoutError:
            if scope.expired():
                limit = self.policy.timeout_s
                raise DeadlineError(f"step {self.name!r} took longer than {limit:g} s", step=self.name) from None
            raise

    @staticmethod
    def _over(run: Run) -> bool:
        return run.deadline is not None and clock() >= run.deadline


def make_call(
    name: str, function: Callable[[Event], Any], is_async: bool, policy: StepPolicy, limits: InlineLimits
) -> Call:
    """The call for some code under a policy."""
    execution = policy.execution
    if execution == "auto":
        if policy.timeout_s is not None or limits.mode == "never":
            execution = "thread"  # what runs on the event loop cannot be given up
        elif limits.mode == "always":
            execution = "inline"
    guard = Guard(execution, limits)
    if policy.plain:
        return Call(name, function, is_async, guard)
    return PolicyCall(name, function, is_async, guard, policy)
