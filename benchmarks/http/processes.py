"""A server's processes: started on a clean port, found again wherever they went, measured, and ended to the last one.

Every process of a run carries a mark in its environment. Some servers put their workers into sessions of their own or
let them be adopted by init; the mark finds them where process groups and parents do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

from benchmarks import machine
from benchmarks.environments import CHECKOUT, PEERS, NotRun
from benchmarks.http.servers import Server

MARK = "BENCHMARK_MARK"
LOGS = CHECKOUT / "benchmarks" / "results" / "logs"
END_SECONDS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """What the processes of a server have in memory."""

    processes: int
    """How many there are."""
    proportional_mib: float
    """Their memory, where pages that several of them have count once."""
    resident_mib: float
    """Their memory, where such pages count for each of them."""


class Running:
    """A server that was started, until it is ended."""

    def __init__(self, server: Server) -> None:
        self.ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
        for port in self.ports.values():
            refuse_listener(port)
        self.server = server
        self.url = f"http://127.0.0.1:{self.ports['http']}{server.path}"
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = LOGS / f"{server.name}.log"
        self.started = time.monotonic()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = PEERS[self.server.environment] if self.server.environment else None
        python = pathlib.Path(sys.executable) if environment is None else environment.ensure()
        places = {"python": str(python), "bin": str(python.parent), "models": str(self.server.models)}
        places |= {name: str(port) for name, port in self.ports.items()}
        command = [part.format(**places) for part in self.server.command]
        name, _, value = self._mark.partition("=")
        variables = {key: text.format(**places) for key, text in self.server.variables.items()}
        _, core = machine.cores()
        self.started = time.monotonic()  # an installation does not count
        with self.log.open("wb") as log:
            try:
                return subprocess.Popen(
                    machine.pinned(command, core if self.server.pinned else None),
                    env={**os.environ, **variables, name: value},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise NotRun(f"cannot start: {error}") from None

    def refuse_ended(self) -> None:
        """Raises NotRun, with the last line it wrote, when the server's first process has ended."""
        status = self._process.poll()
        if status is not None:
            raise NotRun(f"ended with status {status}: {self.last_line()}")

    def last_line(self) -> str:
        """The last line the server wrote."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it wrote nothing"

    def process_ids(self) -> list[int]:
        """Every living process of this server."""
        return sorted(_marked(self._mark.encode()))

    def memory_mib(self) -> float:
        """Proportional set size of all its processes: shared pages are counted once."""
        return self.memory().proportional_mib

    def memory(self) -> Memory:
        """What all its processes have in memory now."""
        ids = self.process_ids()
        sizes = [_sizes_kib(pid) for pid in ids]
        return Memory(len(ids), sum(s["Pss"] for s in sizes) / 1024, sum(s["Rss"] for s in sizes) / 1024)

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        return sum(machine.process_cpu_seconds(pid) for pid in self.process_ids())

    def end(self) -> None:
        """End every process: politely where that works, then by force."""
        if self.server.ends_on_sigterm and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + END_SECONDS
            while self.process_ids() and time.monotonic() < deadline:
                self._process.poll()  # reaps it, so that it leaves the list
                time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in self.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(timeout=END_SECONDS)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Running]:
    """Start a server, and end it whatever happens."""
    process = Running(server)
    try:
        yield process
    finally:
        process.end()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def refuse_listener(port: int) -> None:
    """Raises NotRun when anything listens on the port, on any address.

    Binding it would not tell: with SO_REUSEPORT a server of an earlier run keeps its part of the connections.
    """
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = pathlib.Path(table)
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                raise NotRun(f"something already listens on port {port}")


def _marked(mark: bytes) -> Iterator[int]:
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if mark in variables:
            yield int(entry.name)


def _sizes_kib(pid: int) -> dict[str, int]:
    """The proportional and the resident size of a process; 0 once it is gone."""
    sizes = {"Pss": 0, "Rss": 0}
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return sizes
    for line in lines:
        name, _, value = line.partition(":")
        if name in sizes:
            sizes[name] = int(value.split()[0])
    return sizes
