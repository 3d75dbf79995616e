from __future__ import annotations

import threading
from collections import Counter

import pytest

from servegraph.graph.permits import Permits

WAIT_S = 20.0


def test_permits_are_as_many_as_there_are() -> None:
    permits = Permits(2)
    assert permits.acquire()
    assert permits.acquire(0.0)
    assert permits.free == 0
    assert not permits.acquire(0.0)
    permits.release()
    assert permits.free == 1
    assert permits.acquire(1e300)


def test_permit_is_handed_to_who_has_waited_longest() -> None:
    permits = Permits(1)
    permits.acquire()
    order: list[int] = []
    threads = []

    def wait(number: int) -> None:
        assert permits.acquire(WAIT_S)
        order.append(number)
        permits.release()

    for number in range(5):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        while len(permits._waiting) <= number:  # until it stands in line
            pass
    permits.release()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == [0, 1, 2, 3, 4]
    assert permits.free == 1


def test_permit_that_comes_back_at_once_goes_to_who_waits_and_not_to_who_had_it() -> None:
    permits = Permits(1)
    turns: Counter[int] = Counter()
    ready = threading.Barrier(4)

    def work(number: int) -> None:
        ready.wait(WAIT_S)
        for _ in range(500):
            assert permits.acquire(WAIT_S)
            turns[number] += 1
            if min(turns[n] for n in range(4)) >= 400:
                fair.set()
            permits.release()

    fair = threading.Event()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert fair.is_set()
    assert permits.free == 1


def test_permit_is_not_lost_where_time_runs_out() -> None:
    permits = Permits(1)

    def work() -> None:
        for _ in range(300):
            if permits.acquire(0.0001):
                permits.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert permits.free == 1
    assert not permits._waiting


@pytest.mark.parametrize("timeout_s", [0.0, 0.001])
def test_permit_that_is_waited_for_in_vain_leaves_nobody_in_line(timeout_s: float) -> None:
    permits = Permits(0)
    assert not permits.acquire(timeout_s)
    assert not permits._waiting
