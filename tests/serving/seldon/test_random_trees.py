"""Random trees against a simple interpreter of Seldon's rules that shares no code with the engine's."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tree_kit import Add, AddAsync, Route, function_of, rows

KINDS = ("MODEL", "TRANSFORMER", "OUTPUT_TRANSFORMER", "ROUTER", "COMBINER")


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """A tree of up to three levels; each node knows its number and what it chooses."""
    counter = iter(range(1000))

    def make(depth: int) -> dict[str, Any]:
        number = next(counter)
        count = draw(st.integers(0, 3)) if depth < 3 else 0
        children = [make(depth + 1) for _ in range(count)]
        kinds = KINDS if children else ("MODEL", "TRANSFORMER", "OUTPUT_TRANSFORMER")
        spec: dict[str, Any] = {"name": f"n{number}", "type": draw(st.sampled_from(kinds))}
        spec["by"] = draw(st.integers(-5, 5))
        spec["to"] = draw(st.integers(-2, count - 1)) if spec["type"] == "ROUTER" else -1
        spec["async"] = draw(st.booleans())
        spec["tagged"] = draw(st.booleans())
        if children:
            spec["children"] = children
        return spec

    return make(0)


def graph_and_code(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The node of a deployment, and the objects of it and of those below it."""
    made: dict[str, Any] = {}
    spec = {"name": tree["name"], "type": tree["type"]}
    name = tree["name"] if tree["tagged"] else ""
    if tree["type"] == "ROUTER":
        made[tree["name"]] = Route(tree["to"])
    else:
        made[tree["name"]] = (AddAsync if tree["async"] else Add)(tree["by"], name)
    below = [graph_and_code(child) for child in tree.get("children", [])]
    if below:
        spec["children"] = [graph for graph, _ in below]
        for _, code in below:
            made.update(code)
    return spec, made


class Interpreter:
    """What a tree has to answer, written the slow and plain way."""

    def __init__(self) -> None:
        self.routing: dict[str, int] = {}
        self.path: set[str] = set()
        self.metrics: list[str] = []

    def run(self, tree: dict[str, Any], value: Any, tags: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The value and all tags after a node."""
        kind, name, children = tree["type"], tree["name"], tree.get("children", [])
        self.path.add(name)
        if kind in ("MODEL", "TRANSFORMER"):
            value, tags = self.add(tree, value, tags)
        if children:
            chosen = -1
            if kind == "ROUTER":
                chosen = tree["to"]
                tags = {**tags, "router": chosen}
                self.metrics.append("chosen")
            self.routing[name] = chosen
            if chosen != -2:
                value, tags = self.below(tree, children if chosen == -1 else [children[chosen]], value, tags)
        if kind == "OUTPUT_TRANSFORMER":
            value, tags = self.add(tree, value, tags)
        return value, tags

    def below(self, tree: Any, children: list[Any], value: Any, tags: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        values, merged = [], dict(tags)
        for child in children:
            answer, after = self.run(child, value, dict(tags))
            values.append(answer)
            merged.update({k: v for k, v in after.items() if k not in tags or tags[k] != v})
        if tree["type"] != "COMBINER":
            return values[0], merged
        if tree["tagged"]:
            merged["last"] = tree["name"]
        return np.sum(values, axis=0) + tree["by"], merged

    def add(self, tree: Any, value: Any, tags: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if tree["tagged"]:
            self.metrics.append(tree["name"])
            tags = {**tags, tree["name"]: tree["by"], "last": tree["name"]}
        return value + tree["by"], tags


@given(tree=trees(), values=st.lists(st.integers(-100, 100), min_size=1, max_size=3))
def test_random_tree_answers_as_the_interpreter_says(tree: dict[str, Any], values: list[int]) -> None:
    graph, code = graph_and_code(tree)
    expected = Interpreter()
    value, tags = expected.run(tree, np.array([values], float), {"last": "caller"})
    body = {"data": {"ndarray": [[float(v) for v in values]]}, "meta": {"puid": "p", "tags": {"last": "caller"}}}
    with function_of(graph, code).to_mock_server() as server:
        answer = server.test("/api/v1.0/predictions", body)
    assert rows(answer) == value.tolist()
    meta = answer["meta"]
    assert meta.get("routing", {}) == expected.routing
    assert set(meta["requestPath"]) == expected.path
    assert meta["tags"] == tags
    assert [m["key"] for m in meta.get("metrics", [])] == expected.metrics


@given(tree=trees())
def test_feedback_on_an_answer_reaches_just_the_nodes_on_its_way(tree: dict[str, Any]) -> None:
    graph, code = graph_and_code(tree)
    with function_of(graph, code).to_mock_server() as server:
        answer = server.test("/api/v1.0/predictions", {"data": {"ndarray": [[1.0]]}})
        server.test(
            "/api/v1.0/feedback", {"response": {"meta": {"routing": answer["meta"].get("routing", {})}}, "reward": 1}
        )
    reached = {name for name, made in code.items() if made.feedback}
    expected = Interpreter()
    expected.run(tree, np.array([[1.0]]), {})
    takes = {n["name"] for n in nodes(tree) if n["type"] in ("MODEL", "ROUTER")}
    assert reached == expected.path & takes


def nodes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return [tree, *(n for child in tree.get("children", []) for n in nodes(child))]
