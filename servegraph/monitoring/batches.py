"""Collects the predictions of a model until there are as many as one record shall hold."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from functools import cache

from servegraph.monitoring.records import Row

Emit = Callable[[list[Row]], None]


class Batches:
    """Rows by model and labels, handed on in lists of ``size``; of fewer when they get too old.

    The lock is held for as long as it takes to append to a list. At the interpreter's exit all are handed on; for
    that, what ``emit`` hands them to must have registered its own exit before.

    Args:
        size: how many make a batch.
        emit: takes each batch; must not wait.
        max_age_s: seconds after which an incomplete batch is handed on.
    """

    def __init__(self, size: int, emit: Emit, max_age_s: float) -> None:
        self._size = size
        self._emit = emit
        self._max_age_s = max_age_s
        self._reset()
        _install_exit()
        _living.add(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: dict[tuple[bytes, str | None], list[Row]] = {}
        self._timer: threading.Timer | None = None

    def add(self, row: Row) -> None:
        """Take one in, and hand on the batch that it completes."""
        if self._pid != os.getpid():  # after a fork the rows are the parent's, and its threads are not here
            self._reset()
        kind = (row.start, row.key)
        start = None
        with self._lock:
            batch = self._open.setdefault(kind, [])
            batch.append(row)
            complete = len(batch) >= self._size
            if complete:
                del self._open[kind]
            elif self._timer is None:
                self._timer = start = threading.Timer(self._max_age_s, self.flush)
                start.daemon = True
        if start is not None:
            start.start()
        if complete:
            self._emit(batch)

    def flush(self) -> None:
        """Hand on the incomplete batches."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            timer, self._timer = self._timer, None
            batches, self._open = self._open, {}
        if timer is not None and timer is not threading.current_thread():
            timer.cancel()
        for batch in batches.values():
            self._emit(batch)


_living: weakref.WeakSet[Batches] = weakref.WeakSet()


@cache
def _install_exit() -> None:
    atexit.register(_flush_at_exit)


def _flush_at_exit() -> None:
    for batches in list(_living):
        batches.flush()
