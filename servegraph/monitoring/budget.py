"""A bound on the memory that waiting records hold, kept without a lock that anybody waits for."""

from __future__ import annotations

import itertools
import threading
from collections import deque


class Charge:
    """A share of a budget; it is given back when the last reference to this object goes."""

    __slots__ = ("_ledger", "_size")

    def __init__(self, ledger: deque[int], size: int) -> None:
        self._ledger = ledger
        self._size = size

    def __del__(self) -> None:
        self._ledger.append(-self._size)


class Budget:
    """So many bytes to share out.

    Charges and returns are entries of a ledger, which takes them in single steps from any thread, destructors
    included; who finds it free adds them up. Threads that charge at the same instant may exceed the limit by one each.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._ledger: deque[int] = deque()
        self._adding = threading.Lock()
        self._held = 0
        self._refusals = itertools.count()
        self._looks = 0

    def charge(self, size: int) -> Charge | None:
        """A share of this many bytes, or ``None`` when there is not as much left. Never waits."""
        self._add_up()
        if self._held + size > self.limit:
            next(self._refusals)
            return None
        self._ledger.append(size)
        return Charge(self._ledger, size)

    @property
    def held(self) -> int:
        """Bytes that are shared out."""
        self._add_up()
        return self._held

    @property
    def refused(self) -> int:
        """How many charges were refused."""
        with self._adding:
            self._looks += 1
            return next(self._refusals) - self._looks + 1

    def _add_up(self) -> None:
        ledger = self._ledger
        if ledger and self._adding.acquire(blocking=False):
            try:
                while ledger:
                    self._held += ledger.popleft()
            finally:
                self._adding.release()
