"""Everything that is compared in turn, round after round."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.environments import NotRun

T = TypeVar("T")


def in_turn(
    title: str, names: Sequence[str], rounds: int, measure: Callable[[str], T]
) -> tuple[list[dict[str, T]], dict[str, str]]:
    """Measure everything once a round; what fails drops out.

    Every other round goes backwards, so that a drift of the machine evens out.

    Args:
        title: the part of the benchmark, for the lines that tell how far it is.
        names: what is measured.
        rounds: how often.
        measure: measures one of them.

    Returns:
        For each round what was measured, by name; and for each name that dropped out the reason.
    """
    seen: list[dict[str, T]] = []
    not_run: dict[str, str] = {}
    for number in range(rounds):
        seen.append({})
        for name in names if number % 2 == 0 else names[::-1]:
            if name in not_run:
                continue
            print(f"{title} round {number + 1}/{rounds}: {name}", flush=True)
            try:
                seen[-1][name] = measure(name)
            except NotRun as reason:
                not_run[name] = str(reason)
            except Exception as error:
                traceback.print_exc()
                not_run[name] = f"{type(error).__name__}: {error}"
            if name in not_run:
                print(f"  {name} not run: {not_run[name]}", flush=True)
    return seen, not_run
