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

MLRUN = "mlrun"
PEER_NAMES = [MLRUN, *(name for name in SERVERS if name not in (BARE, SERVEGRAPH))]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=("inprocess", "http"), help="one half of the benchmark")
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
        default=(1, 8, 32, 128),
        metavar="N,N",
        help="how many connections are open, one load for each number (default: 1,8,32,128)",
    )
    parser.add_argument("--seconds", type=_positive, default=3, metavar="N", help="length of each load (default: 3)")
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


def _counts(value: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in value.split(","))


def main() -> int:
    """Run what was asked for; 1 when servegraph itself could not be measured."""
    arguments = _arguments()
    start = time.monotonic()
    result: dict[str, Any] = {
        "machine": machine.description(),
        "settings": {"seconds": arguments.seconds, "rounds": arguments.rounds, "connections": arguments.connections},
    }
    if arguments.only != "http":
        sides = [SERVEGRAPH, *([MLRUN] if MLRUN in arguments.peers else [])]
        result["inprocess"] = inprocess_compare.compare(sides, arguments.rounds)
    if arguments.only != "inprocess":
        names = [BARE, SERVEGRAPH, *(name for name in SERVERS if name in arguments.peers)]
        result["http"] = http_compare.compare(names, arguments.connections, arguments.seconds, arguments.rounds)
    result["took_seconds"] = round(time.monotonic() - start)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{report.text(result)}\n\ntook {result['took_seconds']} s; as JSON in {arguments.json}")
    missing = any(SERVEGRAPH in result[part]["not_run"] for part in ("inprocess", "http") if part in result)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
