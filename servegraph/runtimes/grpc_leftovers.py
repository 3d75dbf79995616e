"""Calls that are over and still in memory: to grpcio they are open, and a connection may have only so many of them.

An exception that a local variable keeps is part of a circle with its frame, and so are the frames that called it,
up to those that know the call. A connection whose calls are all kept that way is refused every further one, and then
nothing happens any more that would have the garbage collector come by itself.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Final

_MOST: Final = 25
"""Calls that may be left over before they are looked for, well below what one connection may have."""
_FAR_TOO_MANY: Final = 500
"""Calls that are looked for at once, however short ago that was done: busy connections leave many of them."""
_PAUSE_S: Final = 0.05


class Leftovers:
    """Knows which calls are in memory, and has the garbage collected when there are more of them than are open."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[object] = weakref.WeakSet()
        self._swept = 0.0
        self._sweeping = threading.Lock()

    def add(self, call: object) -> None:
        """Watch a call."""
        self._alive.add(call)

    def sweep(self, still_open: int) -> None:
        """Collect the garbage if it holds many calls beside those that are still open."""
        left = len(self._alive) - still_open
        if left <= _MOST or not self._sweeping.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            if now - self._swept > _PAUSE_S or left > _FAR_TOO_MANY:
                gc.collect(1)  # all but what has been there for long
                self._swept = now
        finally:
            self._sweeping.release()


def forget_frames(exc: BaseException) -> None:
    """Let an exception that was answered go without the frames it went through, which know its call."""
    chain: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += (link.__cause__, link.__context__)
