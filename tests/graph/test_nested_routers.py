"""Routers as routes of routers: built, written, drawn, checked, compiled and run to any depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

import servegraph
from servegraph.errors import GraphError
from servegraph.graph.context import GraphContext
from servegraph.graph.drawing import draw
from servegraph.graph.events import Event
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.plan import Route
from servegraph.graph.plot import plot
from servegraph.graph.spec import graph_from_dict, graph_from_yaml, graph_to_dict, graph_to_yaml
from servegraph.graph.steps import RouterStep
from servegraph.graph.validate import validate
from servegraph.runtimes.server import graph_copy


class AskAll:
    """Asks each of its routes; waits for nothing else."""

    keeps_time = True

    def __init__(self, context: GraphContext, name: str, routes: Mapping[str, Route]) -> None:
        self.name = name
        self.routes = routes
        self.loaded_after: list[str] = []

    async def do_event(self, event: Event) -> Event:
        said = [(await route.run(event.fork(event.body))).body for route in self.routes.values()]
        event.body = f"{self.name}({', '.join(said)})"
        return event


class Leaf:
    """Says its name; records that it was loaded."""

    loaded: ClassVar[list[str]] = []

    def __init__(self, name: str, suffix: str = "") -> None:
        self.name = name
        self.suffix = suffix

    def post_init(self) -> None:
        Leaf.loaded.append(self.name)

    def do(self, body: Any) -> str:
        return f"{self.name}{self.suffix}"


def tree() -> RouterStep:
    outer = RouterStep(AskAll, name="outer")
    outer.add_route("a", class_name=Leaf)
    middle = RouterStep(AskAll)
    outer.add_route("middle", middle)
    inner = RouterStep(AskAll)
    middle.add_route("inner", inner)
    middle.add_route("b", class_name=Leaf, suffix="!")
    inner.add_route("c", class_name=Leaf)
    inner.add_route("d", class_name=Leaf)
    return outer


def as_function(topology: str) -> servegraph.ServingFunction:
    fn = servegraph.new_function("nested")
    if topology == "flow":
        fn.set_topology("flow", engine="sync").add_step(tree(), name="outer").respond()
        return fn
    root = fn.set_topology("router", AskAll)
    root.name = "outer"
    for key, route in tree().routes.items():
        root.add_route(key, route)
    return fn


WHOLE = "outer(a, middle(inner(c, d), b!))"


@pytest.mark.parametrize("topology", ["flow", "router"])
def test_nested_routers_run_with_each_route_built_and_loaded(topology: str) -> None:
    Leaf.loaded = []
    with as_function(topology).to_mock_server() as server:
        assert server.plan.plain
        assert server.test("/", {}) == WHOLE
        assert sorted(Leaf.loaded) == ["a", "b", "c", "d"]
        assert {k for k, v in server.plan.objects.items() if isinstance(v, Leaf)} == {
            "outer/a",
            "outer/middle/b",
            "outer/middle/inner/c",
            "outer/middle/inner/d",
        }


@pytest.mark.parametrize("topology", ["flow", "router"])
def test_nested_routers_read_back_from_their_spec_equal_and_run(topology: str) -> None:
    fn = as_function(topology)
    spec = graph_to_dict(fn.graph)
    again = graph_from_dict(spec)
    assert graph_to_dict(again) == spec
    assert graph_to_dict(graph_from_yaml(graph_to_yaml(fn.graph))) == spec
    copy = servegraph.new_function("again")
    copy.spec.graph = again
    with copy.to_mock_server() as server:
        assert server.test("/", {}) == WHOLE


def test_nested_routers_copied_share_code_but_no_steps() -> None:
    graph = as_function("router").graph
    assert isinstance(graph, RouterGraph)
    marker = object()
    middle = graph["middle"]
    assert isinstance(middle, RouterStep)
    middle["b"].class_args["suffix"] = marker
    copy = graph_copy(graph)
    assert copy["middle"]["b"] is not middle["b"]
    assert copy["middle"]["b"].class_args["suffix"] is marker


def test_nested_routers_are_drawn_with_all_their_routes() -> None:
    text = plot(as_function("flow").graph).mermaid
    assert all(name in text for name in ("outer", "middle", "inner"))
    drawing = draw(as_function("router").graph)
    titles = {n.id: n.title for n in drawing.nodes}
    edges = {(titles[e.source], titles[e.target]) for e in drawing.edges if e.kind == "route"}
    assert edges == {
        ("outer", "a"),
        ("outer", "middle"),
        ("middle", "inner"),
        ("middle", "b"),
        ("inner", "c"),
        ("inner", "d"),
    }
    assert len(drawing.groups) == 1


def test_nested_routers_are_reached_by_path_and_checked_where_they_stand() -> None:
    graph = as_function("flow").graph
    assert isinstance(graph, FlowGraph)
    assert graph.path_to_step("outer/middle/inner/c").name == "c"
    with pytest.raises(GraphError, match="'c' is no router"):
        graph.path_to_step("outer/middle/inner/c/e")
    graph.path_to_step("outer/middle/inner").add_route("e", class_name="NoSuchClass")
    graph.path_to_step("outer/middle").add_route("empty", RouterStep(AskAll))
    found = {(p.step, p.level) for p in validate(graph)}
    assert ("outer/middle/inner/e", "error") in found
    assert ("outer/middle/empty", "warning") in found
