"""How many of a component's methods run at the same time."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from servegraph.errors import GraphError


class Gate:
    """What a component's methods pass through, so that not more of them run at once than it takes; here any number."""

    def __enter__(self) -> None:
        """Go on."""

    def __exit__(self, *exc: object) -> None:
        """Nothing."""

    def is_free(self) -> bool:
        """Whether a call would get through at once."""
        return True


class _One(Gate):
    """Lets one call through at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def is_free(self) -> bool:
        return not self._lock.locked()


class _Several(Gate):
    """Lets some calls through at a time."""

    def __init__(self, places: int) -> None:
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(places):
            self._places.put(None)

    def __enter__(self) -> None:
        self._places.get()

    def __exit__(self, *exc: object) -> None:
        self._places.put(None)

    def is_free(self) -> bool:
        return not self._places.empty()


def gate_of(threads: int) -> Gate:
    """The gate for so many calls; 0 is any number.

    Raises:
        GraphError: it is below 0.
    """
    if threads < 0:
        raise GraphError(f"threads must be 0 (any number) or more, not {threads}")
    if threads == 0:
        return Gate()
    return _One() if threads == 1 else _Several(threads)
