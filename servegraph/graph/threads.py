"""Threads for synchronous steps that never keep the interpreter from ending, whatever a step on them still does."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Work = queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]


class ThreadPool:
    """Runs calls on at most so many threads, in the order they came.

    The threads of `concurrent.futures` are waited for when the interpreter ends; a call that was given up and never
    ends would keep it for ever.

    Args:
        threads: how many calls run at once; a thread is started when there is work for it.
        name: the beginning of the threads' names.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._most = threads
        self._name = name
        self._started = 0
        self._closed = False
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._work: _Work = queue.SimpleQueue()
        self._end = weakref.finalize(self, self._work.put, None)  # the threads of a pool that nobody has any more

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function on a thread.

        Raises:
            RuntimeError: the pool is closed.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the server is closed: its threads take no more calls")
            self._work.put((future, function, args))
            if not self._idle.acquire(blocking=False) and self._started < self._most:
                name = f"{self._name}_{self._started}"
                self._started += 1
                threading.Thread(target=_serve, args=(self._work, self._idle), name=name, daemon=True).start()
        return future

    def close(self) -> None:
        """Take no more calls, and cancel those that have not begun; those that run are not waited for."""
        with self._lock:
            self._closed = True
        while True:
            try:
                item = self._work.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[0].cancel()
        self._end()


def _serve(work: _Work, idle: threading.Semaphore) -> None:
    """The life of one thread; it knows the queue and not the pool."""
    while True:
        try:
            item = work.get_nowait()
        except queue.Empty:
            idle.release()
            item = work.get()
        if item is None:
            work.put(None)  # for the next thread
            return
        future, function, args = item
        if future.set_running_or_notify_cancel():
            try:
                result = function(*args)
            except BaseException as exc:  # noqa: BLE001 - handed to who waits for the call
                future.set_exception(exc)
            else:
                future.set_result(result)
                del result
        del item, future, function, args  # nothing is kept until the next call comes
