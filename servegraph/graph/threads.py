"""Threads for synchronous steps that never keep the interpreter from ending, whatever a step on them still does."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol


class Job(Protocol):
    """Something to do on a thread."""

    def run(self) -> None:
        """Do it; raises nothing."""

    def cancel(self) -> object:
        """It will not be done."""


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
        self._waiting = _Waiting()
        self._end = weakref.finalize(self, self._waiting.jobs.put, None)  # the threads of a pool that nobody has

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function on a thread.

        Raises:
            RuntimeError: the pool is closed.
        """
        call = _FutureCall(function, args)
        self.put(call)
        return call.future

    def put(self, job: Job) -> None:
        """Run a job on a thread; one that nobody waits for costs less without a future.

        Raises:
            RuntimeError: the pool is closed, or it has no thread and none can be started. The job is not run then.
        """
        waiting = self._waiting
        with waiting.lock:
            if self._closed:
                raise RuntimeError("the server is closed: its threads take no more calls")
            waiting.jobs.put(job)  # first: a new thread that found nothing would count as idle
            if waiting.idle:
                waiting.idle -= 1
            elif self._started < self._most:
                self._start_thread()

    def _start_thread(self) -> None:
        name = f"{self._name}_{self._started}"
        try:
            threading.Thread(target=_serve, args=(self._waiting,), name=name, daemon=True).start()
        except RuntimeError:  # the system has no more
            if not self._started:
                self._waiting.jobs.get_nowait()
                raise
        else:
            self._started += 1

    def close(self) -> None:
        """Take no more calls, and cancel those that have not begun; those that run are not waited for."""
        with self._waiting.lock:
            self._closed = True
        while True:
            try:
                job = self._waiting.jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job.cancel()
        self._end()


class _Waiting:
    """What a pool's threads know of it: the jobs, and how many threads wait for one."""

    __slots__ = ("idle", "jobs", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.idle = 0
        """Threads that wait, less the jobs that were put for them."""


class _FutureCall:
    """A call whose result somebody may wait for."""

    __slots__ = ("args", "function", "future")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.future: Future[Any] = Future()
        self.function = function
        self.args = args

    def run(self) -> None:
        future = self.future
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = self.function(*self.args)
        except BaseException as exc:  # noqa: BLE001 - handed to who waits for the call
            future.set_exception(exc)
        else:
            future.set_result(result)

    def cancel(self) -> bool:
        return self.future.cancel()


def _serve(waiting: _Waiting) -> None:
    """The life of one thread; it does not know the pool."""
    jobs = waiting.jobs
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            with waiting.lock:
                waiting.idle += 1
            job = jobs.get()
        if job is None:
            jobs.put(None)  # for the next thread
            return
        job.run()
        del job  # nothing is kept until the next one comes
