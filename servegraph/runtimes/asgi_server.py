"""One HTTP listener of a process: uvicorn with our limits, started, kept going and drained by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import uvicorn
from uvicorn.server import ServerState

from servegraph.runtimes.http_protocol import LimitedHttpProtocol, close_overdue, limited_protocol
from servegraph.runtimes.worker_protocol import Receive, Scope, Send
from servegraph.settings import LimitSettings

logger = logging.getLogger("servegraph.worker")

AsgiCallable: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_SETTLE_S = 0.1
_POLL_S = 0.02


class AsgiServer:
    """Serves an ASGI application on a socket of the running event loop.

    Args:
        application: the ASGI callable; it gets no lifespan events.
        limits: what one request and one connection may take.
    """

    def __init__(self, application: AsgiCallable, limits: LimitSettings) -> None:
        config = uvicorn.Config(
            application,
            http=limited_protocol(limits),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._socket: socket.socket | None = None
        self._late: set[asyncio.Task[Any]] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Take connections from a listening socket, which is this server's own from now on."""
        self._socket = sock
        # A socket that was only reserved does not have it, and its connections would hold the port after its end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await self._server.startup(sockets=[sock])

    async def tick(self) -> None:
        """The work of each second: the time for ``Date`` headers, and the clients that are too slow."""
        await self._server.on_tick(0)
        close_overdue(self._server.server_state.connections, asyncio.get_running_loop().time())

    def in_flight(self) -> int:
        """How many requests are being answered."""
        return len(self._server.server_state.tasks)

    def stop_accepting(self) -> None:
        """Take no more connections; requests on those that are open are still read."""
        if self._socket is None:
            return
        with self._socket.dup() as still_open:  # the event loop closes its own at once
            for server in self._server.servers:
                server.close()
            self._accept_waiting(still_open)
        self._socket.close()
        self._socket = None

    def _accept_waiting(self, sock: socket.socket) -> None:
        """Take the connections whose clients believe they are taken: closing the socket would reset them."""
        loop = asyncio.get_running_loop()
        config, state = self._server.config, self._server.server_state
        protocol: Any = config.http_protocol_class
        new = partial(protocol, config=config, server_state=state, app_state={})
        # Until there is none, or the supervisor has ended the listening of all, which does not wait for a busy worker.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = sock.accept()
                connection.setblocking(False)
                self._late.add(loop.create_task(loop.connect_accepted_socket(new, connection)))

    async def finish(self, grace_s: float, others: Callable[[], int] = int) -> bool:
        """Wait for the requests in flight, and cut off those that take longer; whether none had to be.

        Args:
            grace_s: how long they may take.
            others: how much work there is that is not seen in connections; it is waited for as well.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        # Requests that are on the wire already are read before idle connections are closed.
        await asyncio.sleep(min(_SETTLE_S, grace_s))
        await asyncio.gather(*self._late, return_exceptions=True)
        state = self._server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        while (state.connections or state.tasks or others()) and loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
        clean = not (state.connections or state.tasks)
        if not clean:
            with _cancelled_tasks_are_no_news():
                await _cut_off(state)
        return clean


async def _cut_off(state: ServerState) -> None:
    """Answer 503 where nothing was answered yet, and end what is still connected."""
    for connection in list(state.connections):
        if not isinstance(connection, LimitedHttpProtocol):
            continue
        cycle = connection.cycle
        if cycle is None or cycle.response_complete:
            continue
        scope = cycle.scope
        ids = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"]
        logger.error("cut off at the end of the drain: %s %s %s", scope["method"], scope["path"], *ids or ["-"])
        if not cycle.response_started:
            connection.transport.write(_STOPPING)
        cycle.disconnected = True
        connection.transport.close()
    for task in list(state.tasks):
        task.cancel()
    if state.tasks:
        await asyncio.wait(set(state.tasks), timeout=_SETTLE_S)
    await asyncio.sleep(_SETTLE_S)
    for connection in list(state.connections):
        connection.transport.abort()


@contextlib.contextmanager
def _cancelled_tasks_are_no_news() -> Iterator[None]:
    uvicorn_logger = logging.getLogger("uvicorn.error")
    before = uvicorn_logger.level
    uvicorn_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        uvicorn_logger.setLevel(before)


_STOPPING_BODY = (
    b'{"type":"about:blank","title":"Service Unavailable","status":503,'
    b'"detail":"the server stopped before it could answer"}'
)
_STOPPING = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_STOPPING_BODY), _STOPPING_BODY)
)
