"""Permits for so many calls at once, in the order in which they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

_FOREVER: Final = -1.0


class Permits:
    """So many permits, each handed over to who has waited longest.

    A semaphore, a lock or a queue gives a permit that comes back to whoever asks next; that is most often the thread
    that gave it back, since the one that waits has yet to get the interpreter's lock. A waiter may then wait for ever.

    Args:
        permits: how many there are.
    """

    __slots__ = ("_free", "_lock", "_waiting")

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Wait for a permit, for ever without a time; whether there is one."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=_FOREVER if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)):
            return True
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
            return True  # it was handed over in the last moment

    def release(self) -> None:
        """Give a permit back."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    @property
    def free(self) -> int:
        """How many permits nobody has."""
        return self._free
