"""The tap: what the request path hands its records to. It never waits and never fails.

``put`` appends to a bounded deque; when that is full the record is dropped and counted. One daemon thread takes the
records, makes those that are not made yet, pushes them in batches and tries again when the stream does not take them.
That thread sleeps while nothing comes in, wakes once per flush interval while something does, and early for a full
batch.

No lock is shared between ``put`` and that thread: ``deque`` and ``SimpleQueue`` do their one step each under the
interpreter's own lock, and can be used again from a signal handler or destructor that interrupts them.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from servegraph.errors import SettingsError
from servegraph.monitoring.tapwriter import EXIT_FLUSH_S, Limits, Puttable, RecordSource, TapStats, Writer
from servegraph.streams import OutputStream

__all__ = ["Puttable", "RecordSource", "Tap", "TapStats"]


class Tap:
    """A writer to a stream that costs its caller an append, whatever the stream does.

    A process that ends through ``os._exit`` (as `multiprocessing` children do) must close its taps itself; in
    others what is left is pushed at exit, within three seconds. After a fork the child starts empty, with
    counts of zero, and opens a stream of its own.

    Args:
        open: makes the stream; called in the background, by the first batch.
        max_queue: how many records may wait; threads that put at the same instant may exceed it by one each.
        batch_size: the most records of one push; that many wake the writer early. By default as many as suit the
            stream.
        flush_interval_s: the longest time that a record waits for its batch.
        max_attempts: how often a batch is tried before its records count as failed.
        backoff_s: pause after the first failed attempt; it doubles, up to 30 s.
    """

    def __init__(
        self,
        open: Callable[[], OutputStream],
        *,
        max_queue: int = 10_000,
        batch_size: int | None = None,
        flush_interval_s: float = 1.0,
        max_attempts: int = 5,
        backoff_s: float = 0.2,
    ) -> None:
        for name, value in (("max_queue", max_queue), ("batch_size", batch_size), ("max_attempts", max_attempts)):
            if value is not None and value < 1:
                raise SettingsError(f"a tap's {name} must be at least 1, not {value!r}")
        for name, seconds in (("flush_interval_s", flush_interval_s), ("backoff_s", backoff_s)):
            if not 0 < seconds <= threading.TIMEOUT_MAX:
                raise SettingsError(f"a tap's {name} must be seconds above 0, not {seconds!r}")
        limits = Limits(max_queue, batch_size, flush_interval_s, max_attempts, backoff_s)
        self._writer = writer = Writer(open, limits)
        # A tap that is simply dropped still delivers what it took in, and its thread ends.
        self._finalizer = weakref.finalize(self, writer.stop, EXIT_FLUSH_S)
        self._finalizer.atexit = False

    def put(self, record: Puttable) -> None:
        """Hand over a record, or something that makes it later. Never waits, never raises.

        A callable or `RecordSource` is called once, in the background, where its work takes the interpreter's lock too.
        """
        writer = self._writer
        waiting = writer.waiting
        length = len(waiting)
        if length >= writer.capacity:
            self.drop()
            return
        waiting.append(record)
        if length >= writer.wake_at:
            writer.wake()

    def is_full(self) -> bool:
        """Whether a record that was put now would be dropped."""
        return len(self._writer.waiting) >= self._writer.capacity

    def drop(self) -> None:
        """Count a record as dropped; for callers that do not even make it while the queue is full."""
        next(self._writer.drops)
        if not self._writer.wake_at:  # the writer could not be started before
            self._writer.wake()

    def stats(self) -> TapStats:
        """The counts now."""
        return self._writer.stats()

    def flush(self, timeout_s: float) -> bool:
        """Whether all that was accepted before this call is delivered or failed within the time."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Push what waits, close the stream and end the thread; whether that was done within the time.

        What could not be pushed in time counts as failed. Later records are dropped and counted.
        """
        self._finalizer.detach()
        started = time.monotonic()
        self._writer.stop(timeout_s)
        return self._writer.join(timeout_s - (time.monotonic() - started))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
