"""The further edges of a server beside its HTTP one, and the one that is a second HTTP port."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection, Mapping

from servegraph.errors import SettingsError, closest
from servegraph.runtimes.asgi_server import AsgiCallable, AsgiServer
from servegraph.runtimes.worker_protocol import Edge, Receive, Scope, Send
from servegraph.settings import LimitSettings

logger = logging.getLogger("servegraph.worker")

_TICK_S = 1.0
_LATE_S = 1.0


class Edges:
    """The edges of an application that have a listener: they start, drain and stop together.

    Args:
        offered: the edges of the application, by name.
        listeners: names of the listeners there are; an edge without one is left alone.

    Raises:
        SettingsError: there is a listener that no edge is for.
    """

    def __init__(self, offered: Mapping[str, Edge], listeners: Collection[str]) -> None:
        for name in listeners:
            if name not in offered:
                raise SettingsError(
                    f"there is a listener for {name!r}, but the application offers no such edge: "
                    f"{closest(name, offered)}"
                )
        self._edges = {name: offered[name] for name in listeners}
        self._sockets: list[socket.socket] = []

    async def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Start each edge at the address of its socket; the sockets are closed when the edges stop."""
        self._sockets.extend(sockets.values())
        for name, sock in sockets.items():
            await self._edges[name].start(sock)

    def begin_drain(self) -> None:
        """Have all say that they are not ready, and go on answering."""
        for edge in self._edges.values():
            edge.begin_drain()

    async def stop(self, grace_s: float) -> bool:
        """Stop all at the same time; whether what was in flight has been finished within ``grace_s``."""
        try:
            stopped = await asyncio.gather(*(self._stop(name, edge, grace_s) for name, edge in self._edges.items()))
        finally:
            for sock in self._sockets:
                sock.close()
        return all(stopped)

    async def _stop(self, name: str, edge: Edge, grace_s: float) -> bool:
        try:
            async with asyncio.timeout(grace_s + _LATE_S):
                return await edge.stop(grace_s)
        except TimeoutError:
            logger.error("the %s edge did not stop within %g s", name, grace_s + _LATE_S)
            return False

    def in_flight(self) -> int:
        """How many requests all of them are working on."""
        return sum(edge.in_flight() for edge in self._edges.values())

    def stuck_calls(self, grace_s: float) -> int:
        """How many of their calls still run this long after their deadline."""
        return sum(edge.stuck_calls(grace_s) for edge in self._edges.values())


class OnlyPaths:
    """An ASGI callable that hands on requests for some paths and answers 404 to all others.

    Args:
        application: the ASGI callable that answers.
        paths: the paths.
    """

    def __init__(self, application: AsgiCallable, paths: Collection[str]) -> None:
        self._application = application
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in self._paths:
            await self._application(scope, receive, send)
            return
        body = f"this port has {', '.join(sorted(self._paths))} and nothing else\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class AsgiEdge:
    """A second HTTP port for an ASGI application of its own, such as one that shows metrics to Prometheus alone.

    Args:
        application: the ASGI callable; it gets no lifespan events.
        limits: what one request and one connection may take.
    """

    def __init__(self, application: AsgiCallable, limits: LimitSettings | None = None) -> None:
        self._server = AsgiServer(application, limits or LimitSettings())
        self._ticking: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        """Take requests from a listening socket."""
        await self._server.listen(sock)
        self._ticking = asyncio.create_task(self._tick(), name="second-http-port")

    def begin_drain(self) -> None:
        """Nothing: the application itself knows whether it is ready."""

    async def stop(self, grace_s: float) -> bool:
        """Accept nothing more and finish what is in flight; whether nothing had to be cut off."""
        if self._ticking is None:
            return True
        self._server.stop_accepting()
        try:
            return await self._server.finish(grace_s)
        finally:
            self._ticking.cancel()

    def in_flight(self) -> int:
        """How many requests are being answered."""
        return self._server.in_flight()

    def stuck_calls(self, grace_s: float) -> int:
        """None: its requests are answered on the event loop, where a blocked one is noticed otherwise."""
        return 0

    async def _tick(self) -> None:
        while True:
            await self._server.tick()
            await asyncio.sleep(_TICK_S)
