"""Sends requests to a component: over pipelined connections, or to its application in this process."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from seldon_fuzz import Request

from servegraph.runtimes.local import LocalApplication
from servegraph.runtimes.seldon.microservice import build_microservice
from servegraph.runtimes.seldon.options import MicroserviceOptions
from servegraph.settings import load_settings

ANSWER_S = 20.0
"""How long any answer may take, on a machine that does other things too."""
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: close", re.IGNORECASE)


def exchanged(port: int, requests: Sequence[Request], connections: int = 8, depth: int = 16) -> list[tuple[int, bytes]]:
    """Status and body of the answer to each request, in their order; each connection has some in flight."""

    async def run() -> list[tuple[int, bytes]]:
        parts = [list(range(first, len(requests), connections)) for first in range(connections)]
        found = await asyncio.gather(*(_conversation(port, requests, part, depth) for part in parts))
        answers = {index: answer for part in found for index, answer in part.items()}
        return [answers[index] for index in range(len(requests))]

    return asyncio.run(run())


async def _conversation(
    port: int, requests: Sequence[Request], indices: list[int], depth: int
) -> dict[int, tuple[int, bytes]]:
    """Send the requests of one connection; a connection that the server closes with an answer is opened again."""
    answers: dict[int, tuple[int, bytes]] = {}
    waiting = deque(indices)
    while waiting:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        sent: deque[int] = deque()
        try:
            while waiting or sent:
                while waiting and len(sent) < depth and not (sent and requests[sent[-1]].may_close):
                    sent.append(waiting.popleft())
                    writer.write(requests[sent[-1]].raw())
                request = requests[sent[0]]
                try:
                    status, body, closed = await asyncio.wait_for(_answer(reader, request.method), ANSWER_S)
                except TimeoutError:
                    raise AssertionError(f"no answer to {request}") from None
                except (asyncio.IncompleteReadError, ConnectionError) as exc:
                    raise AssertionError(f"{exc!r} instead of an answer to {request}") from exc
                answers[sent.popleft()] = (status, body)
                if closed:
                    break
        finally:
            waiting.extendleft(reversed(sent))
            writer.close()
    return answers


async def _answer(reader: asyncio.StreamReader, method: str) -> tuple[int, bytes, bool]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    closes = _CLOSE.search(head) is not None
    if method == "HEAD" or status in (204, 304):
        return status, b"", closes
    length = _LENGTH.search(head)
    body = await (reader.readexactly(int(length[1])) if length else reader.read())
    return status, body, closes or length is None


def application_of(component: str, **options: Any) -> LocalApplication:
    """The application that the command serves for a component, with the command's own settings."""
    from servegraph.runtimes.seldon.defaults import DEFAULTS

    settings = load_settings(overrides={"http_port": 0}, function=DEFAULTS)
    return build_microservice(MicroserviceOptions(component=component, **options).to_dict(), settings, None)


async def asked(application: LocalApplication, request: Request) -> tuple[int, bytes]:
    """The answer of an application in this process."""
    target, _, query = request.target.partition(b"?")
    scope = {
        "type": "http",
        "method": request.method,
        "path": unquote(target.decode("latin-1")),
        "raw_path": target,
        "query_string": query,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers]
        + [(b"content-length", b"%d" % len(request.body))],
    }
    pending: deque[dict[str, Any]] = deque([{"type": "http.request", "body": request.body}])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.Event().wait()
        return pending.popleft()

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def component_in(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """The name of the component ``Identity`` in a module of this code, which is written into a folder."""
    module = f"served_{folder.name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    return f"{module}.Identity"
