"""The tables of this part."""

from __future__ import annotations

from typing import Any

from benchmarks.http.servers import SERVEGRAPH
from benchmarks.seldon.sides import LAYOUTS, SELDON, TREE_IN_PROCESS
from benchmarks.texts import noisy, number, table


def text(result: dict[str, Any]) -> str:
    """Everything that this part has measured."""
    parts = [_component(result["component"]), _sides(result["sides"]), _tree(result["tree"])]
    parts = [part for part in parts if part]
    lines = [f"{name} not run: {reason}" for name, reason in result["not_run"].items()]
    lines += [f"{name}: {note}" for name, note in result["notes"].items()]
    others = [side["others"] for row in result["component"] for side in row["sides"].values() if side]
    others += [side["others"] for row in result["tree"] for side in row["layouts"].values() if side]
    lines += noisy(others)
    return "\n\n".join([*parts, "\n".join(lines)] if lines else parts)


def _component(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = ["identity component, defaults", "conns", "servegraph/s", "seldon/s", "times", "asked"]
    head += ["p50 ms", "seldon", "p99 ms", "seldon", "CPU us", "seldon", "failed", "seldon"]
    lines = []
    for row in rows:
        sides = [row["sides"][name] or {} for name in (SERVEGRAPH, SELDON)]
        line = [row["load"], row["connections"], *(number(side.get("requests_per_second"), 0) for side in sides)]
        line += [number(row["times"], 1, "x"), "" if row["asked"] is None else f"{row['asked']}x"]
        for key, digits in (("p50_ms", 2), ("p99_ms", 2), ("cpu_us", 0), ("failed", 0)):
            line += [number(side.get(key), digits) for side in sides]
        lines.append(line)
    return table(head, lines)


def _sides(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = ["processes and memory", "processes", "first answer s", "PSS MiB then", "RSS", "PSS MiB after load", "RSS"]
    lines = []
    for row in rows:
        name = row["side"]
        title = f"tree, {LAYOUTS[name].title}" if name in LAYOUTS else f"{name}, identity component"
        line = [title, str(row["processes"]), number(row["ready_seconds"], 2)]
        for when in ("fresh", "idle"):
            line += [number(row[f"{when}_{kind}_mib"], 0) for kind in ("proportional", "resident")]
        lines.append(line)
    return table(head, lines)


def _tree(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = ["tree of three levels, nodes", "conns", "requests/s", "in process is", "asked", "p50 ms", "p99 ms"]
    head += ["CPU us", "failed"]
    lines: list[list[str]] = []
    for row in rows:
        if lines:
            lines.append([""] * len(head))
        for name, layout in LAYOUTS.items():
            side = row["layouts"][name] or {}
            remote = name != TREE_IN_PROCESS
            line = [layout.title, str(row["connections"]), number(side.get("requests_per_second"), 0)]
            line += [number(row["times"][name], 1, "x") if remote else "", f"{row['asked']}x" if remote else ""]
            line += [number(side.get("p50_ms"), 2), number(side.get("p99_ms"), 2)]
            line += [number(side.get("cpu_us"), 0), number(side.get("failed"), 0)]
            lines.append(line)
    return table(head, lines)
