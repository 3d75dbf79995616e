from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
import timeit
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from servegraph import jsoncodec
from servegraph.errors import SettingsError, StreamError
from servegraph.monitoring import Tap, TapStats
from servegraph.streams import MemoryStream, OutputStream, PushError, Record, open_stream
from servegraph.streams.base import Encoded

WAIT_S = 10.0


class Gate(OutputStream):
    """A stream whose pushes wait until it is opened, and that fails as often as it is told."""

    def __init__(self, *, opened: bool = True) -> None:
        super().__init__("gate://")
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[object]] = []
        self.failures = 0
        self.error: Callable[[list[Record]], Exception] = lambda batch: StreamError("gate: away")
        if opened:
            self.open.set()

    @property
    def data(self) -> list[object]:
        return [item for batch in self.batches for item in batch]

    def _write(self, batch: Sequence[Encoded]) -> None:
        self.entered.set()
        assert self.open.wait(WAIT_S)
        if self.failures:
            self.failures -= 1
            raise self.error([record for record, _ in batch])
        self.batches.append([record.data for record, _ in batch])


def assert_balanced(stats: TapStats) -> None:
    assert stats.accepted == stats.delivered + stats.failed + stats.queued


@pytest.fixture
def gate() -> Iterator[Gate]:
    stream = Gate()
    yield stream
    stream.open.set()


def test_put_records_arrive_in_order_and_are_counted(gate: Gate) -> None:
    with Tap(lambda: gate, batch_size=10) as tap:
        for number in range(95):
            tap.put(Record(number))
        assert tap.flush(WAIT_S)
        assert gate.data == list(range(95))
        assert max(map(len, gate.batches)) <= 10
        assert tap.stats() == TapStats(accepted=95, delivered=95, dropped=0, failed=0, queued=0)


def test_put_builders_run_in_the_background(gate: Gate) -> None:
    threads: list[str] = []

    class Later:
        def to_record(self) -> Record:
            threads.append(threading.current_thread().name)
            return Record("source", key="k")

    def build() -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {"made": 1}

    with Tap(lambda: gate) as tap:
        tap.put(Later())
        tap.put(build)
        assert tap.flush(WAIT_S)
    assert gate.data == ["source", {"made": 1}]
    assert set(threads) == {"servegraph-tap"}


def test_put_when_the_queue_is_full_drops_and_counts() -> None:
    gate = Gate(opened=False)
    tap = Tap(lambda: gate, max_queue=20, batch_size=5, flush_interval_s=60)
    for number in range(5):
        tap.put(Record(number))
    assert gate.entered.wait(WAIT_S)  # five are in hand, the queue is empty
    assert not tap.is_full()
    for number in range(5, 39):
        tap.put(Record(number))
    assert tap.is_full()
    tap.drop()
    stats = tap.stats()
    assert (stats.accepted, stats.dropped, stats.queued) == (25, 15, 25)
    assert not tap.flush(0.01)
    gate.open.set()
    assert tap.close(WAIT_S)
    assert gate.data == list(range(25))
    assert tap.stats() == TapStats(accepted=25, delivered=25, dropped=15, failed=0, queued=0)


def test_push_holds_as_many_records_as_suit_the_stream_where_many_wait() -> None:
    class Wide(Gate):
        records_a_push = 2000

    gate = Wide(opened=False)
    tap = Tap(lambda: gate, max_queue=10_000, flush_interval_s=60)
    for number in range(500):
        tap.put(Record(number))
    assert gate.entered.wait(WAIT_S)
    for number in range(500, 3500):
        tap.put(Record(number))
    gate.open.set()
    assert tap.close(WAIT_S)
    assert [len(batch) for batch in gate.batches] == [500, 2000, 1000]
    assert gate.data == list(range(3500))


def test_put_from_many_threads_keeps_exact_counts() -> None:
    gate = Gate()
    tap = Tap(lambda: gate, max_queue=300, batch_size=50, flush_interval_s=0.01)
    each, workers = 5_000, 4
    start = threading.Barrier(workers)

    def work() -> None:
        start.wait(WAIT_S)
        for _ in range(each):
            tap.put(Record(1))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert_balanced(tap.stats())
        threads[0].join(0.002)
    for thread in threads:
        thread.join()
    assert tap.flush(WAIT_S)
    stats = tap.stats()
    assert_balanced(stats)
    assert stats.accepted + stats.dropped == each * workers
    assert stats.delivered == len(gate.data) == stats.accepted
    assert tap.close(WAIT_S)


def test_put_costs_well_below_a_microsecond_with_a_dead_stream() -> None:
    def away() -> OutputStream:
        raise StreamError("nobody is there")

    tap = Tap(away, max_queue=20_000, backoff_s=5)
    record = Record({"a": 1})
    best_accepted = min(timeit.repeat(lambda: tap.put(record), number=2_000, repeat=8)) / 2_000
    best_dropped = min(timeit.repeat(lambda: tap.put(record), number=5_000, repeat=8)) / 5_000
    assert best_accepted < 2e-6, f"{best_accepted * 1e9:.0f} ns"  # about 0.15 us on an idle machine
    assert best_dropped < 2e-6, f"{best_dropped * 1e9:.0f} ns"
    assert tap.stats().dropped > 0
    tap.close(0)


def test_put_while_the_stream_hangs_never_waits() -> None:
    gate = Gate(opened=False)
    tap = Tap(lambda: gate, max_queue=1_000, batch_size=1)
    tap.put(Record(0))
    assert gate.entered.wait(WAIT_S)
    started = time.perf_counter()
    for number in range(2_000):
        tap.put(Record(number))
    assert time.perf_counter() - started < 10
    assert tap.stats().dropped >= 1_000
    gate.open.set()
    assert tap.close(WAIT_S)


def test_builder_that_raises_is_failed_and_the_others_arrive(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    def bad() -> object:
        raise ZeroDivisionError("no such thing")

    def leave() -> object:
        raise SystemExit

    with Tap(lambda: gate) as tap:
        for item in (Record(1), bad, leave, Record(2)):
            tap.put(item)
        assert tap.flush(WAIT_S)
        assert gate.data == [1, 2]
        assert tap.stats() == TapStats(accepted=4, delivered=2, dropped=0, failed=2, queued=0)
    assert "could not be built" in caplog.text


def test_stream_that_fails_for_a_while_gets_every_record(gate: Gate) -> None:
    gate.failures = 3
    with Tap(lambda: gate, backoff_s=0.001) as tap:
        for number in range(10):
            tap.put(Record(number))
        assert tap.flush(WAIT_S)
        assert gate.data == list(range(10))
        assert tap.stats().delivered == 10


def test_stream_that_cannot_be_opened_is_tried_again(gate: Gate) -> None:
    attempts: list[int] = []

    def opening() -> OutputStream:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("not yet")
        return gate

    with Tap(opening, backoff_s=0.001) as tap:
        tap.put(Record(1))
        assert tap.flush(WAIT_S)
    assert gate.data == [1]
    assert len(attempts) == 3


def test_dead_stream_fails_records_after_all_attempts_and_logs_once(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.failures = 10**6
    with caplog.at_level(logging.WARNING), Tap(lambda: gate, batch_size=10, backoff_s=0.001, max_attempts=3) as tap:
        for number in range(30):
            tap.put(Record(number))
        assert tap.flush(WAIT_S)
        assert tap.stats() == TapStats(accepted=30, delivered=0, dropped=0, failed=30, queued=0)
        assert len(caplog.records) == 1
        assert gate.failures == 10**6 - 9
        gate.failures = 0
        tap.put(Record("back"))
        assert tap.flush(WAIT_S)
        assert gate.data == ["back"]
    assert [r.getMessage() for r in caplog.records][1:] == ["tap: 30 records were lost since the last report"]


def test_partial_push_only_pushes_the_rest_again(gate: Gate) -> None:
    def half(batch: list[Record]) -> PushError:
        gate.batches.append([r.data for r in batch[:2]])
        return PushError("half", undelivered=batch[2:-1], refused=batch[-1:])

    gate.error, gate.failures = half, 1
    with Tap(lambda: gate, backoff_s=60) as tap:
        for number in range(6):
            tap.put(Record(number))
        assert tap.flush(WAIT_S)
        assert gate.data == [0, 1, 2, 3, 4]
        assert tap.stats() == TapStats(accepted=6, delivered=5, dropped=0, failed=1, queued=0)


def test_batch_refused_as_a_whole_loses_only_the_record_at_fault() -> None:
    class Picky(Gate):
        def _write(self, batch: Sequence[Encoded]) -> None:
            records = [record for record, _ in batch]
            if any(record.data == "poison" for record in records):
                raise PushError("poison", undelivered=records, retryable=False)
            super()._write(batch)

    gate = Picky()
    items = [*range(37), "poison", *range(37, 60)]
    with Tap(lambda: gate, backoff_s=60) as tap:
        for item in items:
            tap.put(Record(item))
        assert tap.flush(WAIT_S)
        assert gate.data == list(range(60))
        assert tap.stats() == TapStats(accepted=61, delivered=60, dropped=0, failed=1, queued=0)


def test_record_without_json_is_failed_alone() -> None:
    stream = MemoryStream("dummy://")
    with Tap(lambda: stream, backoff_s=60) as tap:
        for item in (1, object(), 2):
            tap.put(Record(item))
        assert tap.flush(WAIT_S)
        assert stream.event_list == [1, 2]
        assert tap.stats().failed == 1


def test_flush_without_records_is_true_and_starts_no_thread() -> None:
    before = threading.active_count()
    tap = Tap(lambda: MemoryStream("dummy://"))
    assert tap.flush(0)
    assert tap.close(0)
    assert threading.active_count() == before
    tap.put(Record(1))
    assert tap.stats() == TapStats(accepted=0, delivered=0, dropped=1, failed=0, queued=0)
    assert threading.active_count() == before


def test_flush_interval_delivers_a_small_batch_without_being_asked(gate: Gate) -> None:
    gate.entered.clear()
    with Tap(lambda: gate, flush_interval_s=0.02) as tap:
        tap.put(Record(1))
        assert gate.entered.wait(WAIT_S)
        assert tap.flush(WAIT_S)
        gate.entered.clear()
        tap.put(Record(2))
        assert gate.entered.wait(WAIT_S)


def test_full_batch_is_pushed_before_the_interval(gate: Gate) -> None:
    with Tap(lambda: gate, flush_interval_s=3600, batch_size=3) as tap:
        for number in range(3):
            tap.put(Record(number))
        assert gate.entered.wait(WAIT_S)


def test_close_pushes_what_waits_and_closes_the_stream(gate: Gate) -> None:
    tap = Tap(lambda: gate, flush_interval_s=3600)
    tap.put(Record(1))
    assert tap.close(WAIT_S)
    assert tap.close(WAIT_S)
    assert gate.data == [1]
    with pytest.raises(StreamError, match="closed"):
        gate.push([Record(2)])
    tap.put(Record(3))
    assert tap.stats() == TapStats(accepted=1, delivered=1, dropped=1, failed=0, queued=0)


def test_close_with_a_dead_stream_ends_in_time_and_counts_failed(gate: Gate) -> None:
    gate.failures = 10**6
    tap = Tap(lambda: gate, batch_size=5, backoff_s=0.05, max_attempts=10**6)
    for number in range(12):
        tap.put(Record(number))
    started = time.monotonic()
    assert tap.close(0.3)
    assert time.monotonic() - started < 10
    assert tap.stats() == TapStats(accepted=12, delivered=0, dropped=0, failed=12, queued=0)


def test_close_with_a_hanging_stream_gives_up_in_time() -> None:
    gate = Gate(opened=False)
    tap = Tap(lambda: gate, batch_size=1)
    tap.put(Record(1))
    assert gate.entered.wait(WAIT_S)
    assert not tap.close(0.05)
    assert_balanced(tap.stats())
    gate.open.set()
    assert tap.close(WAIT_S)


def test_tap_that_is_dropped_still_delivers_and_its_thread_ends(gate: Gate) -> None:
    tap = Tap(lambda: gate, flush_interval_s=3600)
    tap.put(Record(1))
    thread = tap._writer._thread
    assert thread is not None
    gone = weakref.ref(tap)
    del tap
    gc.collect()
    assert gone() is None
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert gate.data == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_queue": 0}, "max_queue must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_attempts": -1}, "max_attempts must be at least 1"),
        ({"flush_interval_s": 0}, "flush_interval_s must be seconds above 0"),
        ({"backoff_s": float("nan")}, "backoff_s must be seconds above 0"),
    ],
)
def test_options_out_of_range_are_told(options: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Tap(lambda: MemoryStream("dummy://"), **options)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_child_writes_with_a_thread_of_its_own(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/tap.jsonl"
    tap = Tap(lambda: open_stream(uri), flush_interval_s=3600)
    tap.put(Record("parent before"))
    assert tap.flush(WAIT_S)
    tap.put(Record("parent waiting"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tap.put(Record("child"))
            fine = tap.flush(WAIT_S) and tap.stats() == TapStats(1, 1, 0, 0, 0)
            code = 0 if tap.close(WAIT_S) and fine else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert tap.close(WAIT_S)
    lines = (tmp_path / "tap.jsonl").read_bytes().splitlines()
    assert sorted(map(str, map(jsoncodec.loads, lines))) == ["child", "parent before", "parent waiting"]


_EXITING = """
import sys
from servegraph.monitoring import Tap
from servegraph.streams import Record, open_stream

def dead():
    raise OSError("away")

tap = Tap(lambda: open_stream(sys.argv[1]), flush_interval_s=3600)
lost = Tap(dead, flush_interval_s=3600, backoff_s=0.1, max_attempts=10**6)
for number in range(1200):
    tap.put(Record(number))
    lost.put(Record(number))
"""


@pytest.mark.slow
def test_exit_of_the_interpreter_flushes_within_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "exit.jsonl"
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", _EXITING, f"file://{path}"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert time.monotonic() - started < 15
    assert [jsoncodec.loads(line) for line in path.read_bytes().splitlines()] == list(range(1200))
    assert "1200 records were lost" in run.stderr or "(1200 lost)" in run.stderr
