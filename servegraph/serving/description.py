"""What a step that answers paths of its own tells of itself, for whoever shows a server to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

DESCRIBE: Final = "describe_self"
"""The method of such a step; it gives a `SelfDescription`, and is asked once the models are loaded."""
EXAMPLE_INPUTS: Final = "example_inputs"
"""A model's or component's attribute: rows for an example request."""


@dataclass(frozen=True, slots=True)
class SelfDescription:
    """The paths of a step, and a request that it answers."""

    path: str
    """Of the example request."""
    body: Any = None
    """What the example posts; ``None`` is a GET."""
    also: str = ""
    """Another path that means the same."""
    rows: tuple[tuple[str, str], ...] = ()
    """What is served, line by line: a word for it, and what it is; empty where the graph's own steps say it."""
    openapi: Mapping[str, Any] = field(default_factory=dict)
    """An OpenAPI document with its ``paths`` and ``components``."""
    title: str = ""
    """What is served, in a word; empty for the function's name."""
