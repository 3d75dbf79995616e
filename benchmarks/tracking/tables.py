"""The table of this part."""

from __future__ import annotations

from typing import Any

from benchmarks.texts import noisy, number, table
from benchmarks.tracking.measure import OFF


def text(result: dict[str, Any]) -> str:
    """Everything that this part has measured."""
    head = ["tracking, one worker, 20 features", "stream", "requests/s", "of off", "asked", "p50 ms", "p99 ms"]
    head += ["of off", "asked", "CPU us", "failed", "requests", "recorded", "memory MiB"]
    lines: list[list[str]] = []
    for row in result["rows"]:
        on = row["stream"] != OFF
        if lines and not on:
            lines.append([""] * len(head))
        line = [row["case"], row["stream"], number(row["requests_per_second"], 0)]
        line += [number(row["throughput_of_off"], 3) if on else "", _asked(row["asked_throughput"], ">=") if on else ""]
        line += [number(row["p50_ms"], 2), number(row["p99_ms"], 2)]
        line += [number(row["p99_of_off"], 2) if on else "", _asked(row["asked_p99"], "<=") if on else ""]
        line += [number(row["cpu_us"], 0), number(row["failed"], 0), number(row["requests"], 0)]
        line += ["" if row["recorded"] is None else f"{row['recorded']:.1%}", number(row["memory_mib"], 0)]
        lines.append(line)
    below = [f"{name} not run: {reason}" for name, reason in result["not_run"].items()]
    below += noisy([row["others"] for row in result["rows"]])
    return "\n".join([*([table(head, lines)] if lines else []), *below])


def _asked(value: float | None, sign: str) -> str:
    return "" if value is None else f"{sign} {value:g}"
