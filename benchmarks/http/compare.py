"""The servers in turn, round after round, and what the rounds say together."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import load
from benchmarks.environments import NotRun
from benchmarks.http.measure import Measurement, measure
from benchmarks.http.servers import BARE, SERVEGRAPH, SERVERS
from benchmarks.rounds import in_turn

Rounds = list[dict[str, Measurement]]


def compare(names: list[str], connections: tuple[int, ...], seconds: float, rounds: int) -> dict[str, Any]:
    """Measure every named server once a round.

    Returns:
        `rows`: one for each server and number of connections, medians over the rounds, ratios taken within a round;
        `not_run`: the servers that dropped out, with the reason.
    """
    try:
        load.require_wrk()
    except NotRun as reason:
        return {"rows": [], "not_run": dict.fromkeys(names, str(reason)), "notes": {}}
    seen, not_run = in_turn("http", names, rounds, lambda name: measure(SERVERS[name], connections, seconds))
    measured = [name for name in names if name not in not_run]
    rows = [row(seen, name, level) for level in range(len(connections)) for name in measured]
    return {"rows": rows, "not_run": not_run, "notes": {name: SERVERS[name].notes for name in measured}}


def row(rounds: Rounds, name: str, level: int) -> dict[str, Any]:
    """One line of the table: a server at one of the numbers of connections."""
    taken = [one[name] for one in rounds if name in one]
    levels = [measurement.levels[level] for measurement in taken]

    def median(value: Callable[[Any], float]) -> float:
        return statistics.median(value(one) for one in levels)

    return {
        "server": name,
        "connections": levels[0].connections,
        "requests_per_second": median(lambda one: one.load.requests_per_second),
        "p50_ms": median(lambda one: one.load.p50_ms),
        "p99_ms": median(lambda one: one.load.p99_ms),
        "of_bare": _ratio(rounds, name, BARE, level),
        "servegraph_times": _ratio(rounds, SERVEGRAPH, name, level),
        "failed_statuses": sum(one.load.failed_statuses for one in levels),
        "socket_errors": sum(one.load.socket_errors for one in levels),
        "memory_mib": median(lambda one: one.memory_mib),
        "ready_seconds": statistics.median(one.ready_seconds for one in taken),
        "cpu_us": median(lambda one: one.cpu_us),
        "others": median(lambda one: one.others),
        "rounds_requests_per_second": [one.load.requests_per_second for one in levels],
    }


def _ratio(rounds: Rounds, upper: str, lower: str, level: int) -> float | None:
    """Median over the rounds of one server's throughput over another's in the same round; `None` without both."""
    ratios = [
        one[upper].levels[level].load.requests_per_second / one[lower].levels[level].load.requests_per_second
        for one in rounds
        if upper in one and lower in one and one[lower].levels[level].load.requests_per_second > 0
    ]
    return statistics.median(ratios) if ratios else None
