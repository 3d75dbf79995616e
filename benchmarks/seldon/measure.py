"""One side measured once: the component under each load, or the tree at each number of connections."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import time
from collections.abc import Callable
from functools import partial

from benchmarks import load
from benchmarks.http.measure import Level, await_ready, post, under_load
from benchmarks.http.processes import Memory, Running, running
from benchmarks.seldon import grpc_load
from benchmarks.seldon.payloads import (
    PREDICT,
    SMALL,
    TREE_ANSWER,
    Rows,
    body,
    large,
    message,
    wrong_message,
    wrong_rest,
)
from benchmarks.seldon.sides import LAYOUTS, NODES, SIDES, node_server, tree_server

WARM_UP_SECONDS = 1
IDLE_SECONDS = 2
"""After the last load, so that memory is that of an idle server."""
LARGE_FACTOR = 2
"""So much longer are loads with large messages, of which the slower side answers few a second."""
_MAX_MESSAGE = [("grpc.max_receive_message_length", -1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One load on the component."""

    title: str
    """What the table calls it."""
    asked: float | None
    """How many times Seldon's throughput servegraph is to reach; ``None`` where the load shows latency alone."""
    connections: int
    streams: int = 0
    """Calls under way on each connection, for gRPC; 0 is REST."""
    is_large: bool = False
    """Whether it sends 1000x100 floats instead of 1x4."""

    @property
    def load_text(self) -> str:
        """Connections, and with gRPC the streams on each."""
        return f"{self.connections}x{self.streams}" if self.streams else str(self.connections)


def cases(connections: tuple[int, ...]) -> tuple[Case, ...]:
    """All loads on the component; the numbers of connections are those of REST with a small body."""
    return (
        *(Case("REST, 1x4 floats", 10 if count > 1 else None, count) for count in connections),
        Case("gRPC, 1x4 floats", None, 1, streams=1),
        Case("gRPC, 1x4 floats", 2, 4, streams=8),
        *(Case("REST, 1000x100 floats", 5, count, is_large=True) for count in (1, 4)),
        *(Case("gRPC, 1000x100 floats", 5, count, streams=1, is_large=True) for count in (1, 4)),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """What was seen of one side in one round."""

    ready_seconds: float
    """From the start of the first process to the first right answer."""
    fresh: Memory
    """Right after that answer."""
    idle: Memory
    """After all loads."""
    levels: tuple[Level, ...]
    """One entry for each load."""


def measure(name: str, connections: tuple[int, ...], seconds: float) -> Taken:
    """Start, check, load, check and end one side.

    Raises:
        NotRun: it did not start, was not ready in time, or answered something else.
    """
    return _tree(name, connections, seconds) if name in LAYOUTS else _component(name, cases(connections), seconds)


def _component(name: str, loads: tuple[Case, ...], seconds: float) -> Taken:
    with running(SIDES[name]) as process:
        ready = await_ready(process, lambda: _wrong_rest(process, is_large=False))
        fresh = process.memory()
        levels: list[Level] = []
        warm: set[tuple[bool, bool]] = set()
        for case in loads:
            kind = (case.streams > 0, case.is_large)
            drive, problem = _case(process, case)
            if kind not in warm:
                drive(WARM_UP_SECONDS)
                warm.add(kind)
            length = seconds * (LARGE_FACTOR if case.is_large else 1)
            levels.append(under_load([process], case.connections, partial(drive, length), problem))
        return Taken(ready, fresh, _when_idle([process]), tuple(levels))


def _case(process: Running, case: Case) -> tuple[Callable[[float], load.Load], Callable[[], str]]:
    """What puts a load on a component for so many seconds, and what is wrong with its answer."""
    if not case.streams:
        sent = body(case.is_large)
        return (
            lambda seconds: load.run(process.url, sent, case.connections, seconds),
            lambda: _wrong_rest(process, is_large=case.is_large),
        )
    data, port = message(case.is_large), process.ports["grpc"]
    answer_bytes = len(_ask(port, data))
    return (
        lambda seconds: grpc_load.run(port, PREDICT, data, case.connections, case.streams, seconds, answer_bytes),
        lambda: wrong_message(_ask(port, data), _rows(case.is_large)),
    )


def _rows(is_large: bool) -> Rows:
    return large() if is_large else SMALL


def _wrong_rest(process: Running, *, is_large: bool) -> str:
    return wrong_rest(*post(process, body(is_large)), _rows(is_large))


def _ask(port: int, data: bytes) -> bytes:
    """The answer to one call.

    Raises:
        ConnectionError: there is none; the message has the status of the call.
    """
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}", options=_MAX_MESSAGE) as channel:
        try:
            answer: bytes = channel.unary_unary(PREDICT)(
                data, timeout=load.REQUEST_TIMEOUT_SECONDS, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise ConnectionError(f"gRPC {error.code().name}: {error.details()}") from None
    return answer


def _tree(name: str, connections: tuple[int, ...], seconds: float) -> Taken:
    layout = LAYOUTS[name]
    with contextlib.ExitStack() as stack:
        nodes: dict[str, Running] = {}
        for node in NODES if layout.remote else ():
            nodes[node] = stack.enter_context(running(node_server(node, pinned=layout.pinned)))
        addresses = {node: f"http://127.0.0.1:{process.ports['http']}" for node, process in nodes.items()}
        for process in nodes.values():
            await_ready(process, partial(_not_alive, process))
        root = stack.enter_context(running(tree_server(addresses, pinned=layout.pinned)))
        everything = [*nodes.values(), root]
        await_ready(root, partial(wrong_tree, root))
        ready = time.monotonic() - everything[0].started
        fresh = _sum([process.memory() for process in everything])
        load.run(root.url, root.server.body, max(connections), WARM_UP_SECONDS)
        levels = [
            under_load(
                everything,
                count,
                partial(load.run, root.url, root.server.body, count, seconds),
                partial(wrong_tree, root),
            )
            for count in connections
        ]
        return Taken(ready, fresh, _when_idle(everything), tuple(levels))


def _not_alive(process: Running) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", process.ports["http"], timeout=load.REQUEST_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/ping")
        content = connection.getresponse().read()
    finally:
        connection.close()
    return "" if content == b"pong" else f"wrong answer {content[:150]!r}"


def wrong_tree(root: Running) -> str:
    """What is wrong with the answer of a tree; empty when it is right."""
    return wrong_rest(*post(root, root.server.body), TREE_ANSWER)


def _when_idle(processes: list[Running]) -> Memory:
    time.sleep(IDLE_SECONDS)
    return _sum([process.memory() for process in processes])


def _sum(parts: list[Memory]) -> Memory:
    return Memory(
        sum(part.processes for part in parts),
        sum(part.proportional_mib for part in parts),
        sum(part.resident_mib for part in parts),
    )
