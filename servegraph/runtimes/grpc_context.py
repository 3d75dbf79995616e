"""What a gRPC method is told of its call, without a type of grpcio in it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

from servegraph.errors import DeadlineError, ServegraphError
from servegraph.graph.events import new_id

T = TypeVar("T")

REQUEST_ID: Final = "request-id"
_ID_KEYS: Final = ("x-request-id", REQUEST_ID)
_KEY: Final = re.compile(r"[a-z0-9_.-]+")
_LONGEST_ID: Final = 128
_FOREVER_S: Final = 10**8
"""grpcio gives times beyond this for calls without a deadline."""


class ServicerContext(Protocol):
    """The part of grpcio's servicer context that is used."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What the caller sent along."""

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""

    def peer(self) -> str:
        """Where the call came from."""

    def is_active(self) -> bool:
        """Whether the call is not over."""

    def cancel(self) -> None:
        """End the call."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call something at the end of the call; whether it is not over."""

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set what is sent behind the answer."""

    def abort(self, code: Any, details: str) -> None:
        """Answer with a status; raises."""


class GrpcContext:
    """One gRPC call, for the method that answers it.

    Args:
        method: full name of the method.
        servicer: grpcio's context of the call.
        loop: the event loop of the worker.
        most_s: how long the call may take at most, whatever its caller allows.
    """

    def __init__(
        self, method: str, servicer: ServicerContext, loop: asyncio.AbstractEventLoop, most_s: float | None = None
    ) -> None:
        self.method = method
        """Full name of the method: ``/package.Service/Method``."""
        self.metadata: dict[str, str | bytes] = dict(servicer.invocation_metadata() or ())
        """What the caller sent along, by lower-case key; ``-bin`` keys have bytes. The last of repeated ones wins."""
        self.request_id: str = self._asked_id() or new_id()
        """The ``x-request-id`` of the caller, or a new one; the answer has it as ``request-id``."""
        left = servicer.time_remaining()
        if left is None or (most_s is not None and most_s < left):
            left = most_s
        self.deadline: float | None = None if left is None or left >= _FOREVER_S else time.monotonic() + left
        """When the call's time is up, by `time.monotonic`; ``None`` for never."""
        self._servicer = servicer
        self._loop = loop
        self._trailing: dict[str, str | bytes] = {REQUEST_ID: self.request_id}

    def _asked_id(self) -> str | None:
        for key in _ID_KEYS:
            value = self.metadata.get(key)
            if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isascii() and value.isprintable():
                return value
        return None

    @property
    def peer(self) -> str:
        """Where the call came from: ``ipv4:127.0.0.1:40000``."""
        return self._servicer.peer()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, never below 0; ``None`` without one."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def is_active(self) -> bool:
        """Whether the caller still waits for the answer."""
        return self._servicer.is_active()

    def check(self) -> None:
        """Raise `DeadlineError` when nobody waits for the answer any more."""
        if self.time_remaining() == 0.0 or not self.is_active():
            raise DeadlineError(f"{self.method} had no time left when its turn came")

    def set_trailing(self, key: str, value: str | bytes) -> None:
        """Send something along behind the answer.

        Args:
            key: a name of lower-case letters, digits, ``-``, ``_`` and ``.``; that of bytes ends in ``-bin``.
            value: printable ASCII text, or bytes.

        Raises:
            ServegraphError: gRPC cannot carry it.
        """
        is_bytes = isinstance(value, bytes)
        if not _KEY.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin") is not is_bytes:
            raise ServegraphError(f"{key!r} cannot be the key of {type(value).__name__} in trailing metadata")
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise ServegraphError(f"the trailing metadata {key!r} is text with other characters than printable ASCII")
        self._trailing[key] = value

    def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
        """All that is sent along behind the answer."""
        return tuple(self._trailing.items())

    def on_end(self, callback: Callable[[], object]) -> bool:
        """Call something once the call is over, also because its caller is gone; whether it is not over yet."""
        return self._servicer.add_callback(lambda: (callback(), None)[1])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs on the worker's event loop; it is cancelled when the caller is gone.

        Raises:
            concurrent.futures.CancelledError: the caller is gone.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if not self.on_end(future.cancel):
            future.cancel()
        return future.result()
