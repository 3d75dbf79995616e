"""servegraph and MLRun in process: each side in a subprocess of its own, in turn, round after round."""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import machine
from benchmarks.environments import PEERS, NotRun

HERE = pathlib.Path(__file__).resolve().parent
SIDES = ("servegraph", "mlrun")
CASE_SECONDS = 0.2
SIDE_TIMEOUT_SECONDS = 300

TITLES = {
    "router": "router, one trivial model, server.test",
    **{f"sync_flow_{n}": f"sync flow, {n} step{'s' * (n > 1)}, server.test" for n in (1, 5, 10)},
    **{f"async_flow_{n}": f"async flow, {n} step{'s' * (n > 1)}, in the caller's loop" for n in (1, 5, 10)},
    **{f"branch_{n}": f"async flow, two branches, {n} row{'s' * (n > 1)}, mock" for n in (1, 1_000, 20_000)},
}
READ_ONLY = "_readonly"


def compare(sides: list[str], rounds: int) -> dict[str, Any]:
    """Run the sides in turn.

    Returns:
        `rows`: one a case, microseconds a call for each side (best of all repeats, median of the rounds' medians) and
        the median of the rounds' ratios; `versions` and `not_run` by side.
    """
    seen: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    not_run: dict[str, str] = {}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            if side in not_run:
                continue
            print(f"in-process round {number + 1}/{rounds}: {side}", flush=True)
            try:
                seen[side].append(_run(side))
            except NotRun as reason:
                not_run[side] = str(reason)
                print(f"  {side} not run: {reason}", flush=True)
    complete = {side: taken for side, taken in seen.items() if side not in not_run}
    versions = {side: f"{taken[0]['version']} on Python {taken[0]['python']}" for side, taken in complete.items()}
    return {"rows": _rows(complete), "versions": versions, "not_run": not_run}


def _run(side: str) -> dict[str, Any]:
    python = sys.executable if side == "servegraph" else str(PEERS[side].ensure())
    _, core = machine.cores()
    command = machine.pinned([python, str(HERE / f"{side}_side.py"), str(CASE_SECONDS)], core)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SIDE_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotRun(f"took more than {SIDE_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it wrote nothing"]
        raise NotRun(f"ended with status {done.returncode}: {lines[-1][:200]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _rows(seen: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for case, title in TITLES.items():
        for suffix in ("", READ_ONLY):
            servegraph = [taken["cases"].get(case + suffix) for taken in seen.get("servegraph", [])]
            mlrun = [taken["cases"].get(case) for taken in seen.get("mlrun", [])]
            if suffix and not any(servegraph):
                continue
            rows.append(row(case + suffix, title + (" (declared read-only)" if suffix else ""), servegraph, mlrun))
    return rows


def row(case: str, title: str, servegraph: list[Any], mlrun: list[Any]) -> dict[str, Any]:
    """One line of the table: a case on both sides, from what their rounds said of it."""
    row: dict[str, Any] = {"case": case, "title": title}
    for side, taken in (("servegraph", servegraph), ("mlrun", mlrun)):
        there = [one for one in taken if one]
        row[f"{side}_best_us"] = min((one["best_us"] for one in there), default=None)
        row[f"{side}_median_us"] = statistics.median(one["median_us"] for one in there) if there else None
    ratios = [
        theirs["median_us"] / ours["median_us"]
        for ours, theirs in zip(servegraph, mlrun, strict=False)
        if ours and theirs
    ]
    row["mlrun_over_servegraph"] = statistics.median(ratios) if ratios else None
    return row
