"""What every output stream is: records in, in order, by one blocking call that tells what was not taken.

The transports stand beside this module, one each; which of them is behind an address is told by the registry.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import ClassVar, Self

from servegraph import jsoncodec
from servegraph.errors import StreamError
from servegraph.streams.uri import redact

DEFAULT_FLUSH_S = 10.0


@dataclass(slots=True)
class Record:
    """One entry of a stream. Nobody changes it; it is not frozen because that makes each one several times as slow."""

    data: object
    """What is sent: bytes as they are, anything else (a ``str`` too) as JSON."""
    key: str | None = None
    """The partition key: records with the same key keep their order where the transport has partitions."""
    headers: Mapping[str, str] | None = None
    """Headers beside the data, for transports that have them (Kafka, HTTP)."""
    is_json: bool = False
    """Whether the data is a JSON text already, as bytes or ``str``: it is sent as it is, and counts as JSON."""

    @property
    def is_bytes(self) -> bool:
        """Whether the data is bytes of which nothing is known."""
        return not self.is_json and isinstance(self.data, (bytes, bytearray, memoryview))

    def payload(self) -> bytes:
        """The bytes that are sent. Raises `TypeError` when the data has no JSON."""
        if type(self.data) is bytes:
            return self.data
        if self.is_json and isinstance(self.data, str):
            return self.data.encode()
        if isinstance(self.data, (bytes, bytearray, memoryview)):
            return bytes(self.data)
        return jsoncodec.dumps(self.data)


Encoded = tuple[Record, bytes]


class PushError(StreamError):
    """A push that did not deliver everything; what is in neither list was delivered.

    Attributes:
        undelivered: records to push again, in order. Some of them may have arrived (a lost answer).
        refused: records that this stream will never take, whatever is tried.
        retryable: whether pushing ``undelivered`` again unchanged can succeed; False says that the
            transport refused them together and that they may only be taken in smaller batches.
    """

    def __init__(
        self,
        message: str,
        *,
        undelivered: Sequence[Record] = (),
        refused: Sequence[Record] = (),
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.undelivered = tuple(undelivered)
        self.refused = tuple(refused)
        self.retryable = retryable


class OutputStream(ABC):
    """An append-only log to write to. Safe to use from several threads, and in a child process after a fork.

    A transport implements `_write` and, where it holds anything, `_flush`, `_release` and `_forget`.

    Attributes:
        uri: the address with its credentials hidden; fit for logs and messages.
    """

    records_a_push: ClassVar[int] = 500
    """How many records are best pushed at once where many wait."""

    def __init__(self, uri: str) -> None:
        self.uri = redact(uri)
        self._lock = threading.RLock()
        self._closed = False
        _watch_forks()
        _open_streams.add(self)

    def push(self, records: Sequence[Record]) -> None:
        """Append records in order; returns when the transport has taken all of them.

        Raises:
            PushError: some were not taken; it tells which.
            StreamError: the stream is closed, or ``records`` holds something that is not a `Record`.
        """
        encoded: list[Encoded] = []
        refused: list[Record] = []
        reason = ""
        for position, record in enumerate(records):
            if not isinstance(record, Record):
                raise StreamError(
                    f"{self.uri}: item {position} of a push is a {type(record).__name__}; wrap data in Record(data)"
                )
            try:
                encoded.append((record, record.payload()))
            except (TypeError, ValueError) as exc:
                refused.append(record)
                reason = reason or f"record {position} cannot be written: {exc}"
        self._check_open()
        if refused:
            # Nothing was sent yet: the others are for the caller to push again.
            raise PushError(f"{self.uri}: {reason}", undelivered=[r for r, _ in encoded], refused=refused)
        if encoded:
            self._write(encoded)

    def flush(self, timeout_s: float = DEFAULT_FLUSH_S) -> None:
        """Wait until what was pushed is as safe as the transport can make it; `StreamError` if it is not in time."""
        if not self._closed:
            self._flush(timeout_s)

    def close(self) -> None:
        """Flush and let go of files and connections. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._flush(DEFAULT_FLUSH_S)
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri}{' closed' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise StreamError(f"{self.uri} is closed")

    @abstractmethod
    def _write(self, batch: Sequence[Encoded]) -> None:
        """Append a batch that is never empty; `PushError` for what was not taken."""

    def _flush(self, timeout_s: float) -> None:  # noqa: B027 - not every transport has something to do
        """Make what was written safe."""

    def _release(self) -> None:  # noqa: B027 - not every transport has something to do
        """Let go of what is held; called once."""

    def _forget(self) -> None:  # noqa: B027 - not every transport has something to do
        """In a child process: drop what belongs to the parent without touching it; the next push makes its own."""

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # the old one may be held by a thread that is not here
        self._forget()


_open_streams: weakref.WeakSet[OutputStream] = weakref.WeakSet()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _after_fork_in_child() -> None:
    for stream in list(_open_streams):
        stream._after_fork()


def positive(value: object, name: str, uri: str) -> float:
    """The value of a numeric option that must be above zero, or `StreamError`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise StreamError(f"{redact(uri)}: {name} must be a number above 0, not {value!r}")
    return value


def count(value: object, name: str, uri: str, *, least: int = 1) -> int:
    """The value of a whole-number option, or `StreamError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StreamError(f"{redact(uri)}: {name} must be a whole number of at least {least}, not {value!r}")
    return value
