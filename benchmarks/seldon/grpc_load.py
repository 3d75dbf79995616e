"""Load on a gRPC server by h2load, or by a client in Python where there is none."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks import machine
from benchmarks.environments import NotRun
from benchmarks.load import REQUEST_TIMEOUT_SECONDS, Load, children_cpu_seconds
from benchmarks.seldon.payloads import frame

INSTALL_HINT = (
    "h2load is not installed, and the load over gRPC is a client in Python, which is the slower side of many pairs: "
    "on Debian and Ubuntu apt-get install nghttp2-client"
)
CLIENT = pathlib.Path(__file__).resolve().parent / "grpc_client.py"
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def has_h2load() -> bool:
    """Whether h2load is there."""
    return shutil.which("h2load") is not None


def run(
    port: int, method: str, message: bytes, connections: int, streams: int, seconds: float, answer_bytes: int
) -> Load:
    """Call the method with the message for that long; on the core for the load.

    Args:
        port: where the server listens.
        method: full name of the method.
        message: what is sent.
        connections: how many connections are open.
        streams: how many calls each has under way.
        seconds: how long.
        answer_bytes: length of the message that answers. h2load does not look at the status of a call, but a call
            that failed has no message; so what is missing in the bytes that came tells how many failed.

    Raises:
        NotRun: the client ended without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "frame").write_bytes(frame(message))
        (place / "message").write_bytes(message)
        if not has_h2load():
            return _by_client(place, port, method, connections, streams, seconds)
        command = ["h2load", f"-c{connections}", f"-m{streams}", "-t1", "-D", f"{max(1, round(seconds * 1000))}ms"]
        command += ["-d", str(place / "frame"), "--log-file", str(place / "log")]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        before = children_cpu_seconds()
        said = _output([*command, f"http://127.0.0.1:{port}{method}"], seconds)
        spent = children_cpu_seconds() - before
        latencies = _latencies((place / "log").read_text())
    return parsed(said, latencies, 5 + answer_bytes, spent)


def parsed(said: str, latencies: Sequence[float], frame_bytes: int, cpu_seconds: float) -> Load:
    """What h2load saw.

    Args:
        said: what it printed.
        latencies: milliseconds of each request.
        frame_bytes: length of the frame of a right answer.
        cpu_seconds: processor time that it took.

    Raises:
        NotRun: it printed something else.
    """
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m),", said, re.MULTILINE)
    requests = re.search(r" (\d+) done, \d+ succeeded, \d+ failed, (\d+) errored, (\d+) timeout", said)
    statuses = re.search(r"^status codes: (\d+) 2xx", said, re.MULTILINE)
    data = re.search(r"\((\d+)\) data$", said, re.MULTILINE)
    if not (finished and requests and statuses and data):
        raise NotRun(f"h2load gave no result: {said.strip()[-200:]}")
    done, errored, late = (int(number) for number in requests.groups())
    whole = int(data[1]) // frame_bytes
    return Load(
        requests_per_second=done / (float(finished[1]) * _SECONDS[finished[2]]),
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
        failed_statuses=max(0, done - min(whole, int(statuses[1]))),
        socket_errors=errored + late,
        requests=done,
        cpu_seconds=cpu_seconds,
    )


def _by_client(place: pathlib.Path, port: int, method: str, connections: int, streams: int, seconds: float) -> Load:
    numbers = (str(number) for number in (connections, streams, seconds))
    before = children_cpu_seconds()
    said = _output(
        [sys.executable, str(CLIENT), f"127.0.0.1:{port}", method, str(place / "message"), *numbers], seconds
    )
    spent = children_cpu_seconds() - before
    try:
        seen = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise NotRun(f"the client gave no result: {said.strip()[-200:]}") from None
    return Load(
        requests_per_second=len(seen["latencies_ms"]) / seen["seconds"],
        p50_ms=_percentile(seen["latencies_ms"], 50),
        p99_ms=_percentile(seen["latencies_ms"], 99),
        failed_statuses=seen["failed"],
        socket_errors=seen["unreachable"],
        requests=len(seen["latencies_ms"]),
        cpu_seconds=spent,
    )


def _output(command: list[str], seconds: float) -> str:
    core, _ = machine.cores()
    try:
        done = subprocess.run(
            machine.pinned(command, core),
            capture_output=True,
            text=True,
            timeout=seconds + 3 * REQUEST_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotRun(f"{pathlib.Path(command[0]).name} did not end in time") from None
    return done.stdout if done.returncode == 0 else done.stderr


def _latencies(log: str) -> list[float]:
    return [int(line.split("\t")[2]) / 1000 for line in log.splitlines()]


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
