from __future__ import annotations

import os
import threading
from typing import Any

from servegraph.monitoring.batches import Batches
from servegraph.monitoring.records import Origin, Snapshot

ORIGIN = Origin(0, "h", "p/f", 100.0)
WAIT_S = 10.0


def kept(model: str = "m", when_ns: int = 0, **changes: Any) -> Snapshot:
    fields: dict[str, Any] = {"version": "", "model_class": "M", "endpoint_uid": "", "key": None, "labels": None}
    fields.update(op="infer", microsec=1, request=b"{}", response=b"{}", metrics=b"", rows=1, **changes)
    return Snapshot(origin=ORIGIN, model=model, when_ns=when_ns, **fields)


def test_batches_of_a_model_are_handed_on_when_complete() -> None:
    got: list[list[Snapshot]] = []
    batches = Batches(2, got.append, 60.0)
    for number in range(5):
        batches.add(kept("ab"[number % 2], number))
    assert [[k.when_ns for k in batch] for batch in got] == [[0, 2], [1, 3]]
    batches.flush()
    assert [k.when_ns for k in got[2]] == [4]
    batches.flush()
    assert len(got) == 3


def test_batches_never_mix_labels() -> None:
    got: list[list[Snapshot]] = []
    batches = Batches(2, got.append, 60.0)
    batches.add(kept(labels={"a": "1"}))
    batches.add(kept(labels={"a": "2"}))
    assert got == []
    batches.flush()
    assert sorted(len(batch) for batch in got) == [1, 1]


def test_batch_that_stays_incomplete_is_handed_on_by_its_age() -> None:
    got: list[int] = []
    done = threading.Event()

    def emit(batch: list[Snapshot]) -> None:
        got.append(len(batch))
        done.set()

    batches = Batches(100, emit, 0.05)
    for _ in range(2):
        done.clear()
        batches.add(kept())
        assert done.wait(WAIT_S)
    assert sum(got) == 2


def test_batches_of_many_threads_lose_nothing() -> None:
    got: list[list[Snapshot]] = []
    batches = Batches(7, got.append, 60.0)

    def add() -> None:
        for number in range(1000):
            batches.add(kept(when_ns=number))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batches.flush()
    assert sum(map(len, got)) == 4000
    assert {len(batch) for batch in got[:-1]} == {7}


def test_batches_after_a_fork_leave_the_parents_alone() -> None:
    got: list[list[Snapshot]] = []
    batches = Batches(2, got.append, 60.0)
    batches.add(kept(when_ns=1))
    batches._pid = os.getpid() - 1  # as a child process would find it
    batches.add(kept(when_ns=2))
    batches.flush()
    assert [[k.when_ns for k in batch] for batch in got] == [[2]]
