"""How tables and their figures are written."""

from __future__ import annotations

from collections.abc import Sequence

QUIET_SHARE = 0.05


def noisy(others: Sequence[float]) -> list[str]:
    """What to say when other programs took so large a share of the machine that the figures are in doubt."""
    most = max(others, default=0.0)
    if most <= QUIET_SHARE:
        return []
    return [f"other programs took up to {most:.0%} of the machine: measure again when it is quiet"]


def number(value: float | None, digits: int, unit: str = "") -> str:
    """A figure with so many digits behind the point; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns with the first to the left and all others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
