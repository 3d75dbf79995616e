"""The tables that are printed at the end."""

from __future__ import annotations

from typing import Any

from benchmarks.seldon import tables as seldon_tables
from benchmarks.texts import noisy, number, table
from benchmarks.tracking import tables as tracking_tables


def text(result: dict[str, Any]) -> str:
    """Everything that was measured, as plain text."""
    parts = [_machine(result["machine"])]
    if "inprocess" in result:
        parts.append(_inprocess(result["inprocess"]))
    if "http" in result:
        parts.append(_http(result["http"]))
    if "seldon" in result:
        parts.append(seldon_tables.text(result["seldon"]))
    if "tracking" in result:
        parts.append(tracking_tables.text(result["tracking"]))
    return "\n\n".join(parts)


def _machine(machine: dict[str, Any]) -> str:
    pinned = "load and server on a core each" if machine["pinned"] else "load and server not pinned"
    memory = machine["memory_kib"] / 1024 / 1024
    return (
        f"{machine['processor']}, {machine['cores']} cores, {memory:.0f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {pinned}; load average {machine['load_average']} at the start"
    )


def _inprocess(result: dict[str, Any]) -> str:
    head = ["in process, microseconds a call", "servegraph", "(best)", "mlrun", "(best)", "mlrun / servegraph"]
    rows = [
        [
            row["title"],
            number(row["servegraph_median_us"], 1),
            number(row["servegraph_best_us"], 1),
            number(row["mlrun_median_us"], 1),
            number(row["mlrun_best_us"], 1),
            number(row["mlrun_over_servegraph"], 2),
        ]
        for row in result["rows"]
    ]
    lines = [table(head, rows)]
    lines += [f"{side} {version}" for side, version in result["versions"].items()]
    lines += [f"{side} not run: {reason}" for side, reason in result["not_run"].items()]
    return "\n".join(lines)


def _http(result: dict[str, Any]) -> str:
    head = ["over HTTP, one worker", "conns", "requests/s", "p50 ms", "p99 ms", "CPU us", "of bare", "servegraph is"]
    head += ["not 2xx", "socket errors", "memory MiB", "ready s"]
    rows: list[list[str]] = []
    for row in result["rows"]:
        if rows and rows[-1][1] != str(row["connections"]):
            rows.append([""] * len(head))
        rows.append(
            [
                row["server"],
                str(row["connections"]),
                f"{row['requests_per_second']:,.0f}",
                number(row["p50_ms"], 2),
                number(row["p99_ms"], 2),
                number(row["cpu_us"], 0),
                number(row["of_bare"], 3),
                number(row["servegraph_times"], 2, "x"),
                str(row["failed_statuses"]),
                str(row["socket_errors"]),
                number(row["memory_mib"], 0),
                number(row["ready_seconds"], 1),
            ]
        )
    lines = [table(head, rows)]
    lines += [f"{name} not run: {reason}" for name, reason in result["not_run"].items()]
    lines += [f"{name}: {note}" for name, note in result["notes"].items()]
    lines += noisy([row["others"] for row in result["rows"]])
    return "\n".join(lines)
