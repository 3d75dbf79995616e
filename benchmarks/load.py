"""Load on a server by wrk: one thread, a fixed number of connections, the same request again and again."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import resource
import shutil
import subprocess
import tempfile

from benchmarks import machine
from benchmarks.environments import NotRun

ANSWER_MARK = "benchmark-result "
INSTALL_HINT = "wrk is not installed; on Debian and Ubuntu: apt-get install wrk (elsewhere: https://github.com/wg/wrk)"
REQUEST_TIMEOUT_SECONDS = 10

# A long bracket of level four keeps any JSON from ending the string; wrk hands latencies in microseconds.
LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [====[%(body)s]====]

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '%(mark)s{"requests": %%d, "duration_us": %%d, "p50_us": %%d, "p99_us": %%d, "status": %%d, "socket": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50.0), latency:percentile(99.0),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw."""

    requests_per_second: float
    """Answers of any status, a second."""
    p50_ms: float
    """Half of the answers came within this time."""
    p99_ms: float
    """All but one in a hundred came within this time."""
    failed_statuses: int
    """Answers whose status was not 2xx or 3xx."""
    socket_errors: int
    """Connections that failed, broke or answered nothing within ten seconds."""
    requests: int
    """Answers in all."""
    cpu_seconds: float
    """Processor time that the load itself took."""


def require_wrk() -> None:
    """Raises NotRun, with what to install, when there is no wrk."""
    if shutil.which("wrk") is None:
        raise NotRun(INSTALL_HINT)


def run(url: str, body: bytes, connections: int, seconds: float) -> Load:
    """Post the body to the URL for that long; on the core for the load.

    Raises:
        NotRun: wrk ended without a result.
    """
    text = body.decode()
    if "]====]" in text:
        raise ValueError("the body would end its own Lua string")
    core, _ = machine.cores()
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "post.lua"
        script.write_text(LUA % {"body": text, "mark": ANSWER_MARK})
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", f"{REQUEST_TIMEOUT_SECONDS}s", "-s", str(script), url]
        before = children_cpu_seconds()
        try:
            done = subprocess.run(
                machine.pinned(command, core),
                capture_output=True,
                text=True,
                timeout=seconds + 3 * REQUEST_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotRun("wrk did not end in time") from None
    for line in done.stdout.splitlines():
        if line.startswith(ANSWER_MARK):
            return _load(json.loads(line.removeprefix(ANSWER_MARK)), children_cpu_seconds() - before)
    raise NotRun(f"wrk gave no result: {(done.stderr or done.stdout).strip()[-200:]}")


def children_cpu_seconds() -> float:
    """Processor time of all children that have ended; what one takes is the difference."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _load(seen: dict[str, int], cpu_seconds: float) -> Load:
    return Load(
        requests_per_second=seen["requests"] / (seen["duration_us"] / 1e6),
        p50_ms=seen["p50_us"] / 1000,
        p99_ms=seen["p99_us"] / 1000,
        failed_statuses=seen["status"],
        socket_errors=seen["socket"],
        requests=seen["requests"],
        cpu_seconds=cpu_seconds,
    )
