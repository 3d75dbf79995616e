"""Metrics as Prometheus reads them: text exposition format 0.0.4."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from servegraph.monitoring.metric_store import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `render`'s answer."""

Sample = tuple[tuple[tuple[str, str], ...], Sequence[float]]
"""Labels of a child and its cells."""


def render(families: Iterable[tuple[Family, Iterable[Sample]]]) -> bytes:
    """The exposition of metrics, ordered by name and labels."""
    lines: list[str] = []
    for family, samples in sorted(families, key=lambda item: item[0].name):
        lines.append(f"# HELP {family.name} {_escape_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, cells in sorted(samples, key=lambda sample: sample[0]):
            if family.kind == "histogram":
                lines.extend(_histogram(family, labels, cells))
            else:
                lines.append(f"{family.name}{_labels(labels)} {number(cells[0])}")
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _histogram(family: Family, labels: tuple[tuple[str, str], ...], cells: Sequence[float]) -> Iterable[str]:
    count = 0.0
    for bound, cell in zip((*family.buckets, math.inf), cells, strict=False):
        count += cell
        yield f"{family.name}_bucket{_labels((*labels, ('le', number(bound))))} {number(count)}"
    yield f"{family.name}_sum{_labels(labels)} {number(cells[-1])}"
    # From the buckets, not from a cell of its own: so the two can never disagree.
    yield f"{family.name}_count{_labels(labels)} {number(count)}"


def number(value: float) -> str:
    """A number as the format writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape_value(value)}"' for name, value in labels) + "}"


def _escape_value(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
