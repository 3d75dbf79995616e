"""The background half of the tap: the queue, its counts, and the thread that empties it into a stream."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from servegraph.errors import StreamError
from servegraph.streams import OutputStream, PushError, Record

logger = logging.getLogger("servegraph.monitoring")

EXIT_FLUSH_S = 3.0  # for all taps of a process together
_NEVER = sys.maxsize
_LONGEST_BACKOFF_S = 30.0
_LOG_EVERY_S = 30.0
_WRITING_SHARE = 0.9  # of the time for closing; the rest is for the thread to end


class RecordSource(Protocol):
    """Something that can make its record later, in the tap's thread."""

    def to_record(self) -> Record | object:
        """The record, or its data alone."""


Puttable = Record | RecordSource | Callable[[], object]


@dataclass(frozen=True, slots=True)
class TapStats:
    """Exact counts since the start of the process: ``accepted == delivered + failed + queued``."""

    accepted: int
    """Records that were taken in."""
    delivered: int
    """Records that the stream has taken."""
    dropped: int
    """Records that were not taken in, because the queue was full or the tap closed; not part of ``accepted``."""
    failed: int
    """Records that could not be built, that the stream refused, or that it did not take in all attempts."""
    queued: int
    """Records that wait or are being pushed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a tap queues, batches and tries again."""

    max_queue: int
    """Records that may wait."""
    batch_size: int | None
    """The most records of one push; ``None`` for as many as suit the stream."""
    flush_interval_s: float
    """The longest time that a record waits for its batch."""
    max_attempts: int
    """Attempts in a row without any progress before a batch counts as failed."""
    backoff_s: float
    """The pause after the first failed attempt; it doubles."""


class Writer:
    """The queue of a tap and the thread that empties it. The thread holds this and never the tap itself."""

    def __init__(self, open_stream: Callable[[], OutputStream], limits: Limits) -> None:
        self._open = open_stream
        self._limits = limits
        self._batch_size = limits.batch_size or OutputStream.records_a_push
        self._batch_at = min(self._batch_size, limits.max_queue)
        self._inherited: OutputStream | None = None
        self.capacity = limits.max_queue
        self._reset()
        _install_hooks()
        _writers.add(self)

    def _reset(self) -> None:
        self.waiting: deque[Puttable] = deque()
        self.drops = itertools.count()  # next() is a single step: exact without a lock
        self.wake_at = 0  # the queue length at which a put calls wake()
        self._drop_reads = 0
        self._drops_told = 0
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stream: OutputStream | None = None
        # No Event: stop() may run inside a destructor that interrupted the thread holding the Event's lock.
        self._stopping = False
        self._stop_signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stop_by = float("inf")
        # Guards the counts and what leaves the queue; held for moments only, and never by a put.
        self._settled = threading.Condition(threading.Lock())
        self._delivered = 0
        self._failed = 0
        self._in_hand = 0
        self._flush_to = 0
        self._reported_at = -_LOG_EVERY_S
        self._unreported = 0

    def after_fork(self) -> None:
        """In a child process: start empty. The thread is not here, the stream and the records are the parent's."""
        self._inherited = self._stream  # kept: a destructor must not touch the parent's connections
        self._reset()

    # The callers' side.

    def wake(self) -> None:
        """Make the writer look at the queue; starts its thread when there is none."""
        # In this order: a writer that overwrites wake_at finds the signal afterwards and sets it again.
        self.wake_at = _NEVER
        self._signals.put(None)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return  # another caller is at it
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="servegraph-tap", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError as exc:  # no more threads, or the interpreter is ending
            self.wake_at = 0  # the next put tries again
            self._report("cannot start the thread that writes records", 0, exc)
        finally:
            self._starting.release()

    def stats(self) -> TapStats:
        """The counts at one moment."""
        with self._settled:
            queued = len(self.waiting) + self._in_hand
            delivered, failed = self._delivered, self._failed
            dropped = next(self.drops) - self._drop_reads
            self._drop_reads += 1
        return TapStats(delivered + failed + queued, delivered, dropped, failed, queued)

    def flush(self, timeout_s: float) -> bool:
        """Whether what is queued now is delivered or failed within the time."""
        with self._settled:
            target = self._done() + self._in_hand + len(self.waiting)
            if self._done() >= target:
                return True
            self._flush_to = max(self._flush_to, target)
        self.wake()
        with self._settled:
            return self._settled.wait_for(lambda: self._done() >= target, timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Take in nothing more, and give up what is not written after the time. Does not wait."""
        self.capacity = -1
        self._stop_by = min(self._stop_by, time.monotonic() + timeout_s * _WRITING_SHARE)
        self._stopping = True
        self._stop_signals.put(None)
        if self._thread is not None or self.waiting:
            self.wake()
        else:
            self.wake_at = _NEVER

    def join(self, timeout_s: float) -> bool:
        """Whether the thread has ended within the time."""
        thread = self._thread
        if thread is None:
            return not self.waiting
        if thread is not threading.current_thread():
            thread.join(max(0.0, timeout_s))
        return not thread.is_alive()

    def _done(self) -> int:
        return self._delivered + self._failed

    # The thread's side.

    def _run(self) -> None:
        try:
            while True:
                self._gather()
                if self.waiting:
                    self._drain()
                elif self._stopping:
                    break
                else:
                    self._idle()
        finally:
            self._settle(failed=self._in_hand)
            self._close_stream()
            if not self._stopping:  # an error that nobody foresaw: the next put starts another thread
                self._thread = None
                self.wake_at = 0

    def _hurried(self) -> bool:
        return self._stopping or self._flush_to > self._done()

    def _gather(self) -> None:
        """Sleep until a batch is there, the flush interval is over or somebody waits for the records."""
        until = time.monotonic() + self._limits.flush_interval_s
        while True:
            self.wake_at = self._batch_at - 1
            left = until - time.monotonic()
            if left <= 0 or len(self.waiting) >= self._batch_at or self._hurried():
                break
            self._sleep(left)
        self.wake_at = _NEVER

    def _idle(self) -> None:
        """Nothing came in for a whole interval: sleep until something does."""
        self.wake_at = 0
        if not self.waiting and not self._hurried():
            self._sleep(None)

    def _sleep(self, seconds: float | None) -> None:
        if _wait_for(self._signals, seconds):
            while not self._signals.empty():
                self._signals.get_nowait()

    def _drain(self) -> None:
        """Push what waits now, and go on for as long as there are whole batches."""
        pushes = -(-len(self.waiting) // self._batch_size)
        while (pushes > 0 and self.waiting) or len(self.waiting) >= self._batch_size:
            pushes -= 1
            self._deliver(self._take())
        self._tell_drops()

    def _tell_drops(self) -> None:
        dropped = self.stats().dropped
        if dropped > self._drops_told:
            self._report("the queue is full, records are dropped", dropped - self._drops_told, None)
            self._drops_told = dropped

    def _most(self) -> int:
        """How many records go into the next push."""
        if self._limits.batch_size is None and self._stream is not None:
            return max(self._batch_size, self._stream.records_a_push)
        return self._batch_size

    def _take(self) -> list[Record]:
        """The next batch, built."""
        with self._settled:
            self._in_hand = min(len(self.waiting), self._most())
            items = [self.waiting.popleft() for _ in range(self._in_hand)]
        records: list[Record] = []
        for item in items:
            if isinstance(item, Record):
                records.append(item)
                continue
            try:
                records.append(_built(item))
            except BaseException as exc:  # noqa: BLE001 - user code, which must not end this thread
                self._report("a record could not be built", 1, exc)  # first: who waits for the counts may read the log
                self._settle(failed=1)
        return records

    def _deliver(self, records: list[Record]) -> None:
        """Push a batch until each of its records is delivered or failed."""
        parts = [records] if records else []
        attempt = 0
        while parts:
            part = parts.pop()
            if attempt >= self._limits.max_attempts or self._out_of_time():
                self._report("records were lost", len(part), None)
                self._settle(failed=len(part))
                continue
            try:
                self._opened().push(part)
            except PushError as exc:
                again = self._sort_out(part, exc)
                stuck = exc.retryable and len(exc.undelivered) == len(part)
            except Exception as exc:  # noqa: BLE001 - whatever a transport does, the thread must live
                self._report("the stream cannot be written", 0, exc)
                again, stuck = [part], True
            else:
                self._settle(delivered=len(part))
                again, stuck = [], False
            parts += again
            attempt = attempt + 1 if stuck else 0
            if stuck and attempt < self._limits.max_attempts:
                self._pause(attempt)

    def _sort_out(self, part: list[Record], error: PushError) -> list[list[Record]]:
        """Count what an incomplete push settled; the parts to push again, the next one last."""
        again = list(error.undelivered)
        lost = len(error.refused)
        parts = [again] if again else []
        if again and not error.retryable:
            # Refused together: look for the one at fault.
            middle = len(again) // 2
            parts = [again[middle:], again[:middle]] if middle else []
            lost += 0 if middle else 1
        kept = sum(map(len, parts))
        self._report("the stream did not take records", lost, error)
        self._settle(delivered=len(part) - kept - lost, failed=lost)
        return parts

    def _out_of_time(self) -> bool:
        return time.monotonic() >= self._stop_by

    def _pause(self, attempt: int) -> None:
        seconds = min(self._limits.backoff_s * 2.0 ** (attempt - 1), _LONGEST_BACKOFF_S)
        if self._stopping:
            time.sleep(max(0.0, min(seconds, self._stop_by - time.monotonic())))
        else:
            _wait_for(self._stop_signals, seconds)

    def _opened(self) -> OutputStream:
        if self._stream is None:
            self._stream = self._open()
        return self._stream

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except Exception as exc:  # noqa: BLE001 - whatever a transport does; there is nobody to tell but the log
                self._report("the stream could not be closed", 0, exc)
        if self._unreported:
            logger.warning("tap: %d records were lost since the last report", self._unreported)
            self._unreported = 0

    def _settle(self, *, delivered: int = 0, failed: int = 0) -> None:
        with self._settled:
            self._delivered += delivered
            self._failed += failed
            self._in_hand -= delivered + failed
            self._settled.notify_all()

    def _report(self, what: str, lost: int, error: BaseException | None) -> None:
        """Log, at most once in a while; what was not logged is counted in the next message."""
        self._unreported += lost
        now = time.monotonic()
        if now - self._reported_at < _LOG_EVERY_S:
            return
        self._reported_at = now
        # A stream's own message is enough, and its credentials are hidden; other errors need their traceback.
        trace = None if isinstance(error, StreamError) else error
        logger.warning("tap: %s (%d lost): %s", what, self._unreported, error, exc_info=trace)
        self._unreported = 0


def _wait_for(signals: queue.SimpleQueue[None], seconds: float | None) -> bool:
    try:
        signals.get(timeout=seconds)
    except queue.Empty:
        return False
    return True


def _built(item: RecordSource | Callable[[], object]) -> Record:
    to_record = getattr(item, "to_record", None)  # isinstance() of a protocol is many times slower
    made: object = item
    if to_record is not None:
        made = to_record()
    elif callable(item):
        made = item()
    return made if isinstance(made, Record) else Record(made)


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


@cache
def _install_hooks() -> None:
    os.register_at_fork(after_in_child=_after_fork_in_child)
    atexit.register(_flush_at_exit)


def _after_fork_in_child() -> None:
    for writer in list(_writers):
        writer.after_fork()


def _flush_at_exit() -> None:
    deadline = time.monotonic() + EXIT_FLUSH_S
    writers = list(_writers)
    for writer in writers:
        writer.stop(EXIT_FLUSH_S)
    for writer in writers:
        writer.join(deadline - time.monotonic())
