"""One server measured once: ready, right, under load at each number of connections, still right, gone."""

from __future__ import annotations

import dataclasses
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Sequence

from benchmarks import load, machine
from benchmarks.environments import NotRun
from benchmarks.http.processes import Running, running
from benchmarks.http.servers import SUMS, Server

READY_SECONDS = 120
WARM_UP_SECONDS = 1
WARM_UP_CONNECTIONS = 8
TOLERANCE = 1e-9

Problem = Callable[[], str]
"""What is wrong with a server's answer; empty when it is right."""


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """What was seen at one number of connections."""

    connections: int
    """How many connections were open, each with one request at a time."""
    load: load.Load
    """Throughput, latency and errors."""
    memory_mib: float
    """Memory of all the server's processes right after the load."""
    cpu_us: float
    """Processor time of the server for each answer, in microseconds; steadier than throughput on a busy machine."""
    others: float
    """Share of the machine's time that neither the server nor the load used: other programs and the hypervisor."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """What was seen of one server in one round."""

    ready_seconds: float
    """From the start of the process to the first right answer."""
    levels: tuple[Level, ...]
    """One entry for each number of connections."""


def measure(server: Server, connections: tuple[int, ...], seconds: float) -> Measurement:
    """Start, check, load, check and end the server.

    Raises:
        NotRun: it did not start, was not ready in time, or answered something else.
    """
    with running(server) as process:
        ready_seconds = await_ready(process)
        load.run(process.url, server.body, WARM_UP_CONNECTIONS, WARM_UP_SECONDS)
        levels = tuple(_measure_level(process, count, seconds) for count in connections)
        return Measurement(ready_seconds, levels)


def _measure_level(process: Running, connections: int, seconds: float) -> Level:
    def drive() -> load.Load:
        return load.run(process.url, process.server.body, connections, seconds)

    return under_load([process], connections, drive, lambda: wrong_answer(process))


def under_load(
    processes: Sequence[Running], connections: int, drive: Callable[[], load.Load], problem: Problem
) -> Level:
    """What is seen of servers while a load is on them.

    Args:
        processes: those whose time and memory count.
        connections: how many connections the load opens.
        drive: puts the load on them.
        problem: what is wrong with their answer; asked before and after the load.

    Raises:
        NotRun: one has ended, or the answer is wrong.
    """
    _refuse(processes, problem, "before the load")
    machine_before, server_before = machine.cpu_times(), sum(p.cpu_seconds() for p in processes)
    seen = drive()
    server = sum(p.cpu_seconds() for p in processes) - server_before
    spent = machine.cpu_times() - machine_before
    others = max(0.0, spent.busy + spent.stolen - server - seen.cpu_seconds) / max(spent.total, 1e-9)
    memory = sum(p.memory_mib() for p in processes)
    _refuse(processes, problem, f"after the load of {connections} connections")
    return Level(connections, seen, memory, server / max(seen.requests, 1) * 1e6, others)


def await_ready(process: Running, problem: Problem | None = None) -> float:
    """Seconds from the start to the first right answer.

    Args:
        process: the server.
        problem: what is wrong with its answer; when not given, that of the two sums.

    Raises:
        NotRun: there is none in time.
    """
    ask = problem or (lambda: wrong_answer(process))
    deadline = process.started + READY_SECONDS
    while True:
        process.refuse_ended()
        wrong = _told(ask)
        if not wrong:
            return time.monotonic() - process.started
        if time.monotonic() > deadline:
            raise NotRun(f"not ready within {READY_SECONDS} s: {wrong}")
        time.sleep(0.02)


def _refuse(processes: Sequence[Running], problem: Problem, when: str) -> None:
    for process in processes:
        process.refuse_ended()
    wrong = _told(problem)
    if wrong:
        raise NotRun(f"{when}: {wrong}")


def _told(problem: Problem) -> str:
    try:
        return problem()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"


def wrong_answer(process: Running) -> str:
    """What is wrong with the server's answer; empty when it is the two sums."""
    status, content = post(process, process.server.body)
    if status != 200:
        return f"status {status}: {content[:150].decode(errors='replace')}"
    try:
        sums = process.server.sums(json.loads(content))
        right = len(sums) == len(SUMS) and all(abs(a - b) < TOLERANCE for a, b in zip(sums, SUMS, strict=True))
    except (ValueError, KeyError, IndexError, TypeError):
        right = False
    return "" if right else f"wrong answer {content[:150].decode(errors='replace')}"


def post(process: Running, body: bytes) -> tuple[int, bytes]:
    """Status and content of the answer to one JSON body."""
    url = urllib.parse.urlsplit(process.url)
    connection = http.client.HTTPConnection("127.0.0.1", process.ports["http"], timeout=load.REQUEST_TIMEOUT_SECONDS)
    try:
        connection.request("POST", url.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
