"""A REST node on another server that answers as it is told, and keeps what it is asked."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Asked:
    """One request; names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


def usual(path: str) -> tuple[int, Any]:
    """Status and body that fit each path."""
    return 200, [0] if path == "/route" else {"strData": "x", "meta": {}}


@contextlib.contextmanager
def peer(answer: Callable[[str], tuple[int, Any]] = usual) -> Iterator[tuple[str, list[Asked]]]:
    """The address of such a node, and what it has been asked."""
    seen: list[Asked] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {k.lower(): v for k, v in self.headers.items()}
            seen.append(Asked(self.path, headers, json.loads(body or b"null")))
            status, told = answer(self.path)
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    stub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.daemon_threads = True
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{stub.server_port}", seen
    finally:
        stub.shutdown()
        thread.join()
        stub.server_close()
