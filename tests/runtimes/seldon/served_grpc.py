"""A component's application in this process, with its gRPC edge on a real port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from servegraph.runtimes.local import LocalApplication

T = TypeVar("T")


def asked(application: LocalApplication, ask: Callable[[Any], T]) -> T:
    """What a function gets that is handed a channel to the application, which lives no longer than that."""

    def connected(port: int) -> T:
        limits = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=limits) as channel:
            return ask(channel)

    async def run() -> T:
        await application.startup()
        edge = application.edges["grpc"]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", 0))
            try:
                await edge.start(sock)
                return await asyncio.to_thread(connected, sock.getsockname()[1])
            finally:
                await edge.stop(5)
                await application.aclose()

    return asyncio.run(run())


def outcome(call: Any, request: Any, timeout: float = 30) -> tuple[str, str]:
    """The code of a call, and its details where it failed."""
    future = call.future(request, timeout=timeout)
    return future.code().name, future.details()
