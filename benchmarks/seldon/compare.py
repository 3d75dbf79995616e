"""Both runtimes and all layouts of the tree in turn, and what the rounds say together."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import load
from benchmarks.environments import NotRun
from benchmarks.http.measure import Level
from benchmarks.http.servers import SERVEGRAPH
from benchmarks.rounds import in_turn
from benchmarks.seldon import grpc_load
from benchmarks.seldon.measure import Taken, cases, measure
from benchmarks.seldon.sides import LAYOUTS, SELDON, SIDES, TREE_IN_PROCESS

Rounds = list[dict[str, Taken]]

TREE_ASKED = 20


def compare(beside_seldon: bool, connections: tuple[int, ...], seconds: float, rounds: int) -> dict[str, Any]:
    """Measure every side once a round.

    Args:
        beside_seldon: whether Seldon's own runtime is measured too.
        connections: how many connections the loads over REST open.
        seconds: length of each load.
        rounds: how often.

    Returns:
        `component`: one row for each load; `tree`: one for each number of connections; `sides`: processes, memory and
        start of each side; medians over the rounds, ratios taken within a round; `not_run`: what dropped out, with
        the reason; `notes`.
    """
    names = [SERVEGRAPH, *([SELDON] if beside_seldon else []), *LAYOUTS]
    nothing: dict[str, Any] = {"component": [], "tree": [], "sides": [], "notes": {}}
    try:
        load.require_wrk()
    except NotRun as reason:
        return nothing | {"not_run": dict.fromkeys(names, str(reason))}
    seen, not_run = in_turn("seldon", names, rounds, lambda name: measure(name, connections, seconds))
    kept = [{name: taken for name, taken in one.items() if name not in not_run} for one in seen]
    notes = {name: side.notes for name, side in SIDES.items() if name in kept[0]}
    if not grpc_load.has_h2load():
        notes["gRPC"] = grpc_load.INSTALL_HINT
    return {
        "component": [
            {"load": case.title, "connections": case.load_text, "asked": case.asked, **component_row(kept, index)}
            for index, case in enumerate(cases(connections))
        ],
        "tree": [{"connections": count, **tree_row(kept, index)} for index, count in enumerate(connections)],
        "sides": [side_row(kept, name) for name in names if name in kept[0]],
        "not_run": not_run,
        "notes": notes,
    }


def component_row(rounds: Rounds, index: int) -> dict[str, Any]:
    """Both runtimes under one load."""
    sides = {name: side_level(rounds, name, index) for name in SIDES}
    return {"sides": sides, "times": ratio(rounds, SERVEGRAPH, SELDON, index)}


def tree_row(rounds: Rounds, index: int) -> dict[str, Any]:
    """The tree in all layouts at one number of connections; ``times`` is how often the one in process is as fast."""
    layouts = {name: side_level(rounds, name, index) for name in LAYOUTS}
    times = {name: ratio(rounds, TREE_IN_PROCESS, name, index) for name in LAYOUTS if name != TREE_IN_PROCESS}
    return {"layouts": layouts, "asked": TREE_ASKED, "times": times}


def side_level(rounds: Rounds, name: str, index: int) -> dict[str, Any] | None:
    """What a side did under one load; ``None`` where it was not run."""
    levels = [one[name].levels[index] for one in rounds if name in one]
    if not levels:
        return None

    def median(value: Callable[[Level], float]) -> float:
        return statistics.median(value(level) for level in levels)

    return {
        "requests_per_second": median(lambda one: one.load.requests_per_second),
        "p50_ms": median(lambda one: one.load.p50_ms),
        "p99_ms": median(lambda one: one.load.p99_ms),
        "cpu_us": median(lambda one: one.cpu_us),
        "failed": sum(one.load.failed_statuses + one.load.socket_errors for one in levels),
        "others": median(lambda one: one.others),
        "rounds_requests_per_second": [one.load.requests_per_second for one in levels],
    }


def ratio(rounds: Rounds, upper: str, lower: str, index: int) -> float | None:
    """Median over the rounds of one side's throughput over another's in the same round; ``None`` without both."""
    pairs = [
        (one[upper].levels[index].load.requests_per_second, one[lower].levels[index].load.requests_per_second)
        for one in rounds
        if upper in one and lower in one
    ]
    ratios = [above / below for above, below in pairs if below > 0]
    return statistics.median(ratios) if ratios else None


def side_row(rounds: Rounds, name: str) -> dict[str, Any]:
    """Processes, memory and start of a side."""
    taken = [one[name] for one in rounds if name in one]

    def median(value: Callable[[Taken], float]) -> float:
        return statistics.median(value(one) for one in taken)

    return {
        "side": name,
        "processes": round(median(lambda one: one.idle.processes)),
        "ready_seconds": median(lambda one: one.ready_seconds),
        "fresh_proportional_mib": median(lambda one: one.fresh.proportional_mib),
        "fresh_resident_mib": median(lambda one: one.fresh.resident_mib),
        "idle_proportional_mib": median(lambda one: one.idle.proportional_mib),
        "idle_resident_mib": median(lambda one: one.idle.resident_mib),
    }
