from __future__ import annotations

from typing import Any

import pytest

from servegraph.errors import GraphError
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.steps import Step


def handle(body: Any) -> Any:
    return body


def line(*names: str) -> FlowGraph:
    graph = FlowGraph()
    for name in names:
        graph.add_step(handle, name, after="$prev" if graph.steps else None)
    return graph


def edges(graph: FlowGraph) -> dict[str, list[str]]:
    return {name: step.after for name, step in graph.steps.items()}


@pytest.mark.parametrize("engine", ["Async", "", "storey"])
def test_flow_of_an_unknown_engine_is_refused(engine: str) -> None:
    with pytest.raises(GraphError, match="valid: sync, async"):
        FlowGraph(engine)


def test_flow_of_no_iterations_is_refused() -> None:
    with pytest.raises(GraphError, match="at least 1"):
        FlowGraph(allow_cyclic=True, max_iterations=0)


def test_to_adds_starts_on_the_graph_and_followers_on_a_step() -> None:
    graph = FlowGraph()
    first = graph.to(handle, "a")
    assert first.to(handle, "b").to(handle, "c").name == "c"
    graph.to(handle, "z")
    assert edges(graph) == {"a": [], "b": ["a"], "c": ["b"], "z": []}
    assert graph.starts() == ["a", "z"]
    assert graph.followers("a") == ["b"]


def test_add_step_after_several_or_the_previous() -> None:
    graph = line("a", "b")
    graph.add_step(handle, "c", after=["a", graph["b"]])
    graph.add_step(handle, "d", after="$prev")
    assert edges(graph)["c"] == ["a", "b"]
    assert edges(graph)["d"] == ["c"]


def test_add_step_after_the_previous_without_one_is_refused() -> None:
    with pytest.raises(GraphError, match=r"\$prev"):
        FlowGraph().add_step(handle, "a", after="$prev")


def test_add_step_before_one_takes_over_what_led_to_it() -> None:
    graph = line("a", "b", "c")
    graph.add_step(handle, "x", before="b")
    assert edges(graph) == {"a": [], "b": ["x"], "c": ["b"], "x": ["a"]}
    graph.add_step(handle, "start", before="a")
    assert graph.starts() == ["start"]


def test_add_step_before_several_takes_over_what_led_to_all() -> None:
    graph = line("a")
    graph.add_step(handle, "b", after="a")
    graph.add_step(handle, "c", after="a")
    graph.add_step(handle, "x", before=["b", "c"])
    assert edges(graph) == {"a": [], "b": ["x"], "c": ["x"], "x": ["a"]}


def test_add_step_before_steps_with_other_predecessors_joins_them() -> None:
    graph = FlowGraph()
    graph.to(handle, "a")
    graph.to(handle, "b")
    graph.add_step(handle, "a2", after="a")
    graph.add_step(handle, "b2", after="b")
    graph.add_step(handle, "x", before=["a2", "b2"])
    assert edges(graph)["x"] == ["a", "b"]


def test_add_step_between_two_cuts_only_their_edge() -> None:
    graph = FlowGraph()
    graph.to(handle, "a")
    graph.to(handle, "b")
    graph.add_step(handle, "join", after=["a", "b"])
    graph.add_step(handle, "x", after="a", before="join")
    assert edges(graph)["join"] == ["b", "x"]
    assert edges(graph)["x"] == ["a"]


def test_add_step_after_and_before_lists_is_wired_once() -> None:
    graph = FlowGraph()
    for name in "abcd":
        graph.to(handle, name)
    graph["c"].after_step("a")
    graph["d"].after_step("b")
    graph.add_step(handle, "x", after=["a", "b"], before=["c", "d"])
    assert edges(graph) == {"a": [], "b": [], "c": ["x"], "d": ["x"], "x": ["a", "b"]}


@pytest.mark.parametrize("where", ["after", "before"])
def test_add_step_beside_an_unknown_step_is_refused_and_nothing_is_added(where: str) -> None:
    graph = line("alpha", "beta")
    with pytest.raises(GraphError, match=rf"step 'x': {where} names 'alpa'.*did you mean 'alpha'"):
        graph.add_step(handle, "x", **{where: "alpa"})
    assert list(graph) == ["alpha", "beta"]


def test_add_step_with_a_taken_name_is_refused() -> None:
    graph = line("a")
    with pytest.raises(GraphError, match="a step named 'a' already"):
        graph.add_step(handle, "a")
    with pytest.raises(GraphError, match="a step named 'a' already"):
        graph["a"].error_handler("a", handler=handle)


def test_insert_step_puts_an_object_under_a_name() -> None:
    graph = line("a", "b")
    step = graph.insert_step("x", Step(None, None, handle), after="a", before="b")
    assert step is graph["x"]
    assert step.graph is graph
    assert edges(graph) == {"a": [], "b": ["x"], "x": ["a"]}


def test_set_flow_makes_a_line() -> None:
    graph = FlowGraph().set_flow(
        [handle, {"name": "two", "handler": "handle"}, Step(None, None, handle, "three"), {"class_name": "pkg.Four"}]
    )
    assert edges(graph) == {"handle": [], "two": ["handle"], "three": ["two"], "Four": ["three"]}


def test_set_flow_over_steps_needs_force() -> None:
    graph = line("a")
    graph.error_handler("catch", handler=handle)
    with pytest.raises(GraphError, match="force=True"):
        graph.set_flow([handle])
    graph.set_flow([handle], force=True)
    assert list(graph) == ["handle"]
    assert graph.on_error is None


def test_graph_error_handler_is_no_start_and_takes_no_before() -> None:
    graph = line("a")
    assert graph.error_handler("catch", handler=handle) is graph
    assert graph.starts() == ["a"]
    with pytest.raises(GraphError, match="before"):
        graph.error_handler("more", handler=handle, before="a")


def test_clear_children_forgets_steps() -> None:
    graph = line("a", "b")
    graph.error_handler("catch", handler=handle)
    with pytest.raises(GraphError, match="names 'zz'"):
        graph.clear_children(["zz"])
    graph.clear_children(["b", "catch"])
    assert list(graph) == ["a"]
    assert graph.on_error is None
    graph.clear_children()
    assert len(graph) == 0
    with pytest.raises(GraphError, match=r"\$prev"):
        graph.add_step(handle, "x", after="$prev")


def test_path_to_step_finds_steps_and_routes() -> None:
    graph = line("a")
    router = graph.add_step("*", "models", after="a")
    route = router.add_route("m", class_name="M")  # type: ignore[attr-defined]
    assert graph["models/m"] is route
    assert graph.path_to_step("a") is graph["a"]
    assert "a" in graph
    assert "zz" not in graph
    with pytest.raises(GraphError, match="no step 'zz'; valid: a, models"):
        graph["zz"]
    with pytest.raises(GraphError, match="is no router"):
        graph["a/m"]


def test_add_route_on_a_flow_tells_what_to_do() -> None:
    with pytest.raises(GraphError, match="add a router step"):
        FlowGraph().add_route("m")


def test_graphs_have_a_short_repr() -> None:
    assert repr(line("a", "b")) == "<FlowGraph async of 2 steps>"
    assert repr(RouterGraph(name="r")) == "<RouterGraph 'r'>"
    assert repr(line("a")["a"]) == "<Step 'a'>"
