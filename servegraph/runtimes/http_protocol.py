"""uvicorn's HTTP/1.1 protocol with the limits on the head of a request that it does not have itself.

A connection whose next request head is overdue is closed; a head that is too long is answered 414 or 431; an
offer to upgrade to another protocol is passed over. An application that has an ``answer_now`` may answer ordinary
requests before a task is made of them. Clients that send heads or take answers too slowly are found by
`close_overdue`, which the worker calls once a second for all connections, so that a request pays for no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from servegraph.runtimes.worker_protocol import Receive
from servegraph.settings import LimitSettings

Fields: TypeAlias = list[tuple[bytes, bytes]]
AnswerNow: TypeAlias = Callable[[bytes, Fields, bytes], "tuple[bytes, bytes, bytes] | None"]
"""From request target, header fields and body to status line, header lines and body of the answer; or ``None``,
and then nothing has been done yet."""

_LINGER_S = 1.0
_LARGEST_READ = 256 * 1024
"""Bytes that the event loop reads of a connection at once, at most."""
_UPGRADE_FIELDS = frozenset({b"upgrade", b"http2-settings"})
_LEAST_RATE = 1024
"""Bytes per second of its answers that a client has to take in the long run."""
_REFUSALS = {
    400: (b"400 Bad Request", b"Invalid HTTP request received."),
    414: (b"414 URI Too Long", b"the request target is too long"),
    431: (b"431 Request Header Fields Too Large", b"the header fields of the request are too large or too many"),
}


_lines: tuple[object, bytes] = (None, b"")


def _default_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The fields that uvicorn adds to every answer; it makes a new list once a second, for the date."""
    global _lines
    known, lines = _lines
    if known is not headers:
        lines = b"".join(b"%b: %b\r\n" % field for field in headers)
        _lines = (headers, lines)
    return lines


def hang_up(receive: Receive) -> None:
    """Have a client whose request is not read to its end get the answer that says why, although it still sends.

    The answer must close the connection. Closing at once while data arrives would reset it, and lose the answer.

    Args:
        receive: the one that the application was called with for this request.
    """
    cycle = getattr(receive, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or not cycle.more_body:
        return
    connection = getattr(cycle.on_response, "__self__", None)
    if isinstance(connection, LimitedHttpProtocol):
        connection.listen_no_more()
        last: Any = _ClosesSoon(connection)
        cycle.transport = last


class _ClosesSoon:
    """A transport for one last answer."""

    def __init__(self, connection: LimitedHttpProtocol) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        """Close, when the client has had time to read the answer."""
        connection = self._connection
        connection.pipeline.clear()
        connection.close_soon()


class _HeadTooLongError(Exception):
    """Stops the parser; its user sees ``LimitedHttpProtocol._refusal``."""


class _Discard:
    """Takes the place of the parser of a refused connection: what still arrives is thrown away."""

    def feed_data(self, data: bytes) -> None:
        """Forget the data."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with `limits`; `limited_protocol` makes the class for given limits."""

    limits = LimitSettings()
    # The same again, for what each request looks at.
    _line_limit = limits.request_line_bytes
    _block_limit = limits.header_block_bytes
    _count_limit = limits.header_count
    _partial_head = 0
    """Bytes received so far of the head that belongs to `_partial_scope`."""
    _partial_scope: object = None
    _measure = False
    """Whether the next head may be larger than its limit and has to be measured."""
    _refusal = 0
    """The status that the connection was refused with."""
    _awaited: object = None
    """What stood for the awaited head when `close_overdue` first saw it missing."""
    _awaited_since = 0.0
    _answer_now: AnswerNow | None = None
    """The application's way to answer a request before a task is made of it, where it has one."""
    _outbox: list[tuple[HttpToolsProtocol, bytes]]
    """Answers of all connections of this server that are still to be written."""
    _held: list[bytes] | None = None
    """The parts of the body of a request that may be answered at once."""
    _framing = 0
    """Bytes received of a chunked message since the last part of its body; 0 for any other message."""
    _untaken = 0
    """Bytes of answers that the client had not taken when `close_overdue` looked last."""
    _untaken_since = 0.0
    _taken = 0
    """Bytes that it has taken since then."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._answer_now = getattr(self.app, "answer_now", None)
        self.timeout_keep_alive = self.limits.keep_alive_s  # type: ignore[assignment]  # any number does

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and refuse a head that has grown too long before it is complete."""
        self._unset_keepalive_if_required()
        if len(data) > self._block_limit:
            self._measure = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._go_on_without_upgrade(data[exc.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or 400)
        if self._held is not None:  # its body is still on the way
            self._hand_on(self._held)
        scope: Any = self.scope  # None before the first message, unlike what uvicorn declares
        if scope is None or "method" not in scope:  # see _head_is_missing; a call would cost more than the test
            self._count_partial_head(len(data))
        elif self._measure:
            self._measure = self._count_framing(len(data))

    def _count_partial_head(self, received: int) -> None:
        limits = self.limits
        self._measure = True
        if self.scope is self._partial_scope:
            self._partial_head += received
        else:
            self._partial_scope = self.scope
            # On a connection that had requests, it came with the end of the last one: what of it is parsed counts.
            self._partial_head = received if self.cycle is None else len(self.url) + _size(self.headers)
        if self.scope is not None and len(self.url) > limits.request_line_bytes:
            self._refuse(414)
        elif self._partial_head > limits.header_block_bytes + limits.request_line_bytes:
            self._refuse(431)

    def _count_framing(self, received: int) -> bool:
        """Refuse a chunked message with too much beside its body; whether to go on counting."""
        cycle = self.cycle
        if not self._framing or cycle is None or not cycle.more_body:
            return False
        self._framing += received
        if self._framing > self._block_limit + _LARGEST_READ:
            self._refuse(431)
        return True

    def on_chunk_header(self) -> None:
        """Count what arrives from here on: behind the last chunk there may be fields without end."""
        if self._held is not None:
            self._hand_on(self._held)  # before those fields are taken for fields of the head
        self._measure = True
        self._framing = self._framing or 1

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too long."""
        headers = self.headers
        if len(self.url) > self._line_limit:
            self._refusal = 414
            raise _HeadTooLongError
        if len(headers) > self._count_limit or (self._measure and _size(headers) > self._block_limit):
            self._refusal = 431
            raise _HeadTooLongError
        if self._answer_now is not None and self._is_ordinary():
            self._held = []  # until the body is there too
            return
        self._begin()

    def _begin(self) -> None:
        """Have uvicorn make a task of the request."""
        super().on_headers_complete()
        # Fields after a chunked body must not reach the header list that the application already has.
        self.headers = []
        self._framing = 0

    # -- answering at once ------------------------------------------------------------------------------------------

    def _is_ordinary(self) -> bool:
        """Whether the application may answer this request as soon as its body is there, before any other work.

        Only when nothing is pending on the connection: answers go out in the order of the requests.
        """
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.pipeline
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def on_body(self, body: bytes) -> None:
        """Keep the body of a request that may be answered at once; hand on any other."""
        if self._held is not None:
            self._held.append(body)
            return
        if self._framing:
            self._framing = 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer a request that can be answered at once; hand on any other."""
        if self._held is not None:
            parts, self._held = self._held, None
            assert self._answer_now is not None
            answer = self._answer_now(self.url, self.headers, parts[0] if len(parts) == 1 else b"".join(parts))
            if answer is not None:
                self._write_answer(answer)
                return
            self._hand_on(parts)
        self._framing = 0
        super().on_message_complete()

    def _hand_on(self, parts: list[bytes]) -> None:
        self._held = None
        self._begin()
        for part in parts:
            super().on_body(part)

    def _write_answer(self, answer: tuple[bytes, bytes, bytes]) -> None:
        """Have a whole answer written once all that has arrived is read, and do what uvicorn does after one.

        Answers of many connections go out together: written one by one, each would wake a waiting client, whose next
        request would be read alone.
        """
        status, fields, body = answer
        outbox = self._outbox
        if not outbox:
            self.loop.call_soon(_send_all, outbox)
        outbox.append((self, b"".join((status, _default_lines(self.server_state.default_headers), fields, body))))
        scope: Any = self.scope
        scope["method"] = "POST"  # the head was complete: see `_head_is_missing`
        self.on_response_complete()

    def _should_upgrade(self) -> bool:
        # Has uvicorn leave the request alone until `_go_on_without_upgrade` takes it up.
        return True

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Answer a request that offers to upgrade (``h2c``, as some HTTP/2 clients do) as plain HTTP/1.1.

        The parser takes all that follows such a head for another protocol, so that the body would be lost: a
        new one gets the same head without the offer.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("CONNECT is not supported.")
            return
        version = self.parser.get_http_version().encode("ascii")
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        for name, value in self.scope["headers"]:
            if name == b"connection":
                value = b", ".join(token for token in _tokens(value) if token not in _UPGRADE_FIELDS)
            if value and name not in _UPGRADE_FIELDS:
                head.append(b"%b: %b\r\n" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"%b\r\n%b" % (b"".join(head), rest))

    def _head_is_missing(self) -> bool:
        # uvicorn makes a new scope when a message begins and puts the method in when its head is complete.
        scope: Any = self.scope
        return scope is None or "method" not in scope

    def listen_no_more(self) -> None:
        """Throw away what still arrives."""
        self._held = None
        self.parser = _Discard()  # type: ignore[assignment]  # only fed from now on

    def _refuse(self, status: int) -> None:
        """Answer what cannot be read, behind the answers to what was read before it."""
        if isinstance(self.parser, _Discard) or self.transport.is_closing():
            return
        self._refusal = status
        self.listen_no_more()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._send_refusal()
        elif not cycle.more_body:
            cycle.on_response = self._send_refusal
        else:  # it is this request itself that cannot be read to its end
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline[0] = (cycle, self._refuse_in_turn)
            elif cycle.response_started:
                self.transport.close()
            else:
                self._send_refusal()

    async def _refuse_in_turn(self, *_: Any) -> None:
        self._send_refusal()

    def _send_refusal(self) -> None:
        _send_all(self._outbox)
        if self.transport.is_closing():
            return
        line, text = _REFUSALS[self._refusal]
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (line, len(text), text)
        )
        self.close_soon()

    def close_soon(self) -> None:
        """Close the connection once the client has had time to read what was sent last."""
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def shutdown(self) -> None:
        """Close the connection once its answers are out; called by the server to stop gracefully."""
        _send_all(self._outbox)
        super().shutdown()

    def close_if_overdue(self, now: float) -> None:
        """Close the connection if its client is too slow to send a request head, or to take its answers."""
        if self._takes_too_slowly(now):
            self.transport.abort()
            return
        awaited: object = None
        if self.cycle is not None and not self.cycle.response_complete:
            pass  # a request is being answered: it is not the client that is awaited
        elif self._head_is_missing():
            awaited = self if self.scope is None else self.scope
        elif self.timeout_keep_alive_task is None:
            awaited = self.cycle  # bytes that begin no message have ended the keep-alive timer
        if awaited is None or awaited is not self._awaited:
            self._awaited, self._awaited_since = awaited, now
        elif now - self._awaited_since >= self.limits.header_timeout_s and not self.transport.is_closing():
            self.transport.close()

    def _takes_too_slowly(self, now: float) -> bool:
        """Whether the client has taken next to nothing of its answers for ``body_timeout_s``."""
        untaken = self.transport.get_write_buffer_size()
        if not untaken:
            self._untaken = 0
            return False
        if not self._untaken:
            self._untaken_since, self._taken = now, 0
        else:
            self._taken += max(0, self._untaken - untaken)
        self._untaken = untaken
        waited = now - self._untaken_since
        if waited < self.limits.body_timeout_s:
            return False
        taken, self._untaken_since, self._taken = self._taken, now, 0
        return taken < _LEAST_RATE * waited


def _send_all(outbox: list[tuple[HttpToolsProtocol, bytes]]) -> None:
    """Write the answers that wait for it."""
    answers = outbox.copy()
    outbox.clear()
    for connection, data in answers:
        if not connection.transport.is_closing():
            connection.transport.write(data)


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip().lower() for token in value.split(b",")]


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    """Bytes of header fields on the wire: each has a colon, a space and a line end."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def limited_protocol(limits: LimitSettings) -> type[asyncio.Protocol]:
    """The protocol class that enforces these limits, for ``uvicorn.Config(http=…)``."""
    members = {
        "limits": limits,
        "_outbox": [],
        "_line_limit": limits.request_line_bytes,
        "_block_limit": limits.header_block_bytes,
        "_count_limit": limits.header_count,
    }
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), members)


def close_overdue(connections: Iterable[object], now: float) -> None:
    """Close those of a server's connections whose clients are too slow; ``now`` is the loop's time."""
    for connection in list(connections):
        if isinstance(connection, LimitedHttpProtocol):
            connection.close_if_overdue(now)
