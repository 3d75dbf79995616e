from __future__ import annotations

from typing import Any

import pytest

from servegraph.errors import GraphError, NotFoundError
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.policies import StepPolicy
from servegraph.graph.steps import (
    MAX_ROUTES,
    ErrorStep,
    QueueStep,
    RouterStep,
    Step,
    as_names,
    is_local,
    make_step,
    split_options,
)


class Model:
    def do(self, body: Any) -> Any:
        return body


def handle(body: Any) -> Any:
    return body


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"class_name": "pkg.mod.Model"}, "Model"),
        ({"class_name": "pkg.mod:Model"}, "Model"),
        ({"class_name": Model}, "Model"),
        ({"class_name": Model()}, "Model"),
        ({"handler": handle}, "handle"),
        ({"handler": "pkg.handle"}, "handle"),
        ({"handler": lambda body: body}, "lambda"),
        ({"handler": "(event['x'] * 2)"}, "expression"),
        ({"class_name": handle}, "handle"),
        ({"class_name": "$remote"}, "remote"),
        ({"class_name": "*"}, "router"),
        ({"class_name": "*pkg.Ensemble"}, "Ensemble"),
    ],
)
def test_step_without_a_name_is_named_after_its_code(arguments: dict[str, Any], name: str) -> None:
    step = make_step(arguments.get("class_name"), None, arguments.get("handler"), {})
    assert step.name == name


def test_step_of_a_function_in_the_place_of_a_class_has_it_as_handler() -> None:
    step = make_step(handle, None, None, {})
    assert (step.class_name, step.handler) == (None, handle)


def test_step_arguments_are_split_into_options_and_arguments_of_the_class() -> None:
    step = make_step(Model, "m", None, {"input_path": "a", "policy": {"retries": 1}, "graph_shape": "box", "x": 5})
    assert (step.input_path, step.policy, step.shape) == ("a", StepPolicy(retries=1), "box")
    assert step.class_args == {"x": 5}
    options, rest = split_options({"function": "child", "factor": 2})
    assert (options.function, rest) == ("child", {"factor": 2})


def test_step_without_code_is_refused() -> None:
    with pytest.raises(GraphError, match="a step needs code"):
        make_step(None, "x", None, {})


@pytest.mark.parametrize("name", ["a/b", " ", " x", "/"])
def test_step_with_a_strange_name_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match="is not a step name"):
        make_step(handle, name, None, {})


def test_step_object_takes_a_new_name() -> None:
    step = Step(Model, name="old")
    assert make_step(step, "new", None, {}) is step
    assert step.name == "new"


def test_step_object_with_further_arguments_is_refused() -> None:
    with pytest.raises(GraphError, match="factor"):
        make_step(Step(Model, name="m"), None, None, {"factor": 2})
    with pytest.raises(GraphError, match="handler"):
        make_step(Step(Model, name="m"), None, "do", {})


def test_step_with_an_unknown_policy_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(GraphError, match="did you mean 'timeout_s'"):
        make_step(handle, None, None, {"policy": {"timeout": 3}})


def test_step_of_no_graph_tells_how_to_add_it() -> None:
    with pytest.raises(GraphError, match=r"add it with graph\.to"):
        Step(Model, name="lonely").to(handle)


def test_queue_with_options_keeps_them() -> None:
    step = make_step("$queue", "q", None, {"path": "memory://x", "shards": 3, "group": "g", "function": "child"})
    assert isinstance(step, QueueStep)
    assert (step.path, step.shards, step.function, step.stream_options) == ("memory://x", 3, "child", {"group": "g"})
    assert isinstance(make_step(">>", "q", None, {"path": ""}), QueueStep)


@pytest.mark.parametrize(("name", "arguments", "message"), [("q", {}, "path="), (None, {"path": "x"}, "name")])
def test_queue_without_path_or_name_is_refused(name: str | None, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make_step("$queue", name, None, arguments)


def test_after_step_appends_once_or_replaces() -> None:
    graph = FlowGraph()
    for name in "abc":
        graph.add_step(handle, name)
    step = graph.add_step(handle, "d", after="a")
    assert step.after_step("b", graph["c"], "a").after == ["a", "b", "c"]
    assert step.after_step("b", append=False).after == ["b"]


def test_cycle_to_needs_a_cyclic_graph_and_a_known_step() -> None:
    graph = FlowGraph()
    first = graph.to(handle, "a")
    with pytest.raises(GraphError, match="allow_cyclic=True"):
        first.to(handle, "b", cycle_to="a")
    cyclic = FlowGraph(allow_cyclic=True)
    last = cyclic.to(handle, "a").to(handle, "b").cycle_to("a").cycle_to(["a"])
    assert cyclic["a"].after == ["b"]
    assert cyclic["a"].cycle_from == ["b"]
    with pytest.raises(GraphError, match="no step 'zz'"):
        last.cycle_to("zz")


def test_error_handler_returns_the_step_it_handles() -> None:
    graph = FlowGraph()
    step = graph.to(handle, "a")
    assert step.error_handler("catch", handler=handle, before="b") is step
    catch = graph["catch"]
    assert isinstance(catch, ErrorStep)
    assert (step.on_error, catch.base_step, catch.before) == ("catch", "a", ["b"])


def test_error_handler_without_code_is_refused() -> None:
    graph = FlowGraph()
    step = graph.to(handle, "a")
    with pytest.raises(GraphError, match="needs code"):
        step.error_handler("catch")
    with pytest.raises(GraphError, match="needs code"):
        graph.error_handler()
    assert list(graph) == ["a"]


def test_error_handler_with_a_taken_or_strange_name_is_refused() -> None:
    graph = FlowGraph()
    step = graph.to(handle, "a")
    with pytest.raises(GraphError, match="already"):
        step.error_handler("a", handler=handle)
    with pytest.raises(GraphError, match="is not a step name"):
        step.error_handler("x/y", handler=handle)


def test_error_handler_for_a_step_that_has_one_is_refused() -> None:
    graph = FlowGraph()
    step = graph.to(handle, "a").error_handler("first", handler=handle)
    with pytest.raises(GraphError, match="'first'"):
        step.error_handler("second", handler=handle)
    graph.error_handler("all", handler=handle)
    with pytest.raises(GraphError, match="'all'"):
        graph.error_handler("more", handler=handle)


def test_add_route_gives_the_step_of_the_route() -> None:
    router = RouterGraph()
    route = router.add_route("m:v1", class_name=Model, factor=2, input_path="x")
    assert (route.name, route.class_args, route.input_path) == ("m:v1", {"factor": 2}, "x")
    assert router["m:v1"] is route
    assert "m:v1" in router
    assert list(router) == ["m:v1"]
    given = Step(Model)
    assert router.add_route("other", given) is given
    assert given.name == "other"
    assert router.add_route("obj", Model()).class_name.__class__ is Model


def test_add_route_of_a_known_key_replaces_it() -> None:
    router = RouterStep()
    router.add_route("m", class_name=Model, factor=1)
    router.add_route("m", class_name=Model, factor=2)
    assert [r.class_args for r in router.routes.values()] == [{"factor": 2}]


@pytest.mark.parametrize("key", ["", "a/b", None, 3])
def test_add_route_with_a_strange_key_is_refused(key: Any) -> None:
    with pytest.raises(GraphError, match="is not a route key"):
        RouterStep().add_route(key, class_name=Model)


def test_add_route_wants_exactly_one_of_route_and_class() -> None:
    with pytest.raises(GraphError, match="give either"):
        RouterStep().add_route("m")
    with pytest.raises(GraphError, match="give either"):
        RouterStep().add_route("m", Model(), class_name=Model)


def test_add_route_of_a_step_with_further_arguments_is_refused() -> None:
    with pytest.raises(GraphError, match="factor"):
        RouterStep().add_route("m", Step(Model), factor=2)


def test_add_route_beyond_the_most_is_refused() -> None:
    router = RouterStep()
    router.routes = {str(i): Step(Model) for i in range(MAX_ROUTES)}
    with pytest.raises(GraphError, match=str(MAX_ROUTES)):
        router.add_route("one-more", class_name=Model)
    router.add_route("1", class_name=Model)


def test_router_of_an_unknown_route_lists_those_there_are() -> None:
    router = RouterStep(name="r")
    router.add_route("iris", class_name=Model)
    with pytest.raises(NotFoundError, match="did you mean 'iris'"):
        router["irs"]
    with pytest.raises(GraphError, match="valid: iris"):
        router.clear_children(["x"])
    router.clear_children()
    assert not router.routes


def test_as_names_flattens_what_it_is_given() -> None:
    step = Step(Model, name="s")
    assert as_names(None) == []
    assert as_names("a") == ["a"]
    assert as_names(step) == ["s"]
    assert as_names(["a", step, ["b", None]]) == ["a", "s", "b"]


@pytest.mark.parametrize(
    ("function", "current", "local"),
    [(None, "*", True), ("c", "*", True), ("*", "c", True), (None, "", True), ("c", "", False), ("c", "c", True),
     (None, "c", False), ("d", "c", False)],
)  # fmt: skip
def test_is_local_tells_where_a_step_runs(function: str | None, current: str, local: bool) -> None:
    step = make_step(Model, "m", None, {"function": function})
    assert is_local(step, current) is local
