"""`python -m benchmarks`: measure servegraph beside its peers and print one table."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from typing import Any

from benchmarks import machine, report
from benchmarks.environments import CHECKOUT
from benchmarks.http import compare as http_compare
from benchmarks.http.servers import BARE, SERVEGRAPH, SERVERS
from benchmarks.inprocess import compare as inprocess_compare
from benchmarks.seldon import compare as seldon_compare
from benchmarks.seldon.sides import LAYOUTS, SELDON
from benchmarks.tracking import compare as tracking_compare
from benchmarks.tracking.measure import CASES, OFF, name_of

MLRUN = "mlrun"
PARTS = ("inprocess", "http", "seldon", "tracking")
CONNECTIONS = (1, 8, 32, 128)
SELDON_CONNECTIONS = (1, 8, 32)
PEER_NAMES = [MLRUN, *(name for name in SERVERS if name not in (BARE, SERVEGRAPH))]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part of the benchmark")
    parser.add_argument(
        "--peers",
        type=_peers,
        default=PEER_NAMES,
        metavar="A,B",
        help=f"beside whom, of {', '.join(PEER_NAMES)} (default: all; 'none' for servegraph and the bare app alone)",
    )
    parser.add_argument(
        "--connections",
        type=_counts,
        metavar="N,N",
        help="how many connections are open, one load for each number (default: 1,8,32,128; for seldon 1,8,32)",
    )
    parser.add_argument("--seconds", type=_seconds, default=3.0, metavar="N", help="length of each load (default: 3)")
    parser.add_argument(
        "--outage-seconds",
        type=_seconds,
        default=60.0,
        metavar="N",
        help="length of the loads with a dead stream (default: 60)",
    )
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N", help="times everything is run (default: 3)")
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        default=CHECKOUT / "benchmarks" / "results" / "latest.json",
        metavar="FILE",
        help="where the figures go as JSON (default: benchmarks/results/latest.json)",
    )
    return parser.parse_args()


def _peers(value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip() and name.strip() != "none"]
    unknown = [name for name in names if name not in PEER_NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown peer {unknown[0]!r}; there are {', '.join(PEER_NAMES)}")
    return names


def _positive(value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above zero")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds above zero and below 3600")
    return seconds


def _counts(value: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in value.split(","))


def main() -> int:
    """Run what was asked for; 1 when servegraph itself could not be measured."""
    arguments = _arguments()
    start = time.monotonic()
    connections = arguments.connections or CONNECTIONS
    seldon_connections = arguments.connections or SELDON_CONNECTIONS
    result: dict[str, Any] = {
        "machine": machine.description(),
        "settings": {
            "seconds": arguments.seconds,
            "outage_seconds": arguments.outage_seconds,
            "rounds": arguments.rounds,
            "connections": connections,
            "seldon_connections": seldon_connections,
        },
    }
    if arguments.only in (None, "inprocess"):
        sides = [SERVEGRAPH, *([MLRUN] if MLRUN in arguments.peers else [])]
        result["inprocess"] = inprocess_compare.compare(sides, arguments.rounds)
    if arguments.only in (None, "http"):
        names = [BARE, SERVEGRAPH, *(name for name in SERVERS if name in arguments.peers)]
        result["http"] = http_compare.compare(names, connections, arguments.seconds, arguments.rounds)
    if arguments.only in (None, "seldon"):
        beside = SELDON in arguments.peers
        result["seldon"] = seldon_compare.compare(beside, seldon_connections, arguments.seconds, arguments.rounds)
    if arguments.only in (None, "tracking"):
        result["tracking"] = tracking_compare.compare(arguments.seconds, arguments.outage_seconds, arguments.rounds)
    result["took_seconds"] = round(time.monotonic() - start)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{report.text(result)}\n\ntook {result['took_seconds']} s; as JSON in {arguments.json}")
    tracked = {name_of(case, stream) for case in CASES for stream in (OFF, *case.streams)}
    ours = {SERVEGRAPH, *LAYOUTS, *tracked}
    return 1 if any(ours & set(result[part]["not_run"]) for part in PARTS if part in result) else 0


if __name__ == "__main__":
    sys.exit(main())
