"""How many of a component's methods run at the same time."""

from __future__ import annotations

from servegraph.errors import GraphError
from servegraph.graph.permits import Permits


class Gate:
    """What a component's methods pass through, so that not more of them run at once than it takes; here any number."""

    def __enter__(self) -> None:
        """Go on."""

    def __exit__(self, *exc: object) -> None:
        """Nothing."""

    def is_free(self) -> bool:
        """Whether a call would get through at once."""
        return True


class _Narrow(Gate):
    """Lets some calls through at a time, in the order they came."""

    def __init__(self, places: int) -> None:
        self._places = Permits(places)

    def __enter__(self) -> None:
        self._places.acquire()

    def __exit__(self, *exc: object) -> None:
        self._places.release()

    def is_free(self) -> bool:
        return self._places.free > 0


def gate_of(threads: int) -> Gate:
    """The gate for so many calls; 0 is any number.

    Raises:
        GraphError: it is below 0.
    """
    if threads < 0:
        raise GraphError(f"threads must be 0 (any number) or more, not {threads}")
    return _Narrow(threads) if threads else Gate()
