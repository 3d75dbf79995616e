"""One server measured once: ready, right, under load at each number of connections, still right, gone."""

from __future__ import annotations

import dataclasses
import http.client
import json
import time
import urllib.parse

from benchmarks import load, machine
from benchmarks.environments import NotRun
from benchmarks.http.processes import Running, running
from benchmarks.http.servers import SUMS, Server

READY_SECONDS = 120
WARM_UP_SECONDS = 1
WARM_UP_CONNECTIONS = 8
TOLERANCE = 1e-9


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
    _refuse_wrong_answer(process, "before the load")
    machine_before, server_before = machine.cpu_times(), process.cpu_seconds()
    seen = load.run(process.url, process.server.body, connections, seconds)
    server = process.cpu_seconds() - server_before
    spent = machine.cpu_times() - machine_before
    others = max(0.0, spent.busy + spent.stolen - server - seen.cpu_seconds) / max(spent.total, 1e-9)
    memory = process.memory_mib()
    _refuse_wrong_answer(process, f"after the load of {connections} connections")
    return Level(connections, seen, memory, server / max(seen.requests, 1) * 1e6, others)


def await_ready(process: Running) -> float:
    """Seconds from the start to the first right answer. Raises NotRun when there is none in time."""
    deadline = process.started + READY_SECONDS
    problem = "no answer"
    while time.monotonic() < deadline:
        process.refuse_ended()
        try:
            problem = wrong_answer(process)
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            return time.monotonic() - process.started
        time.sleep(0.02)
    raise NotRun(f"not ready within {READY_SECONDS} s: {problem}")


def _refuse_wrong_answer(process: Running, when: str) -> None:
    process.refuse_ended()
    try:
        problem = wrong_answer(process)
    except (OSError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise NotRun(f"{when}: {problem}")


def wrong_answer(process: Running) -> str:
    """What is wrong with the server's answer; empty when it is the two sums."""
    url = urllib.parse.urlsplit(process.url)
    connection = http.client.HTTPConnection("127.0.0.1", process.ports["http"], timeout=load.REQUEST_TIMEOUT_SECONDS)
    try:
        connection.request("POST", url.path, process.server.body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        return f"status {response.status}: {content[:150].decode(errors='replace')}"
    try:
        sums = process.server.sums(json.loads(content))
        right = len(sums) == len(SUMS) and all(abs(a - b) < TOLERANCE for a, b in zip(sums, SUMS, strict=True))
    except (ValueError, KeyError, IndexError, TypeError):
        right = False
    return "" if right else f"wrong answer {content[:150].decode(errors='replace')}"
