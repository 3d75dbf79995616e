"""What is measured in process, the same for both sides: names, bodies and the functions that are the steps."""

from __future__ import annotations

from typing import Any

FLOW_LENGTHS = (1, 5, 10)
BRANCH_ROWS = (1, 1_000, 20_000)
MODEL_PATH = "/v2/models/m/infer"
MODEL_BODY = {"inputs": [5]}


def add_one(body: dict[str, Any]) -> dict[str, Any]:
    """The trivial step. It counts, so that the answer shows that every step ran."""
    return {"x": body["x"] + 1}


def count_rows(body: dict[str, Any]) -> dict[str, Any]:
    """The step of a branch: looks at the body and leaves it as it is."""
    return {"rows": len(body["rows"])}


def passed_on(body: dict[str, Any]) -> dict[str, Any]:
    """The step before the branches."""
    return body


def rows_body(rows: int) -> dict[str, Any]:
    """A body of that many rows of four floats, every row an object of its own."""
    return {"rows": [[i + 0.25, i + 0.5, i + 0.75, i + 1.0] for i in range(rows)]}


def expect(got: object, wanted: object, case: str) -> None:
    """Stop the run when a side answers something else: the time of a wrong answer means nothing."""
    if got != wanted:
        raise SystemExit(f"{case}: wrong answer {got!r}, expected {wanted!r}")
