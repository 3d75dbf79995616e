"""A function served in this process, and requests to it down to single bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """Where a function is served."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str | None = None
    ) -> Answer:
        """The answer to one request; what is not bytes is sent as JSON."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, raw, fields)
            with connection.getresponse() as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        """A connection, for requests written by hand."""
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        return client


@contextlib.contextmanager
def serving(function: Any, **settings: Any) -> Iterator[Served]:
    """Serve a function on a free port of this process."""
    running: Any = function.serve(http_port=0, block=False, **settings)
    with running:
        yield Served(int(running.url.rpartition(":")[2]))


def post(path: str, body: Any, *fields: bytes) -> bytes:
    """The bytes of a request with a JSON body."""
    raw = json.dumps(body).encode()
    head = [b"POST %b HTTP/1.1" % path.encode(), b"host: x", b"content-type: application/json", *fields]
    return b"\r\n".join([*head, b"content-length: %d" % len(raw), b"", raw])


def read_all(client: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    return b"".join(iter(lambda: client.recv(1 << 20), b""))
