from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from graph_kit import THREADS, Running, body_of, flow, until

from servegraph.errors import DeadlineError, NotFoundError, RequestError, StepError
from servegraph.graph.calls import Call, Guard, InlineLimits, Offloader, PolicyCall, make_call
from servegraph.graph.events import Event
from servegraph.graph.policies import DEFAULT_POLICY, StepPolicy

LIMITS = InlineLimits(streak=4, watch_calls=3, slow_s=0.02, below_s=0.001)


@pytest.fixture
def offloader() -> Iterator[Offloader]:
    made = Offloader(2)
    yield made
    made.close()


def fast(guard: Guard, times: int) -> None:
    for _ in range(times):
        guard.fast_enough(LIMITS.below_s / 2)


# -- the guard --------------------------------------------------------------------------------------------------------


def test_guard_after_enough_fast_calls_runs_inline() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 3)
    assert not guard.inline
    fast(guard, 1)
    assert guard.inline


def test_guard_after_a_call_that_is_not_fast_counts_anew() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 3)
    guard.fast_enough(LIMITS.below_s * 2)
    fast(guard, 3)
    assert not guard.inline


def test_guard_after_one_long_call_only_watches() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 4)
    guard.took_long(LIMITS.slow_s * 2, now=100.0)
    assert guard.inline
    assert guard.watching


def test_guard_after_a_very_long_call_goes_back_to_threads() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 4)
    guard.took_long(LIMITS.slow_s * 50, now=100.0)
    assert not guard.inline
    assert not guard.watching


def test_guard_sent_back_soon_again_needs_twice_as_many_fast_calls() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 4)
    guard.took_long(10.0, now=100.0)
    fast(guard, 4)
    where = [guard.inline]
    guard.took_long(10.0, now=101.0)
    fast(guard, 7)
    where.append(guard.inline)
    fast(guard, 1)
    where.append(guard.inline)
    guard.took_long(10.0, now=500.0)  # long ago: forgotten
    fast(guard, 4)
    where.append(guard.inline)
    assert where == [True, False, True, True]


def test_guard_never_needs_more_than_the_longest_streak() -> None:
    limits = InlineLimits(streak=1, longest_streak=4, below_s=LIMITS.below_s)
    guard = Guard("auto", limits)
    for i in range(20):
        fast(guard, 4)
        assert guard.inline
        guard.took_long(10.0, now=100.0 + i)


def test_guard_watching_a_call_that_waits_goes_back_to_threads() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 4)
    guard.took_long(LIMITS.slow_s * 2, now=100.0)
    guard.watch(lambda event: time.sleep(0.03), Event())
    assert not guard.inline


def test_guard_watching_a_call_that_computes_for_long_goes_back_to_threads() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 4)
    guard.took_long(LIMITS.slow_s * 2, now=100.0)

    def busy(event: Event) -> None:
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass

    guard.watch(busy, Event())
    assert not guard.inline


def test_guard_watching_fast_calls_ends_watching() -> None:
    guard = Guard("auto", LIMITS)
    fast(guard, 4)
    guard.took_long(LIMITS.slow_s * 2, now=100.0)
    for _ in range(LIMITS.watch_calls):
        guard.watch(lambda event: None, Event())
    assert guard.inline
    assert not guard.watching


@pytest.mark.parametrize(("execution", "inline"), [("inline", True), ("thread", False)])
def test_guard_of_a_fixed_place_never_changes(execution: str, inline: bool) -> None:
    guard = Guard(execution, LIMITS)
    fast(guard, 100)
    guard.took_long(100.0, now=1.0)
    assert guard.inline is inline
    assert not guard.watching


@pytest.mark.parametrize(
    ("policy", "mode", "inline", "fixed"),
    [
        (DEFAULT_POLICY, "auto", False, False),
        (DEFAULT_POLICY, "always", True, True),
        (DEFAULT_POLICY, "never", False, True),
        (StepPolicy(timeout_s=1), "always", False, True),
        (StepPolicy(execution="inline"), "never", True, True),
        (StepPolicy(execution="thread"), "always", False, True),
    ],
)
def test_make_call_decides_where_code_runs(policy: StepPolicy, mode: str, inline: bool, fixed: bool) -> None:
    call = make_call("s", lambda event: event, False, policy, InlineLimits(mode=mode))
    assert (call.guard.inline, call.guard.fixed) == (inline, fixed)
    assert type(call) is (Call if policy.plain else PolicyCall)


def test_call_in_a_server_starts_on_threads_and_moves_to_the_loop() -> None:
    seen: list[str] = []

    def handler(body: Any) -> Any:
        seen.append(threading.current_thread().name)
        return body

    graph = flow()
    graph.to(handler, "h").respond()
    limits = InlineLimits(streak=3, below_s=1.0)

    async def run(running: Running) -> None:
        for i in range(6):
            assert body_of(await running.start(i)) == i

    with Running(graph, limits) as running:
        asyncio.run(run(running))
    assert all("servegraph-step" in name for name in seen[:3])
    assert set(seen[3:]) == {threading.current_thread().name}


# -- the threads ------------------------------------------------------------------------------------------------------


def test_offloader_call_gives_the_result_and_keeps_context_variables(offloader: Offloader) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def run() -> Any:
        variable.set("mine")
        return await offloader.call(lambda event: (event.body, variable.get()), Event(3), Guard("auto", LIMITS))

    assert asyncio.run(run()) == (3, "mine")


def test_offloader_call_that_raises_raises_the_same(offloader: Offloader) -> None:
    error = KeyError("x")

    def fails(event: Event) -> None:
        raise error

    async def run() -> None:
        with pytest.raises(KeyError) as caught:
            await offloader.call(fails, Event(), Guard("auto", LIMITS))
        assert caught.value is error

    asyncio.run(run())


def test_offloader_counts_abandoned_calls_until_they_end(offloader: Offloader) -> None:
    go_on, started = threading.Event(), threading.Event()

    def stuck(event: Event) -> None:
        started.set()
        assert go_on.wait(10)

    async def run() -> None:
        task = asyncio.ensure_future(offloader.call(stuck, Event(), Guard("auto", LIMITS)))
        await until(started.is_set)
        assert offloader.stuck(0.0) == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert offloader.stuck(60.0) == 0
        await until(lambda: offloader.stuck(0.0) == 1)
        go_on.set()
        await until(lambda: offloader.stuck(0.0) == 0)

    asyncio.run(run())


def test_offloader_call_cancelled_in_the_queue_never_runs(offloader: Offloader) -> None:
    go_on, ran = threading.Event(), threading.Event()

    async def run() -> None:
        guard = Guard("auto", LIMITS)
        busy = [asyncio.ensure_future(offloader.call(lambda e: go_on.wait(10), Event(), guard)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(offloader.call(lambda e: ran.set(), Event(), guard))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await asyncio.gather(*busy)
        assert offloader.stuck(0.0) == 0

    asyncio.run(run())
    assert not ran.is_set()


# -- policies ---------------------------------------------------------------------------------------------------------


class Fails:
    """Fails with this error a number of times."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def do(self, body: Any) -> Any:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return body


def one_step(target: Any, **policy: Any) -> Running:
    graph = flow()
    graph.to(target, "s", policy=StepPolicy(**{"backoff_s": 0.0, **policy})).respond()
    return Running(graph)


def test_retries_that_succeed_give_the_result() -> None:
    target = Fails(ConnectionError(), 2)
    with one_step(target, retries=2) as running:
        assert body_of(running.loop(5)) == 5
    assert target.calls == 3
    assert running.errors == []


def test_retries_that_run_out_fail_once() -> None:
    target = Fails(ConnectionError("gone"), 9)
    with one_step(target, retries=2) as running, pytest.raises(StepError, match="'s' failed: ConnectionError: gone"):
        running.loop(5)
    assert target.calls == 3
    assert len(running.errors) == 1


@pytest.mark.parametrize("error", [RequestError("no"), NotFoundError("no")])
def test_retries_never_repeat_the_callers_fault(error: Exception) -> None:
    target = Fails(error, 9)
    with one_step(target, retries=5) as running, pytest.raises(RequestError):
        running.loop(5)
    assert target.calls == 1


def test_retries_beyond_the_deadline_end_with_504() -> None:
    target = Fails(ConnectionError("gone"), 99)
    with one_step(target, retries=99, backoff_s=0.02) as running, pytest.raises(DeadlineError, match="'s'"):
        running.loop(5, seconds=0.1)
    assert target.calls < 99


def test_retries_get_the_event_as_it_came() -> None:
    paths: list[str] = []

    def handler(event: Event) -> Event:
        paths.append(event.path)
        event.path += "x"
        event.body = "changed"
        if len(paths) < 3:
            raise ConnectionError
        return event

    graph = flow()
    graph.to(handler, "s", full_event=True, policy=StepPolicy(retries=3, backoff_s=0)).respond()
    with Running(graph) as running:
        running.loop("b")
    assert paths == ["/", "/", "/"]


def test_timeout_of_a_coroutine_cancels_it() -> None:
    cancelled = []

    async def slow(body: Any) -> Any:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with one_step(slow, timeout_s=0.02) as running, pytest.raises(DeadlineError, match=r"'s' took longer than 0\.02 s"):
        running.loop(1)
    assert cancelled == [True]


def test_timeout_of_a_thread_abandons_and_counts_it() -> None:
    go_on = threading.Event()
    with one_step(lambda body: go_on.wait(10), timeout_s=0.02) as running:
        with pytest.raises(DeadlineError, match="took longer"):
            running.loop(1)
        assert running.offloader.stuck(-1.0) == 1
        go_on.set()


def test_timeout_error_of_the_code_itself_is_no_timeout_of_the_step() -> None:
    async def fails(body: Any) -> Any:
        raise TimeoutError("of my own")

    with one_step(fails, timeout_s=5) as running, pytest.raises(StepError, match="TimeoutError: of my own"):
        running.loop(1)
    with one_step(fails) as running, pytest.raises(StepError, match="of my own"):
        running.loop(1, seconds=5)


def test_timeout_of_an_abandoned_thread_does_not_change_what_goes_on() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def late(event: Event) -> Event:
        assert go_on.wait(10)
        event.body = "too late"
        event.path = "/late"
        ended.set()
        return event

    graph = flow()
    step = graph.to(late, "late", full_event=True, policy=StepPolicy(timeout_s=0.02, on_error="skip"))
    step.to(lambda event: event, "out", full_event=True).respond()

    async def run(running: Running) -> None:
        outcome = await running.start("in time")
        go_on.set()
        await until(ended.is_set)
        assert isinstance(outcome, Event)
        assert (outcome.body, outcome.path) == ("in time", "/")

    with Running(graph) as running:
        asyncio.run(run(running))


def test_max_in_flight_holds_the_others_back() -> None:
    inside = most = 0

    async def step(body: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1
        return body

    async def run(running: Running) -> list[Any]:
        return [body_of(o) for o in await asyncio.gather(*(running.start(i) for i in range(9)))]

    with one_step(step, max_in_flight=3) as running:
        assert asyncio.run(run(running)) == list(range(9))
    assert most == 3


def test_max_in_flight_lets_nobody_wait_beyond_the_deadline() -> None:
    async def run(running: Running, go_on: asyncio.Event) -> None:
        first = asyncio.ensure_future(running.start(1))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineError, match="'s'"):
            await running.start(2, seconds=0.02)
        go_on.set()
        assert body_of(await first) == 1
        assert body_of(await running.start(3)) == 3

    go_on = asyncio.Event()

    async def step(body: Any) -> Any:
        await go_on.wait()
        return body

    with one_step(step, max_in_flight=1) as running:
        asyncio.run(run(running, go_on))


def test_max_in_flight_is_given_back_by_failures_and_cancellations() -> None:
    async def step(body: Any) -> Any:
        if body == "fail":
            raise ValueError
        if body == "wait":
            await asyncio.sleep(30)
        return body

    async def run(running: Running) -> None:
        for _ in range(3):
            with pytest.raises(StepError):
                await running.start("fail")
            task = asyncio.ensure_future(running.start("wait"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert body_of(await running.start("fine", seconds=5)) == "fine"

    with one_step(step, max_in_flight=1) as running:
        asyncio.run(run(running))


def test_call_on_a_thread_with_its_time_up_is_never_started() -> None:
    ran: list[Any] = []
    graph = flow()
    graph.to(ran.append, "s").respond()
    with Running(graph, THREADS) as running, pytest.raises(DeadlineError, match="'s'"):
        running.loop(1, seconds=-1.0)
    assert ran == []
