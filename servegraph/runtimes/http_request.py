"""One HTTP request as the data plane reads it: the fields of its head that matter, and its body within limits."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Generator, Mapping
from http import HTTPStatus
from typing import Any, Final

from servegraph.errors import (
    PayloadTooLargeError,
    RequestError,
    RequestTimeoutError,
    StepError,
    UnsupportedMediaTypeError,
)
from servegraph.graph.events import Event, Trigger, new_id
from servegraph.runtimes.worker_protocol import Receive, Scope
from servegraph.serving.dataplane import JSON, Reply
from servegraph.settings import LimitSettings

HTTP: Final = Trigger("http", "http")
_JSON: Final = b"application/json"
_MAX_ID: Final = 128
RARE_FIELDS: Final = frozenset(
    (b"x-request-id", b"mlrun-event-id", b"x-request-timeout-ms", b"content-encoding", b"x-server-timing")
)


class HttpRequest:
    """The head of one request."""

    __slots__ = ("content_type", "headers", "id", "is_json", "length", "method", "path", "rare", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.content_type: str | None = None
        self.is_json = True
        self.length = 0
        self.rare: RareFields | None = None
        for name, value in self.headers:
            if name == b"content-type":
                self.content_type = value.decode("latin-1")
                self.is_json = value == _JSON or b"json" in value.lower()
            elif name == b"content-length":
                self.length = int(value)
            elif name in RARE_FIELDS:
                if self.rare is None:
                    self.rare = RareFields()
                self.rare.take(name, value)
        self.id: str = new_id() if self.rare is None or self.rare.id is None else self.rare.id

    def timeout_s(self, most: float) -> float:
        """Seconds the request may take: what the caller asks for, at most what the server allows.

        Raises:
            RequestError: what the caller asks for is no time.
        """
        if self.rare is None or self.rare.timeout is None:
            return most
        try:
            asked = float(self.rare.timeout)
        except ValueError:
            asked = -1.0
        if not 0 < asked < float("inf"):
            raise RequestError("X-Request-Timeout-Ms must be a number of milliseconds above 0")
        return min(most, asked / 1000)

    def event(self, body: bytes, deadline: float | None) -> Event:
        """The event that the graph gets."""
        method = "GET" if self.method == "HEAD" else self.method  # the same but for the body of the answer
        event = Event(body, self.content_type, self.headers, method, self.path, self.id, HTTP)
        event.deadline = deadline
        event._peer = self.scope.get("client")
        query = self.scope["query_string"]
        if query:
            event._query = query.decode("latin-1")
        return event

    def mark(self, name: str) -> None:
        """Note that a part of the work is done, where the caller asked for ``Server-Timing``."""
        if self.rare is not None and self.rare.timing:
            self.rare.marks.append((name, time.perf_counter()))

    def check(self, limits: LimitSettings) -> int:
        """The limit on the body, once nothing in the head speaks against reading it.

        Raises:
            UnsupportedMediaTypeError: the body is compressed.
            PayloadTooLargeError: the body says that it is larger than the limit.
        """
        if self.rare is not None and self.rare.encoding not in (None, b"identity"):
            raise UnsupportedMediaTypeError("compressed request bodies are not accepted: send it uncompressed")
        limit = limits.body_json_bytes if self.is_json else limits.body_binary_bytes
        if self.length > limit:
            raise PayloadTooLargeError(f"the body has {self.length} bytes; the limit is {limit}")
        return limit


class RareFields:
    """Header fields that few requests have."""

    __slots__ = ("encoding", "id", "marks", "started", "timeout", "timing")

    def __init__(self) -> None:
        self.id: str | None = None
        self.timeout: bytes | None = None
        self.encoding: bytes | None = None
        self.timing = False
        self.started = time.perf_counter()
        self.marks: list[tuple[str, float]] = []

    def take(self, name: bytes, value: bytes) -> None:
        """Take note of one field."""
        if name in (b"x-request-id", b"mlrun-event-id"):
            text = value.decode("latin-1")
            if 0 < len(text) <= _MAX_ID and text.isascii() and text.isprintable():
                self.id = text
        elif name == b"x-request-timeout-ms":
            self.timeout = value
        elif name == b"content-encoding":
            self.encoding = value.strip().lower()
        else:
            self.timing = value.strip() not in (b"", b"0")

    def server_timing(self, seconds: float) -> bytes:
        """The value of ``Server-Timing`` (W3C): milliseconds of each part."""
        parts, last = [], self.started
        for name, at in self.marks:
            parts.append(f"{name};dur={(at - last) * 1000:.3f}")
            last = at
        return ", ".join([*parts, f"total;dur={seconds * 1000:.3f}"]).encode("ascii")


_STATUS_LINES: Final = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus}
_BAD_FIELD: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def whole_answer(reply: Reply, request_id: str) -> tuple[bytes, bytes, bytes]:
    """Status line, header lines and body of an answer to a POST.

    Raises:
        StepError: a header field that user code gave holds control characters.
    """
    body = reply.body
    if reply.status == 200 and reply.content_type is JSON and reply.headers is None:  # most of them
        fields = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n\r\n"
        return _STATUS_LINES[200], fields % (len(body), request_id.encode("ascii")), body
    lines = [f"x-request-id: {request_id}"]
    if reply.content_type is not None:
        lines.append(f"content-type: {reply.content_type}")
    if reply.status != 204:
        lines.append(f"content-length: {len(body)}")
    lines.extend(f"{name}: {value}" for name, value in (reply.headers or {}).items())
    for line in lines:
        if _BAD_FIELD.search(line):
            raise StepError("a header field of the answer holds control characters")
    status = _STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d \r\n" % reply.status
    return status, "\r\n".join([*lines, "\r\n"]).encode("latin-1"), body


class ClientGoneError(Exception):
    """The client closed its connection before it had sent its request."""


async def read_body(receive: Receive, limit: int, timeout_s: float) -> bytes:
    """A request's body; nearly always it is there already, and then no timer is started.

    Raises:
        PayloadTooLargeError: it is larger than the limit.
        RequestTimeoutError: it does not arrive in time.
        ClientGoneError: the client went away.
    """
    first = receive().__await__()
    message: Any = None
    try:
        waiting = next(first)
    except StopIteration as stop:
        message = stop.value
        if not message.get("more_body"):
            return _checked(message, limit)
    try:
        async with asyncio.timeout(timeout_s):
            if message is None:
                message = await Resumed(first, waiting)
            return await _collect(message, receive, limit)
    except TimeoutError:
        raise RequestTimeoutError(f"the body did not arrive within {timeout_s:g} s") from None


def _checked(message: Mapping[str, Any], limit: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise PayloadTooLargeError(f"the body has more than {limit} bytes")
    return body


async def _collect(message: Any, receive: Receive, limit: int) -> bytes:
    """A body that comes in several parts."""
    first = _checked(message, limit)
    if not message.get("more_body"):
        return first
    parts, size = [first], len(first)
    while message.get("more_body"):
        message = await receive()
        part = _checked(message, limit)
        size += len(part)
        if size > limit:
            raise PayloadTooLargeError(f"the body has more than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


class Resumed:
    """Awaits the rest of a coroutine that was started by hand and now waits for something."""

    __slots__ = ("_waiting", "_work")

    def __init__(self, work: Any, waiting: Any) -> None:
        self._work = work
        self._waiting = waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        work, waiting = self._work, self._waiting
        while True:
            try:
                sent = yield waiting
            except BaseException as exc:  # noqa: BLE001 - passed on to the coroutine
                step, argument = work.throw, exc
            else:
                step, argument = work.send, sent
            try:
                waiting = step(argument)
            except StopIteration as stop:
                return stop.value
