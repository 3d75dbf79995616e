"""A real HTTP server for the tests of remote steps: answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """One request as the peer saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What the peer sends back; with ``reset`` it breaks the connection instead."""

    body: bytes | Any = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    reset: bool = False
    wait_for: threading.Event | None = None


@dataclass
class Peer:
    """The server: ``answer`` decides, ``asked`` remembers."""

    url: str
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0
    most_at_once: int = 0


def _handler(peer: Peer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            asked = Asked(
                self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.rfile.read(length)
            )
            with peer.lock:
                peer.asked.append(asked)
                peer.under_way += 1
                peer.most_at_once = max(peer.most_at_once, peer.under_way)
            try:
                self.reply(peer.answer(asked))
            finally:
                with peer.lock:
                    peer.under_way -= 1

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def reply(self, answer: Answer) -> None:
            if answer.wait_for is not None:
                answer.wait_for.wait(10)
            if answer.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            try:
                self.send_response(answer.status)
                self.send_header("content-type", answer.content_type)
                self.send_header("content-length", str(len(raw)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the caller has gone

        def handle(self) -> None:
            try:
                super().handle()
            except ssl.SSLError:
                self.close_connection = True  # the caller does not trust us

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                self.close_connection = True  # reset by the test

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running_peer(answer: Callable[[Asked], Answer], tls: tuple[str, str] | None = None) -> Iterator[Peer]:
    peer = Peer("", answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(peer))
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        # The handshake is made by the thread of the connection, where a refused one ends only that.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    peer.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
