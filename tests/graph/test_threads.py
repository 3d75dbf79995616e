from __future__ import annotations

import gc
import threading
import weakref

import pytest

from servegraph.graph.threads import ThreadPool


def named(name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith(name)]


def wait_gone(name: str) -> None:
    for thread in named(name):
        thread.join(10)
    assert not named(name)


def test_pool_gives_results_and_exceptions_in_order() -> None:
    pool = ThreadPool(3, "t-order")
    futures = [pool.submit(pow, i, 2) for i in range(100)]
    assert [f.result(10) for f in futures] == [i * i for i in range(100)]
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(10)
    with pytest.raises(SystemExit):
        pool.submit(exec, "raise SystemExit").result(10)
    assert pool.submit(int, "3").result(10) == 3
    pool.close()
    wait_gone("t-order")


def test_pool_starts_threads_as_needed_and_no_more_than_it_may() -> None:
    pool = ThreadPool(3, "t-many")
    pool.submit(int).result(10)
    while pool._waiting.idle == 0:  # the thread says that it is idle a moment after the result
        pass
    pool.submit(int).result(10)
    assert len(named("t-many")) == 1
    barrier = threading.Barrier(3)
    for future in [pool.submit(barrier.wait, 10) for _ in range(3)]:
        future.result(10)
    assert len(named("t-many")) == 3
    assert all(t.daemon for t in named("t-many"))
    pool.close()
    wait_gone("t-many")


def test_pool_that_can_start_no_further_thread_goes_on_with_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = ThreadPool(3, "t-few")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(int)
    go_on = threading.Event()
    first = pool.submit(go_on.wait, 10)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        second = pool.submit(int, "3")
    go_on.set()
    assert (first.result(10), second.result(10)) == (True, 3)
    assert len(named("t-few")) == 1
    pool.close()
    wait_gone("t-few")


def test_pool_that_is_closed_cancels_what_waits_and_lets_end_what_runs() -> None:
    pool = ThreadPool(1, "t-close")
    go_on, started = threading.Event(), threading.Event()

    def run() -> str:
        started.set()
        assert go_on.wait(10)
        return "ended"

    running, waiting = pool.submit(run), pool.submit(int)
    assert started.wait(10)
    pool.close()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(int)
    go_on.set()
    assert running.result(10) == "ended"
    wait_gone("t-close")


def test_pool_that_nobody_has_any_more_ends_its_threads() -> None:
    pool = ThreadPool(2, "t-gone")
    pool.submit(int).result(10)
    assert len(named("t-gone")) == 1
    del pool
    gc.collect()
    wait_gone("t-gone")


def test_pool_keeps_nothing_of_a_call_that_has_ended() -> None:
    class Thing:
        pass

    pool = ThreadPool(1, "t-kept")
    thing = Thing()
    seen = weakref.ref(thing)
    pool.submit(id, thing).result(10)
    del thing
    end = threading.Event()
    for _ in range(200):
        if seen() is None:
            break
        end.wait(0.01)
    assert seen() is None
    pool.close()
