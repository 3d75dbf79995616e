"""The machine: which core does what, and what it was like when the figures were taken."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import shutil

TICKS = os.sysconf("SC_CLK_TCK")


def pinned(command: list[str], core: int | None) -> list[str]:
    """The command held to one core, where `taskset` is there and there are two cores or more."""
    if core is None or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(core), *command]


def cores() -> tuple[int | None, int | None]:
    """The core for the load and the core for the server; `None` twice on a machine with a single core."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return None, None
    return usable[0], usable[-1]


@dataclasses.dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of processor time of all cores since the machine started."""

    total: float
    """Of any kind, idle too."""
    busy: float
    """Spent on work, of whomever."""
    stolen: float
    """That the hypervisor gave to others."""

    def __sub__(self, earlier: CpuTimes) -> CpuTimes:
        return CpuTimes(self.total - earlier.total, self.busy - earlier.busy, self.stolen - earlier.stolen)


def cpu_times() -> CpuTimes:
    """The times until now."""
    line = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, idle, waiting, hard, soft, stolen = (int(field) / TICKS for field in line.split()[1:9])
    busy = user + nice + system + hard + soft
    return CpuTimes(busy + idle + waiting + stolen, busy, stolen)


def process_cpu_seconds(pid: int) -> float:
    """Processor time of a process, with its threads and the children it has waited for; 0 once it is gone."""
    try:
        content = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = content.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def description() -> dict[str, object]:
    """What to print beside figures: processor, cores, memory, kernel, Python, load average at the start."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_kib": int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
        "pinned": shutil.which("taskset") is not None and cores()[0] is not None,
    }


def _field(path: str, name: str) -> str:
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
