from __future__ import annotations

import os
import threading

from servegraph.monitoring.batches import Batches
from servegraph.monitoring.records import Row

WAIT_S = 10.0


def row(start: bytes = b"{", number: int = 0, key: str | None = None) -> Row:
    return Row(start, key, b"%d" % number, 1)


def test_batches_of_a_model_are_handed_on_when_complete() -> None:
    got: list[list[Row]] = []
    batches = Batches(2, got.append, 60.0)
    for number in range(5):
        batches.add(row(b"ab"[number % 2 : number % 2 + 1], number))
    assert [[r.text for r in batch] for batch in got] == [[b"0", b"2"], [b"1", b"3"]]
    batches.flush()
    assert [r.text for r in got[2]] == [b"4"]
    batches.flush()
    assert len(got) == 3


def test_batches_never_mix_starts_or_keys() -> None:
    got: list[list[Row]] = []
    batches = Batches(2, got.append, 60.0)
    batches.add(row(b'{"labels":{"a":"1"}'))
    batches.add(row(b'{"labels":{"a":"2"}'))
    batches.add(row(b'{"labels":{"a":"2"}', key="k"))
    assert got == []
    batches.flush()
    assert sorted(len(batch) for batch in got) == [1, 1, 1]


def test_batch_that_stays_incomplete_is_handed_on_by_its_age() -> None:
    got: list[int] = []
    done = threading.Event()

    def emit(batch: list[Row]) -> None:
        got.append(len(batch))
        done.set()

    batches = Batches(100, emit, 0.05)
    for _ in range(2):
        done.clear()
        batches.add(row())
        assert done.wait(WAIT_S)
    assert sum(got) == 2


def test_batches_of_many_threads_lose_nothing() -> None:
    got: list[list[Row]] = []
    batches = Batches(7, got.append, 60.0)

    def add() -> None:
        for number in range(1000):
            batches.add(row(number=number))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batches.flush()
    assert sum(map(len, got)) == 4000
    assert {len(batch) for batch in got[:-1]} == {7}


def test_batches_after_a_fork_leave_the_parents_alone() -> None:
    got: list[list[Row]] = []
    batches = Batches(2, got.append, 60.0)
    batches.add(row(number=1))
    batches._pid = os.getpid() - 1  # as a child process would find it
    batches.add(row(number=2))
    batches.flush()
    assert [[r.text for r in batch] for batch in got] == [[b"2"]]
