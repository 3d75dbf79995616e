"""Turns millimetres into centimetres, and says how many rows it has seen."""

from __future__ import annotations

from typing import Any


class Scale:
    example_inputs = ((51, 35, 14, 2),)  # for the request that the server shows when it starts

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def transform_input(self, X: Any, names: list[str]) -> Any:
        return X * self.factor

    def tags(self) -> dict[str, Any]:
        return {"unit": "cm"}

    def metrics(self) -> list[dict[str, Any]]:
        return [{"type": "COUNTER", "key": "scaled_requests", "value": 1}]
