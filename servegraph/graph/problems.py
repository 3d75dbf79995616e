"""What a check of a graph finds, and what it knows of a step's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from servegraph.graph.steps import QueueStep, Step

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or looks wrong, in a graph."""

    level: Level
    """``error``: the graph will not run, or not as written; ``warning``: it may be meant."""
    step: str | None
    """The step, or ``router/route``; None for the graph itself."""
    code: str
    """A short name of the kind of problem, such as ``unknown-step``; stays the same between versions."""
    message: str
    """What is wrong and what would be right."""

    def __str__(self) -> str:
        where = f"step {self.step!r}: " if self.step else ""
        return f"{self.level}: {where}{self.message} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Traits:
    """What a step's code does to the way of an event; None is "not known without importing it"."""

    chooses: bool | None
    """It says which of the following steps get the event."""
    merges: bool | None
    """It joins the branches of a request into one event."""
    filters: bool | None
    """It is there to end some events."""


PLAIN = Traits(chooses=False, merges=False, filters=False)
UNKNOWN = Traits(chooses=None, merges=None, filters=None)

TraitsOf = Callable[[Step], Traits]


def traits_of_target(target: Any) -> Traits:
    """The traits of a class, an object or a function."""
    from servegraph.graph.builtin import Filter

    kind = target if isinstance(target, type) else type(target)
    return Traits(
        chooses=callable(getattr(target, "select_outlets", None)),
        merges=getattr(target, "merges", False) is True,
        filters=issubclass(kind, Filter),
    )


def known_traits(step: Step) -> Traits:
    """The traits of a step, as far as they can be told without resolving names."""
    if isinstance(step, QueueStep):
        return PLAIN
    if isinstance(step.class_name, str):
        return UNKNOWN
    return PLAIN if step.class_name is None else traits_of_target(step.class_name)
