"""The memory of a worker: what the garbage collector looks at, and what the C library keeps of what is free again."""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from resource import getpagesize
from typing import Final

from servegraph.settings import environment

logger = logging.getLogger("servegraph.server")

_ARENA_MAX: Final = -8
"""``M_ARENA_MAX`` of glibc's ``mallopt``."""
_ARENAS: Final = 2
_OWN_WAYS: Final = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
_WORTHWHILE: Final = 16 * 1024**2
_IDLE_SHARE: Final = 0.05
_STATM: Final = Path("/proc/self/statm")


def settle_garbage() -> None:
    """Keep what is loaded by now out of the garbage collector's rounds, and let it look less often.

    Models and libraries are some hundred thousand objects that stay; going through them again and again was a tenth
    of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def limit_arenas(variables: Mapping[str, str] | None = None) -> bool:
    """Have all threads share two of glibc's arenas, unless its own variables say something else; whether they do now.

    Each thread that serves requests would get one of its own, and each keeps the pages of the largest message that it
    has ever seen. To be called before there are threads.

    Args:
        variables: the environment; by default that of the process.
    """
    if any(name in (environment() if variables is None else variables) for name in _OWN_WAYS):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and set_option(_ARENA_MAX, _ARENAS) == 1


class Trimmer:
    """Gives what is free of a process's memory back to the system when it is idle after it has grown.

    Args:
        resident: tells the memory of the process in bytes; ``None`` when that cannot be known.
        trim: gives memory back; runs on a thread.
        used: tells the processor time of the process in seconds.
        threads: where to run it; by default a thread of its own.
    """

    def __init__(
        self,
        resident: Callable[[], int | None] | None = None,
        trim: Callable[[], object] | None = None,
        used: Callable[[], float] = time.process_time,
        threads: Executor | None = None,
    ) -> None:
        self._resident = resident or resident_bytes
        self._trim = trim or getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._threads = threads or ThreadPoolExecutor(1, "servegraph-trim")
        self._used = used
        self._settled: int | None = None
        self._last = (time.monotonic(), used())
        self._work: Future[None] | None = None

    def look(self, in_flight: int) -> None:
        """Have memory given back if the process has done little since the last call; to be called once a second.

        Args:
            in_flight: how many requests are being worked on.
        """
        (then, before), now = self._last, time.monotonic()
        self._last = now, self._used()
        idle = in_flight == 0 and self._last[1] - before < _IDLE_SHARE * (now - then)
        if not idle or self._trim is None or (self._work is not None and not self._work.done()):
            return
        size = self._resident()
        if size is None:
            return
        if self._settled is None or size < self._settled:
            self._settled = size
        if size - self._settled >= _WORTHWHILE:
            self._work = self._threads.submit(self._give_back)

    def _give_back(self) -> None:
        assert self._trim is not None
        before = self._resident()
        self._trim()
        # What is left is in use: it is not looked at again before it has grown further.
        self._settled = self._resident()
        logger.debug("gave memory back: %s bytes before, %s after", before, self._settled)


def resident_bytes() -> int | None:
    """The memory of this process that is in RAM; ``None`` where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * getpagesize()
    except (OSError, ValueError, IndexError):
        return None
