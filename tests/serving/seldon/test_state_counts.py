"""Counts shared by many processes stay exact, whatever happens to the processes, the connection and the store."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from servegraph.serving.seldon.state_counts import STALE_AFTER_S, Counts, SharedCounts
from servegraph.serving.seldon.state_store import Change, MemoryStore, StateStoreError

KEY = "k"


class FlakyStore(MemoryStore):
    """Loses the next request, or the answer to it, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lose = ""

    def _update(self, key: str, change: Change) -> dict[str, bytes]:
        lose, self.lose = self.lose, ""
        if lose == "request":
            raise StateStoreError("the request was lost")
        table = super()._update(key, change)
        if lose == "answer":
            raise StateStoreError("the answer was lost")
        return table

    def snapshot(self) -> dict[str, bytes]:
        return self.read_table(KEY)

    def go_back_to(self, table: dict[str, bytes]) -> None:
        self._tables[KEY] = dict(table)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """One worker: what it counted, and what it was told of the others."""

    def __init__(self, store: FlakyStore, clock: Callable[[], float]) -> None:
        self.shared = SharedCounts(store, KEY, clock)
        self.own: Counts = {}
        self.others: Counts = {}

    def count(self, name: str = "a", n: float = 1) -> None:
        self.own[name] = self.own.get(name, 0) + n

    def sync(self, *, leave: bool = False) -> None:
        self.others = self.shared.sync(dict(self.own), leave=leave)

    @property
    def total(self) -> Counts:
        names = self.own.keys() | self.others.keys()
        return {name: self.own.get(name, 0) + self.others.get(name, 0) for name in names}


class Processes(RuleBasedStateMachine):
    """Processes start, count, lose answers, leave, are silent for days, come back: no count is lost or doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.clock = FlakyStore(), Clock()
        self.running = [Process(self.store, self.clock)]
        self.counted: Counts = {}

    @rule()
    def start(self) -> None:
        self.running.append(Process(self.store, self.clock))

    @rule(which=st.integers(0, 9), name=st.sampled_from("ab"), n=st.integers(1, 3))
    def count(self, which: int, name: str, n: int) -> None:
        self.running[which % len(self.running)].count(name, n)
        self.counted[name] = self.counted.get(name, 0) + n

    @rule(which=st.integers(0, 9))
    def sync(self, which: int) -> None:
        self.running[which % len(self.running)].sync()

    @rule(which=st.integers(0, 9), lose=st.sampled_from(["request", "answer"]), leave=st.booleans())
    def lose(self, which: int, lose: str, leave: bool) -> None:
        self.store.lose = lose
        with pytest.raises(StateStoreError):
            self.running[which % len(self.running)].sync(leave=leave)

    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        if len(self.running) > 1:
            self.running.pop(which % len(self.running)).sync(leave=True)

    @rule(which=st.integers(0, 9))
    def leave_and_come_back(self, which: int) -> None:
        self.running[which % len(self.running)].sync(leave=True)

    @rule()
    def two_days_pass(self) -> None:
        self.clock.now += 2 * STALE_AFTER_S

    @rule(to=st.sampled_from(["nothing", "something older"]))
    def store_forgets(self, to: str) -> None:
        older = self.store.snapshot()
        for process in self.running:
            process.sync()
        self.running[0].sync()
        self.store.go_back_to(older if to == "something older" else {})
        for process in self.running:
            process.sync()

    @rule()
    def what_all_hold_is_what_was_counted(self) -> None:
        for process in self.running:
            process.sync()
        for process in self.running:
            process.sync()
            assert process.total == self.counted
        assert SharedCounts(self.store, KEY).total() == self.counted

    def teardown(self) -> None:
        self.what_all_hold_is_what_was_counted()


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


def test_counts_of_two_processes_are_shared_as_soon_as_both_synced(store: FlakyStore) -> None:
    one, other = Process(store, Clock()), Process(store, Clock())
    one.count(n=3)
    other.count(n=4)
    one.sync()
    other.sync()
    one.sync()
    assert one.total == other.total == {"a": 7}


def test_sync_with_nothing_new_writes_nothing(store: FlakyStore) -> None:
    process = Process(store, Clock())
    process.sync()
    assert store.snapshot() == {}
    process.count()
    process.sync()
    before = store.snapshot()
    process.sync()
    assert store.snapshot() == before


def test_slots_are_as_many_as_processes_at_one_time(store: FlakyStore) -> None:
    for _ in range(20):
        process = Process(store, Clock())
        process.count()
        process.sync()
        process.count()
        process.sync(leave=True)
    assert len(store.snapshot()) == 1
    assert SharedCounts(store, KEY).total() == {"a": 40}


def test_slot_of_a_killed_process_is_used_again_after_a_day(store: FlakyStore) -> None:
    clock = Clock()
    for _ in range(5):
        killed = Process(store, clock)
        killed.count()
        killed.sync()
        clock.now += STALE_AFTER_S + 1
    assert len(store.snapshot()) == 1
    assert SharedCounts(store, KEY).total() == {"a": 5}


def test_silent_process_that_comes_back_brings_what_it_had_not_written(store: FlakyStore) -> None:
    clock = Clock()
    silent = Process(store, clock)
    silent.count(n=2)
    silent.sync()
    silent.count(n=5)
    for _ in range(3):
        clock.now += STALE_AFTER_S + 1
        other = Process(store, clock)
        other.count(n=10)
        other.sync()
    silent.sync()
    assert silent.total == SharedCounts(store, KEY).total() == {"a": 37}


def test_store_that_comes_back_empty_is_filled_by_who_is_still_there(store: FlakyStore) -> None:
    gone, here = Process(store, Clock()), Process(store, Clock())
    gone.count(n=6)
    gone.sync()
    here.sync()
    store.go_back_to({})
    here.sync()
    assert SharedCounts(store, KEY).total() == {"a": 6}


def test_two_who_took_one_slot_because_the_store_went_back_both_keep_their_counts(store: FlakyStore) -> None:
    clock = Clock()
    first = Process(store, clock)
    first.count(n=1)
    first.sync(leave=True)
    free = store.snapshot()
    cut_off = Process(store, clock)
    cut_off.count(n=10)
    cut_off.sync()
    store.go_back_to(free)
    late = Process(store, clock)
    late.count(n=100)
    late.sync()
    cut_off.sync()
    late.sync()
    assert cut_off.total == late.total == {"a": 111}


def test_field_that_is_no_slot_is_left_alone_and_told_once(store: FlakyStore, caplog: pytest.LogCaptureFixture) -> None:
    strange = {"x": b"?", "y": b'{"owner": 1}', "z": b"[]"}
    store.go_back_to(strange)
    process = Process(store, Clock())
    process.count()
    with caplog.at_level(logging.WARNING):
        process.sync()
        process.sync()
    assert {name: store.snapshot()[name] for name in strange} == strange
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == ["x", "y", "z"]
    assert process.total == {"a": 1}
