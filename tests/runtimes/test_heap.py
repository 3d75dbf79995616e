"""The memory of a worker: garbage, arenas, and what is given back when it is idle."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from servegraph.runtimes.heap import Trimmer, limit_arenas, resident_bytes

MIB = 1024**2
needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's; needs Linux with it"
)


class AtOnce(Executor):
    """Runs what it is given in the caller's thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Process:
    """A process whose memory and time a test decides."""

    def __init__(self) -> None:
        self.size: int | None = 100 * MIB
        self.seconds = 0.0
        self.trims = 0
        self.trimmer = Trimmer(lambda: self.size, self.trim, lambda: self.seconds, AtOnce())

    def trim(self) -> None:
        self.trims += 1
        self.size = 105 * MIB

    def look(self, size_mib: int, *, used: float = 0.0, in_flight: int = 0) -> int:
        """How often memory has been given back after one more look."""
        self.size = size_mib * MIB
        self.seconds += used
        self.trimmer.look(in_flight)
        return self.trims


def test_memory_is_given_back_once_the_process_is_idle_after_it_has_grown() -> None:
    process = Process()
    assert process.look(100) == 0
    assert process.look(300, used=1.0) == 0
    assert process.look(300, in_flight=1) == 0
    assert process.look(300) == 1


def test_memory_that_stays_in_use_is_given_back_once_only() -> None:
    process = Process()
    process.look(100)
    assert process.look(300) == 1
    assert process.look(105) == process.look(120) == 1
    assert process.look(121) == 2


def test_memory_that_has_hardly_grown_is_left_alone() -> None:
    process = Process()
    assert process.look(100) == process.look(115) == 0
    assert process.look(90) == process.look(105) == 0
    assert process.look(106) == 1


def test_memory_that_nobody_can_tell_is_left_alone() -> None:
    process = Process()
    process.size = None
    process.trimmer.look(0)
    assert process.trims == 0


def test_arenas_are_left_alone_where_the_environment_says_how_many() -> None:
    assert not limit_arenas({"MALLOC_ARENA_MAX": "8"})
    assert not limit_arenas({"GLIBC_TUNABLES": "glibc.malloc.arena_max=8"})


@needs_glibc
def test_memory_of_threads_that_are_done_goes_back_to_the_system() -> None:
    script = """if True:
    import threading, time
    from concurrent.futures import ThreadPoolExecutor
    from servegraph.runtimes.heap import Trimmer, limit_arenas, resident_bytes
    assert limit_arenas({})
    trimmer = Trimmer(used=lambda: 0.0)
    trimmer.look(0)
    before = resident_bytes()
    def fill():
        parts = [bytes(100_000) for _ in range(400)]
        parts.append(bytes(1000))  # on top of the others, so that only a trim gives them back
        kept.append(parts.pop())
    kept = []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fill(), range(16)))
    for _ in range(100):
        trimmer.look(0)
        if trimmer._work is not None:
            trimmer._work.result()
            break
        if resident_bytes() - before < 16 * 1024**2:
            break
    assert resident_bytes() - before < 24 * 1024**2, resident_bytes() - before
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which Linux has")
def test_resident_bytes_are_those_of_this_process() -> None:
    size = resident_bytes()
    assert size is not None
    assert 10 * MIB < size < 100_000 * MIB
