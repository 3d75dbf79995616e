"""gRPC connections on which many calls fail go on: a call that is over is not kept open by what it failed with."""

from __future__ import annotations

import asyncio
import collections
import gc
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from seldon_command import IDENTITY
from seldon_exchange import application_of, component_in

from servegraph.runtimes.grpc_context import GrpcContext
from servegraph.runtimes.grpc_edge import GrpcEdge
from servegraph.runtimes.worker_protocol import Edge

CALLS = 2500
"""More than a connection may have in flight."""


@pytest.fixture(autouse=True)
def _nothing_helps(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The collector does not come by, as it rarely does in a worker; and pytest keeps no log with tracebacks."""
    caplog.set_level("CRITICAL", "servegraph.grpc")
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def codes(edge: Edge, method: str, data: bytes, calls: int = CALLS) -> dict[str, int]:
    """How often each status was the answer to calls on one connection."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        await edge.start(sock)

        def ask() -> dict[str, int]:
            with grpc.insecure_channel(f"127.0.0.1:{sock.getsockname()[1]}") as channel:
                call = channel.unary_unary(method)
                return collections.Counter(call.future(data, timeout=20).code().name for _ in range(calls))

        try:
            return await asyncio.to_thread(ask)
        finally:
            await edge.stop(5)


def kept_by_a_variable(data: bytes, context: GrpcContext) -> bytes:
    try:
        raise ValueError("to be kept")
    except ValueError as exc:
        kept = exc
    return str(kept).encode()


def raised_again(data: bytes, context: GrpcContext) -> bytes:
    error = ValueError("to be raised")
    raise error


def raised_on_the_loop(data: bytes, context: GrpcContext) -> bytes:
    async def fail() -> bytes:
        return raised_again(data, context)

    return context.run(fail())


@pytest.mark.parametrize(
    ("method", "code"), [(kept_by_a_variable, "OK"), (raised_again, "INTERNAL"), (raised_on_the_loop, "INTERNAL")]
)
def test_connection_goes_on_when_the_exceptions_of_its_calls_are_kept(
    method: Callable[[bytes, GrpcContext], bytes], code: str
) -> None:
    assert asyncio.run(codes(GrpcEdge({"/a.B/C": method}), "/a.B/C", b"")) == {code: CALLS}


def test_connection_goes_on_when_all_messages_are_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> Any:
        application = application_of(component_in(tmp_path, monkeypatch, IDENTITY))
        await application.startup()
        try:
            return await codes(application.edges["grpc"], "/seldon.protos.Model/Predict", b"\xff")
        finally:
            await application.aclose()

    assert asyncio.run(run()) == {"INVALID_ARGUMENT": CALLS}
