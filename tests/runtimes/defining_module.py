"""A user's file with a function whose steps are given by name, for tests that import it."""

from __future__ import annotations

from typing import Any

import servegraph


def wrap(body: Any) -> list[Any]:
    return [body]


fn = servegraph.new_function("named")
fn.set_topology("flow").to(name="wrap", handler="wrap").respond()
