"""A process that writes metrics until it is told to stop or is killed: ``metrics_writer.py DIR SLOT ROUNDS``."""

from __future__ import annotations

import sys
from pathlib import Path

from servegraph.monitoring.metrics import MetricsRegistry


def main(directory: str, slot: str, rounds: str) -> None:
    registry = MetricsRegistry(Path(directory), int(slot))
    counter = registry.counter("done_total", "Done.", {"model": "iris"})
    histogram = registry.histogram("seconds", "Seconds.", buckets=(0.1, 1))
    gauge = registry.gauge("busy", "Busy.")
    gauge.set(1)
    for i in range(int(rounds)):
        counter.inc()
        histogram.observe(0.5)
        registry.counter("made_total", "Made.", {"number": str(i % 100)}).inc()
    sys.stdout.write("done\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
