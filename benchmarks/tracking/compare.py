"""Every case without tracking and with each of its streams in turn, and what the rounds say together."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import load
from benchmarks.environments import NotRun
from benchmarks.http.measure import Level
from benchmarks.rounds import in_turn
from benchmarks.tracking.measure import CASES, OFF, Case, Taken, measure, name_of

Rounds = list[dict[str, Taken]]


def compare(seconds: float, outage_seconds: float, rounds: int) -> dict[str, Any]:
    """Measure every case once a round.

    Args:
        seconds: length of each load.
        outage_seconds: length of the loads during which the stream is dead, and of those that they are compared with.
        rounds: how often.

    Returns:
        `rows`: one for each case and stream, medians over the rounds, ratios taken within a round; `not_run`: what
        dropped out, with the reason.
    """
    sides = {name_of(case, stream): (case, stream) for case in CASES for stream in (OFF, *case.streams)}
    try:
        load.require_wrk()
    except NotRun as reason:
        return {"rows": [], "not_run": dict.fromkeys(sides, str(reason))}

    def one(name: str) -> Taken:
        case, stream = sides[name]
        return measure(case, stream, outage_seconds if case.is_outage else seconds)

    seen, not_run = in_turn("tracking", list(sides), rounds, one)
    kept = [{name: taken for name, taken in one.items() if name not in not_run} for one in seen]
    return {"rows": [row(kept, *sides[name]) for name in sides if name not in not_run], "not_run": not_run}


def row(rounds: Rounds, case: Case, stream: str) -> dict[str, Any]:
    """One line of the table: a case with one stream."""
    taken = [one[name_of(case, stream)] for one in rounds]
    levels = [one.level for one in taken]

    def median(value: Callable[[Level], float]) -> float:
        return statistics.median(value(level) for level in levels)

    def beside_off(value: Callable[[Level], float]) -> float | None:
        off = [one.get(name_of(case, OFF)) for one in rounds]
        pairs = [(value(a), value(b.level)) for a, b in zip(levels, off, strict=True) if b is not None]
        return statistics.median(a / b for a, b in pairs) if pairs and stream != OFF else None

    recorded = [one.recorded for one in taken if one.recorded is not None]
    return {
        "case": case.title,
        "stream": stream,
        "requests_per_second": median(lambda level: level.load.requests_per_second),
        "throughput_of_off": beside_off(lambda level: level.load.requests_per_second),
        "asked_throughput": case.asked_throughput,
        "p50_ms": median(lambda level: level.load.p50_ms),
        "p99_ms": median(lambda level: level.load.p99_ms),
        "p99_of_off": beside_off(lambda level: level.load.p99_ms),
        "asked_p99": case.asked_p99,
        "cpu_us": median(lambda level: level.cpu_us),
        "failed": sum(level.load.failed_statuses + level.load.socket_errors for level in levels),
        "requests": sum(level.load.requests for level in levels),
        "recorded": min(recorded) if recorded else None,
        "memory_mib": median(lambda level: level.memory_mib),
        "others": median(lambda level: level.others),
        "rounds_requests_per_second": [level.load.requests_per_second for level in levels],
        "rounds_p99_ms": [level.load.p99_ms for level in levels],
    }
