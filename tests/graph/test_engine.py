from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from graph_kit import INLINE, THREADS, Running, body_of, flow, until

from servegraph.errors import (
    DeadlineError,
    GraphError,
    RequestError,
    StepError,
    UnprocessableError,
)
from servegraph.graph.builtin import Merge
from servegraph.graph.engine import NoResult
from servegraph.graph.events import DROP, Event
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.policies import StepPolicy
from servegraph.serving.routers import ModelRouter


def same(body: Any) -> Any:
    return body


def boom(body: Any) -> Any:
    raise ValueError("boom")


async def forever(body: Any) -> Any:
    await asyncio.sleep(30)


# -- concurrency ------------------------------------------------------------------------------------------------------


def test_requests_through_one_coroutine_step_do_not_wait_for_each_other() -> None:
    inside = 0
    all_in = asyncio.Event()

    async def step(body: Any) -> Any:
        nonlocal inside
        inside += 1
        if inside == 50:
            all_in.set()
        await all_in.wait()  # opens only when all are inside
        return body

    graph = flow()
    graph.to(same, "a").to(step, "b").to(same, "c").respond()

    async def run(running: Running) -> list[Any]:
        return [body_of(o) for o in await asyncio.gather(*(running.start(i, seconds=20) for i in range(50)))]

    with Running(graph) as running:
        assert asyncio.run(run(running)) == list(range(50))


def test_requests_through_a_blocking_step_do_not_wait_for_each_other() -> None:
    barrier = threading.Barrier(4)
    graph = flow()
    graph.to(lambda body: barrier.wait(10) * 0 + body, "a").respond()

    async def run(running: Running) -> list[Any]:
        return [body_of(o) for o in await asyncio.gather(*(running.start(i, seconds=20) for i in range(4)))]

    with Running(graph, THREADS, threads=4) as running:
        assert asyncio.run(run(running)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_branches_of_one_request_run_at_the_same_time(kind: str) -> None:
    barrier = threading.Barrier(3)
    meet = asyncio.Barrier(3)

    async def wait_async(body: Any) -> Any:
        await meet.wait()
        return body

    def wait(body: Any) -> Any:
        barrier.wait(10)
        return body

    graph = flow()
    graph.to(same, "start")
    for name in "abc":
        graph.add_step(wait_async if kind == "coroutine" else wait, name, after="start")
    graph.add_step(Merge, "join", after=["a", "b", "c"]).respond()
    with Running(graph, THREADS) as running:
        assert body_of(running.loop(7, seconds=20)) == [7, 7, 7]


def test_event_loop_turns_while_a_synchronous_step_blocks() -> None:
    go_on = threading.Event()
    graph = flow()
    graph.to(lambda body: go_on.wait(10), "a").respond()

    async def run(running: Running) -> Any:
        task = asyncio.ensure_future(running.start(1))
        await asyncio.sleep(0.01)
        go_on.set()
        return body_of(await task)

    with Running(graph) as running:
        assert asyncio.run(run(running)) is True


# -- time -------------------------------------------------------------------------------------------------------------


def slow(body: Any) -> Any:
    time.sleep(0.3)
    return body


def _at_the_start(graph: FlowGraph, code: Any) -> None:
    graph.to(code, "late").respond()


def _in_a_chain(graph: FlowGraph, code: Any) -> None:
    graph.to(same, "a").to(code, "late").to(same, "b").respond()


def _at_the_end(graph: FlowGraph, code: Any) -> None:
    graph.to(same, "a").to(same, "b").to(code, "late").respond()


def _in_a_branch(graph: FlowGraph, code: Any) -> None:
    graph.to(same, "a")
    graph.add_step(code, "late", after="a")
    graph.add_step(same, "b", after="a")
    graph.add_step(Merge, "join", after=["late", "b"]).respond()


def _in_a_handler(graph: FlowGraph, code: Any) -> None:
    graph.to(boom, "a").error_handler("late", handler=code).to(same, "b").respond()


def _in_the_graphs_handler(graph: FlowGraph, code: Any) -> None:
    graph.error_handler("late", handler=code)
    graph.to(boom, "a").respond()


def _in_a_fallback(graph: FlowGraph, code: Any) -> None:
    graph.to(boom, "a", policy=StepPolicy(on_error="fallback", fallback="late")).respond()
    graph.add_step(code, "late")


def _with_a_handler(graph: FlowGraph, code: Any) -> None:
    graph.to(code, "late").error_handler("catch", handler=same).respond()


def _with_a_policy(graph: FlowGraph, code: Any) -> None:
    graph.to(code, "late", policy=StepPolicy(on_error="skip", retries=3, max_in_flight=1)).respond()


POSITIONS = [_at_the_start, _in_a_chain, _at_the_end, _in_a_branch, _in_a_handler, _in_the_graphs_handler,
             _in_a_fallback, _with_a_handler, _with_a_policy]  # fmt: skip


@pytest.mark.parametrize("code", [slow, forever], ids=["thread", "coroutine"])
@pytest.mark.parametrize("build", POSITIONS, ids=lambda f: f.__name__)
def test_deadline_in_any_position_names_the_step(build: Any, code: Any) -> None:
    graph = flow()
    build(graph, code)
    with Running(graph, THREADS) as running, pytest.raises(DeadlineError) as caught:
        running.loop(1, seconds=0.05)
    assert caught.value.step == "late"
    assert "'late'" in str(caught.value)
    assert caught.value.status == 504


def test_deadline_passed_inline_names_the_step_of_the_chain() -> None:
    graph = flow()
    graph.to(same, "a").to(slow, "late").respond()
    with Running(graph, INLINE) as running, pytest.raises(DeadlineError, match="'late'"):
        running.loop(1, seconds=0.05)


def test_deadline_in_a_route_names_a_step() -> None:
    graph = RouterGraph()
    graph.add_route("m", handler=forever)
    with Running(graph) as running, pytest.raises(DeadlineError, match="'m'"):
        running.loop({"inputs": []}, seconds=0.05)


def test_deadline_in_a_routers_own_code_is_kept() -> None:
    class Waits(ModelRouter):
        async def handle(self, event: Event) -> Event:
            await asyncio.sleep(30)
            return event

    graph = RouterGraph(Waits)
    graph.add_route("m", handler=same)
    with Running(graph) as running, pytest.raises(DeadlineError):
        running.loop({"inputs": []}, seconds=0.05)


def test_deadline_that_has_passed_starts_nothing_that_waits() -> None:
    ran: list[Any] = []

    async def step(body: Any) -> Any:
        ran.append(body)

    graph = flow()
    graph.to(step, "a").respond()
    with Running(graph) as running, pytest.raises(DeadlineError):
        running.loop(1, seconds=-1)
    assert ran == []


# -- cancellation -----------------------------------------------------------------------------------------------------


def test_cancellation_reaches_every_branch_and_leaves_no_task() -> None:
    started: list[str] = []
    cancelled: list[str] = []

    def waits(name: str) -> Any:
        async def step(body: Any) -> Any:
            started.append(name)
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                cancelled.append(name)
                raise

        return step

    graph = flow()
    graph.to(same, "start")
    for name in "abc":
        graph.add_step(waits(name), name, after="start")
    graph.add_step(Merge, "join", after=list("abc")).respond()

    async def run(running: Running) -> None:
        task = asyncio.ensure_future(running.start(1))
        await until(lambda: len(started) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(cancelled) == ["a", "b", "c"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with Running(graph) as running:
        asyncio.run(run(running))


def test_cancellation_reaches_the_work_that_may_go_on_behind_the_answer() -> None:
    cancelled: list[bool] = []

    async def step(body: Any) -> Any:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    graph = flow()
    graph.to(step, "a").respond().to(same, "later")

    async def run(running: Running) -> None:
        task = asyncio.ensure_future(running.start(1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await running.engine.wait_for_background()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with Running(graph) as running:
        asyncio.run(run(running))
    assert cancelled == [True]


def test_cancelled_error_of_a_steps_own_is_its_failure() -> None:
    async def step(body: Any) -> Any:
        inner = asyncio.ensure_future(asyncio.sleep(30))
        inner.cancel()
        await inner

    graph = flow()
    graph.to(step, "a").respond()
    with Running(graph) as running, pytest.raises(StepError, match="'a' failed: CancelledError"):
        running.loop(1)


@pytest.mark.parametrize("driver", ["plain", "loop"])
def test_error_that_cannot_be_shown_is_the_steps_failure(driver: str) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def step(body: Any) -> Any:
        raise Hostile

    graph = flow("sync" if driver == "plain" else "async")
    graph.to(step, "a").respond()
    with Running(graph) as running, pytest.raises(StepError, match=r"'a' failed: Hostile: \(its text cannot be read\)"):
        running.plain(1) if driver == "plain" else running.loop(1)


def test_requests_that_end_leave_no_task_behind() -> None:
    graph = flow()
    graph.to(same, "start")
    graph.add_step(boom, "a", after="start")
    graph.add_step(forever, "b", after="start", policy=StepPolicy(timeout_s=0.01))
    graph.add_step(Merge, "join", after=["a", "b"]).respond()

    async def run(running: Running) -> None:
        with pytest.raises(StepError):
            await running.start(1, seconds=5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with Running(graph) as running:
        asyncio.run(run(running))


# -- failures ---------------------------------------------------------------------------------------------------------


def test_failing_branch_lets_its_siblings_end() -> None:
    ended: list[str] = []

    async def sibling(body: Any) -> Any:
        await asyncio.sleep(0.01)
        ended.append("sibling")
        return body

    graph = flow()
    graph.to(same, "start")
    graph.add_step(boom, "bad", after="start")
    graph.add_step(sibling, "good", after="start")
    graph.add_step(Merge, "join", after=["bad", "good"]).respond()
    with Running(graph) as running, pytest.raises(StepError, match="'bad'"):
        running.loop(1)
    assert ended == ["sibling"]


def test_failing_branch_with_fail_fast_cancels_its_siblings() -> None:
    cancelled: list[bool] = []
    started = asyncio.Event()

    async def sibling(body: Any) -> Any:
        started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def bad(body: Any) -> Any:
        await started.wait()
        raise ValueError("boom")

    graph = flow(fail_fast=True)
    graph.to(same, "start")
    graph.add_step(sibling, "good", after="start")
    graph.add_step(bad, "bad", after="start")
    graph.add_step(Merge, "join", after=["bad", "good"]).respond()
    with Running(graph) as running, pytest.raises(StepError, match="'bad'"):
        running.loop(1, seconds=10)
    assert cancelled == [True]


def test_failing_branch_with_fail_fast_in_a_plain_call_starts_no_further_ones() -> None:
    ran: list[Any] = []
    graph = flow("sync", fail_fast=True)
    graph.to(same, "start")
    graph.add_step(boom, "bad", after="start")
    graph.add_step(ran.append, "good", after="start")
    graph.add_step(Merge, "join", after=["bad", "good"])
    with Running(graph) as running, pytest.raises(StepError, match="'bad'"):
        running.plain(1)
    assert ran == []


def test_several_failures_report_the_first_in_graph_order() -> None:
    async def later(body: Any) -> Any:
        await asyncio.sleep(0.01)
        raise ValueError("later")

    graph = flow()
    graph.to(same, "start")
    graph.add_step(later, "first", after="start")
    graph.add_step(boom, "second", after="start")
    graph.add_step(Merge, "join", after=["first", "second"]).respond()
    with Running(graph) as running, pytest.raises(StepError, match="'first' failed: ValueError: later"):
        running.loop(1)


def test_failure_keeps_the_users_exception_as_its_cause() -> None:
    graph = flow()
    graph.to(same, "a").to(boom, "bad").respond()
    with Running(graph) as running:
        for drive in (running.plain, running.loop):
            with pytest.raises(StepError) as caught:
                drive(1)
            assert isinstance(caught.value.__cause__, ValueError)
            assert caught.value.step == "bad"
        assert [e["source"] for e in running.errors] == ["bad", "bad"]


def test_failure_that_is_the_callers_fault_is_no_error_of_the_server() -> None:
    def refuses(body: Any) -> Any:
        raise UnprocessableError("not this")

    graph = flow()
    graph.to(refuses, "a").respond()
    with Running(graph) as running, pytest.raises(UnprocessableError) as caught:
        running.loop(1)
    assert caught.value.step == "a"
    assert running.errors == []


@pytest.mark.parametrize("chained", [True, False])
def test_handler_of_the_graph_gets_the_body_as_it_came_to_the_failing_step(chained: bool) -> None:
    graph = flow()
    graph.error_handler("catch", handler=lambda event: event, full_event=True)
    extra: dict[str, Any] = {} if chained else {"full_event": True}
    first = graph.to((lambda e: e.fork({"n": 2})) if extra else (lambda body: {"n": 2}), "a", **extra)
    first.to(boom, "bad").respond()
    with Running(graph) as running:
        assert body_of(running.plain({"n": 1})) == {"n": 2}
        assert body_of(running.loop({"n": 1})) == {"n": 2}


@pytest.mark.parametrize("result", [{"a": 1}, 5, "text"])
def test_handler_that_gives_no_event_although_it_must_is_told_so(result: Any) -> None:
    graph = flow()
    graph.to(boom, "bad").error_handler("catch", handler=lambda event: result, full_event=True).respond()
    with Running(graph) as running:
        for drive in (running.plain, running.loop):
            with pytest.raises(GraphError, match="'catch' gets the whole event and must return it") as caught:
                drive(1)
            assert caught.value.step == "catch"


@pytest.mark.parametrize("result", [None, DROP])
def test_handler_that_drops_the_event_ends_it(result: Any) -> None:
    graph = flow()
    graph.to(boom, "bad").error_handler("catch", handler=lambda event: result, full_event=True).respond()
    with Running(graph) as running:
        for drive in (running.plain, running.loop):
            outcome = drive(1)
            assert isinstance(outcome, NoResult)
            assert "'catch'" in outcome.reason


def test_handler_that_fails_itself_is_reported_with_its_name() -> None:
    graph = flow()
    graph.to(lambda body: 1 / 0, "bad").error_handler("catch", handler=boom).respond()
    with Running(graph) as running, pytest.raises(StepError, match="'catch' failed: ValueError: boom"):
        running.loop(1)


def test_event_behind_a_handler_carries_no_error_any_more() -> None:
    seen: list[Any] = []

    def look(event: Event) -> Event:
        seen.append((event.error, event.origin_state))
        return event

    graph = flow()
    bad = graph.to(boom, "bad")
    bad.error_handler("catch", handler=look, full_event=True, before="out")
    graph.add_step(look, "out", after="bad", full_event=True).respond()
    with Running(graph) as running:
        body_of(running.loop(1))
    assert [type(error) for error, _ in seen] == [ValueError, type(None)]
    assert [origin for _, origin in seen] == ["bad", None]


@pytest.mark.parametrize("result", [{"a": 1}, 5])
def test_step_that_gives_no_event_although_it_must_is_told_so(result: Any) -> None:
    graph = flow()
    graph.to(lambda event: result, "a", full_event=True).to(same, "b").respond()
    with Running(graph) as running:
        for drive in (running.plain, running.loop):
            with pytest.raises(GraphError, match="'a' gets the whole event and must return it"):
                drive(1)


def test_body_that_cannot_be_copied_for_branches_names_the_step() -> None:
    graph = flow()
    graph.to(lambda body: {"lock": threading.Lock()}, "opens")
    graph.add_step(same, "a", after="opens")
    graph.add_step(same, "b", after="opens")
    graph.add_step(Merge, "join", after=["a", "b"]).respond()
    with Running(graph) as running, pytest.raises(StepError, match="cannot be copied") as caught:
        running.loop(1)
    assert caught.value.step == "opens"


# -- answers and what goes on behind them ------------------------------------------------------------------------------


def test_work_behind_the_answer_goes_on_and_can_be_waited_for() -> None:
    go_on = asyncio.Event()
    done: list[Any] = []

    async def later(body: Any) -> None:
        await go_on.wait()
        done.append(body)

    graph = flow()
    graph.to(same, "a").respond().to(later, "later")

    async def run(running: Running) -> None:
        assert body_of(await running.start(5, seconds=10)) == 5
        assert done == []
        go_on.set()
        await running.engine.wait_for_background()
        assert done == [5]

    with Running(graph) as running:
        asyncio.run(run(running))


def test_work_behind_the_answer_can_be_cancelled() -> None:
    graph = flow()
    graph.to(same, "a").respond().to(forever, "later")

    async def run(running: Running) -> None:
        assert body_of(await running.start(5)) == 5
        running.engine.cancel_background()
        async with asyncio.timeout(5):
            await running.engine.wait_for_background()

    with Running(graph) as running:
        asyncio.run(run(running))


def test_failure_behind_the_answer_is_told_once_and_changes_no_answer() -> None:
    graph = flow()
    graph.to(same, "a").respond().to(boom, "later")
    with Running(graph) as running:
        assert body_of(running.loop(5)) == 5
        assert [e["source"] for e in running.errors] == ["later"]


def test_answer_is_not_changed_by_what_follows_it() -> None:
    def spoils(body: Any) -> Any:
        body["n"] = "spoiled"
        return body

    graph = flow()
    graph.to(lambda body: {"n": 1}, "a").respond().to(spoils, "later")
    with Running(graph) as running:
        assert body_of(running.loop(0)) == {"n": 1}


def test_async_flow_without_a_responder_answers_with_the_id_at_once() -> None:
    done: list[Any] = []
    graph = flow()
    graph.to(same, "a").to(done.append, "b")

    async def run(running: Running) -> None:
        event = Event(5, event_id="e1")
        outcome = await running.engine.run_in_loop(event)
        assert body_of(outcome) == {"id": "e1"}
        await running.engine.wait_for_background()

    with Running(graph) as running:
        asyncio.run(run(running))
    assert done == [5]


def test_terminated_event_ends_its_way_and_answers() -> None:
    def stop(event: Event) -> Event:
        event.terminated = True
        return event

    graph = flow()
    graph.to(stop, "stop", full_event=True).to(boom, "never").respond()
    with Running(graph) as running:
        assert body_of(running.loop("x")) == "x"
        assert body_of(running.plain("x")) == "x"


# -- isolation --------------------------------------------------------------------------------------------------------


def _seen_by(mutates: bool | None, drive: str) -> tuple[Any, list[Any]]:
    seen: list[Any] = []
    given = {"rows": [1]}
    graph = flow("sync")
    graph.to(lambda body: given, "start")
    for name in "ab":
        graph.add_step(seen.append, name, after="start", mutates=mutates)
    graph.add_step(Merge, "join", after=["a", "b"], mutates=False)
    with Running(graph, INLINE) as running:
        getattr(running, drive)(None)
    return given, seen


@pytest.mark.parametrize("drive", ["plain", "loop"])
def test_branches_that_change_nothing_share_the_very_same_body(drive: str) -> None:
    given, seen = _seen_by(False, drive)
    assert all(body is given for body in seen)


@pytest.mark.parametrize("drive", ["plain", "loop"])
def test_branches_that_may_change_the_body_have_their_own(drive: str) -> None:
    _, seen = _seen_by(None, drive)
    assert seen[0] == seen[1]
    assert seen[0] is not seen[1]
    assert seen[0]["rows"] is not seen[1]["rows"]


def test_branch_that_reads_beside_one_that_writes_sees_the_body_as_it_was() -> None:
    def write(body: Any) -> Any:
        body["rows"].append("w")
        return body

    graph = flow("sync")
    graph.to(lambda body: {"rows": []}, "start")
    graph.add_step(write, "writer", after="start")
    graph.add_step(lambda body: len(body["rows"]), "reader", after="start", mutates=False)
    graph.add_step(Merge, "join", after=["writer", "reader"])
    with Running(graph) as running:
        assert body_of(running.plain(None)) == [{"rows": ["w"]}, 0]


def test_branch_whose_later_step_writes_has_its_own_body() -> None:
    def write(body: Any) -> Any:
        body.append("w")
        return body

    graph = flow("sync")
    graph.to(lambda body: [], "start")
    graph.add_step(same, "a", after="start", mutates=False)
    graph.add_step(write, "a2", after="a")
    graph.add_step(same, "b", after="start", mutates=False)
    graph.add_step(Merge, "join", after=["a2", "b"])
    with Running(graph) as running:
        assert body_of(running.plain(None)) == [["w"], []]


def test_parts_of_a_merge_can_be_changed_one_by_one() -> None:
    def change(bodies: Any) -> Any:
        bodies[0]["n"] = 1
        return bodies

    graph = flow("sync")
    graph.to(lambda body: {}, "start")
    for name in "ab":
        graph.add_step(same, name, after="start", mutates=False)
    graph.add_step(Merge, "join", after=["a", "b"])
    graph.add_step(change, "change", after="join")
    with Running(graph) as running:
        assert body_of(running.plain(None)) == [{"n": 1}, {}]


def test_branches_of_one_request_have_one_id() -> None:
    graph = flow("sync")
    graph.to(same, "start")
    for name in "ab":
        graph.add_step(lambda event: event.fork(event.id), name, after="start", full_event=True)
    graph.add_step(Merge, "join", after=["a", "b"])
    with Running(graph) as running:
        ids = body_of(running.plain({}))
    assert ids[0] == ids[1]


def test_event_made_anew_by_a_step_goes_on_through_routers() -> None:
    graph = flow()
    graph.to(lambda event: Event({"inputs": [event.body]}), "anew", full_event=True)
    router = graph.add_step("*", "models", after="anew")
    router.add_route("m", handler=lambda body: body["inputs"])  # type: ignore[attr-defined]
    router.respond()
    with Running(graph) as running:
        assert body_of(running.loop(3)) == [3]
        assert body_of(running.plain(3)) == [3]


# -- merges -----------------------------------------------------------------------------------------------------------


def _orders(**options: Any) -> FlowGraph:
    graph = flow()
    graph.to(Merge, "join", key_path="event['order']", expected_num_events=2, **options).respond()
    return graph


def test_merge_across_requests_gives_the_last_one_the_list() -> None:
    with Running(_orders()) as running:
        assert isinstance(running.loop({"order": 1, "n": "a"}), NoResult)
        assert isinstance(running.loop({"order": 2, "n": "b"}), NoResult)
        assert body_of(running.loop({"order": 1, "n": "c"})) == [{"order": 1, "n": "a"}, {"order": 1, "n": "c"}]
        assert isinstance(running.loop({"order": 1}), NoResult)  # a new set


def test_merge_across_requests_keeps_at_most_max_behind_sets() -> None:
    with Running(_orders(max_behind=3)) as running:
        merge: Merge = running.plan.objects["join"]
        for order in range(50):
            running.loop({"order": order})
            assert len(merge._sets) <= 3
            assert len(merge._given_up) <= 3
        assert len(running.errors) == 47
        assert "was given up with 1 of 2 events" in running.errors[0]["message"]
        with pytest.raises(UnprocessableError, match="was given up before"):
            running.loop({"order": 46})
        assert body_of(running.loop({"order": 49})) == [{"order": 49}] * 2


def test_merge_across_requests_with_a_key_of_the_wrong_kind_is_the_callers_fault() -> None:
    with Running(_orders()) as running, pytest.raises(RequestError):
        running.loop({"order": ["not", "hashable"]})


def test_merge_across_requests_from_many_at_once_makes_whole_sets() -> None:
    with Running(_orders(max_behind=1000)) as running:

        async def run() -> list[Any]:
            return list(await asyncio.gather(*(running.start({"order": i % 100}) for i in range(200))))

        outcomes = asyncio.run(run())
    assert sum(isinstance(o, Event) for o in outcomes) == 100


def test_partial_merges_one_after_the_other_pass_on_in_their_order() -> None:
    graph = flow("sync")
    graph.to(same, "start")
    graph.add_step(same, "a", after="start")
    graph.add_step(lambda body: DROP, "lost", after="start")
    graph.add_step(lambda body: "c", "c", after="start")
    graph.add_step(Merge, "second", after=["c"], partial=True)
    graph.add_step(Merge, "first", after=["a", "lost"], partial=True)
    graph["second"].after_step("first")
    with Running(graph) as running:
        assert body_of(running.plain(1)) == ["c", [1]]
        assert body_of(running.loop(1)) == ["c", [1]]


class BadMerge(Merge):
    def merge_function(self, last_event: Event, events: list[Event]) -> Event:
        raise ValueError("boom")


@pytest.mark.parametrize("lost", [True, False])
def test_merge_function_that_fails_names_its_step(lost: bool) -> None:
    graph = flow("sync")
    graph.to(same, "start")
    graph.add_step(same, "a", after="start")
    graph.add_step((lambda body: DROP) if lost else same, "b", after="start")
    graph.add_step(BadMerge, "join", after=["a", "b"], partial=True)
    with Running(graph) as running:
        for drive in (running.plain, running.loop):
            with pytest.raises(StepError, match="'join' failed: ValueError: boom"):
                drive(1)


def test_merge_of_a_failed_branch_whose_handler_stands_in_keeps_the_order() -> None:
    graph = flow("sync")
    graph.to(same, "start")
    graph.add_step(boom, "a", after="start").error_handler("catch", handler=lambda body: "stand-in", before="join")
    graph.add_step(lambda body: "b", "b", after="start")
    graph.add_step(Merge, "join", after=["a", "b"])
    with Running(graph) as running:
        assert body_of(running.plain(1)) == ["stand-in", "b"]
        assert body_of(running.loop(1)) == ["stand-in", "b"]


# -- drivers ----------------------------------------------------------------------------------------------------------


def test_plain_call_is_refused_for_a_router_whose_own_code_may_wait() -> None:
    class Waits(ModelRouter):
        async def handle(self, event: Event) -> Event:
            await asyncio.sleep(0)
            return await super().handle(event)

    graph = RouterGraph(Waits)
    graph.add_route("m", handler=same)
    with Running(graph) as running:
        assert not running.plan.plain
        assert body_of(running.loop({"n": 1})) == {"n": 1}


def test_step_that_asks_the_process_to_end_has_failed() -> None:
    def leaves(body: Any) -> Any:
        raise SystemExit(3)

    graph = flow()
    graph.to(leaves, "a").to(same, "b").respond()
    for limits in (INLINE, THREADS):
        with Running(graph, limits) as running:
            for drive in (running.plain, running.loop):
                with pytest.raises(StepError, match="'a' failed: SystemExit"):
                    drive(1)


def test_many_requests_leave_no_growing_state_behind() -> None:
    graph = flow()
    graph.to(same, "start")
    graph.add_step(same, "a", after="start")
    graph.add_step(lambda body: DROP, "b", after="start")
    graph.add_step(Merge, "join", after=["a", "b"]).respond()

    async def run(running: Running) -> None:
        for i in range(200):
            assert isinstance(await running.start(i), NoResult)
        assert not running.engine._tasks
        assert not running.plan.objects["join"]._sets

    with Running(graph) as running:
        asyncio.run(run(running))
