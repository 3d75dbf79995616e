from __future__ import annotations

import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
from spec_examples import CYCLE, FLOW

from servegraph.errors import GraphError
from servegraph.graph.builtin import ChoiceByField, Filter, Merge
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.spec import graph_from_dict
from servegraph.graph.steps import Step
from servegraph.graph.validate import Problem, check, validate


def f(body: Any) -> Any:
    return body


class Scale:
    annotated: Any

    def __init__(self, factor: int, name: str = "", context: Any = None) -> None:
        self.factor = factor

    def do(self, body: Any) -> Any:
        return body

    def halve(self, body: Any) -> Any:
        return body


class Any2:
    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def __call__(self, body: Any) -> Any:
        return body


class Nothing:
    pass


class Router:
    def __init__(self, routes: Any = None) -> None:
        self.routes = routes

    def do_event(self, event: Any) -> Any:
        return event


class Described:
    def __init__(self, size: int) -> None:
        self.size = size

    def do(self, body: Any) -> Any:
        return body

    def to_dict(self) -> dict[str, Any]:
        return {"class_args": {"size": self.size}}


class Choose:
    def select_outlets(self, body: Any) -> list[str]:
        return ["x"]


def flow(engine: str = "async", **options: Any) -> FlowGraph:
    return FlowGraph(engine, **options)


def found(graph: Any, **options: Any) -> list[tuple[str, str | None, str]]:
    return [(p.level, p.step, p.code) for p in validate(graph, **options)]


def messages(graph: Any, **options: Any) -> str:
    return "\n".join(map(str, validate(graph, **options)))


def line(graph: FlowGraph, *names: str) -> FlowGraph:
    for name in names:
        graph.add_step(handler=f, name=name, after="$prev" if graph.steps else None)
    return graph


# -- wiring ------------------------------------------------------------------------------------------------------------


def test_good_graph_has_no_problems() -> None:
    graph = line(flow(), "a", "b", "c")
    graph["c"].respond()
    check(graph)
    assert validate(graph, exportable=True) == []


def test_empty_graph_is_an_error() -> None:
    assert found(flow()) == [("error", None, "no-steps")]
    with pytest.raises(GraphError, match="the graph has no steps"):
        check(flow())


def test_unknown_names_are_errors_that_list_the_valid_ones() -> None:
    graph = line(flow("sync"), "alpha", "beta", "gamma")
    graph.steps["beta"].after = ["alhpa"]
    graph.steps["gamma"].on_error = "x"
    graph["alpha"].error_handler("catch", handler=f, before=["y"])
    graph.on_error = "z"
    text = messages(graph)
    assert "step 'beta': after names 'alhpa', which is no step; did you mean 'alpha'? valid: alpha, beta" in text
    assert "step 'gamma': on_error names 'x'" in text
    assert "step 'catch': before names 'y'" in text
    assert "error: the graph's on_error names 'z'" in text
    with pytest.raises(GraphError, match="after names 'alhpa'") as failed:
        check(graph)
    assert failed.value.step == "beta"


def test_unknown_fallback_and_cycle_are_errors() -> None:
    graph = flow("sync", allow_cyclic=True)
    graph.to(handler=f, name="a", policy={"on_error": "fallback", "fallback": "b"})
    graph.steps["a"].cycle_from = ["c"]
    assert "policy.fallback names 'b'" in messages(graph)
    assert "cycle_from names 'c'" in messages(graph)


def test_unknown_base_step_is_a_warning() -> None:
    graph = graph_from_dict(
        {
            "engine": "sync",
            "steps": {
                "a": {"handler": "json.dumps", "on_error": "h"},
                "h": {"kind": "error_step", "handler": "json.dumps", "base_step": "old"},
            },
        }
    )
    assert found(graph) == [("warning", "h", "unknown-step")]
    check(graph)


def test_loop_is_an_error_that_names_its_path() -> None:
    graph = line(flow("sync"), "start", "a", "b", "c")
    graph["a"].after_step("c")
    with pytest.raises(GraphError, match=r"the steps form a loop: a -> b -> c -> a; .*allow_cyclic=True"):
        check(graph)


def test_step_after_itself_is_a_loop() -> None:
    graph = line(flow("sync"), "a", "b")
    graph["b"].after_step("b")
    assert ("error", "b", "loop") in found(graph)


def test_handler_that_leads_back_is_a_loop() -> None:
    graph = line(flow("sync"), "a", "b")
    graph["b"].error_handler("mend", handler=f, before="b")
    assert "b -> mend -> b" in messages(graph)


def test_steps_that_all_follow_others_have_no_start() -> None:
    graph = line(flow("sync"), "a", "b")
    graph["a"].after_step("b")
    assert ("error", None, "no-start") in found(graph)


def test_cycle_with_a_choice_is_fine() -> None:
    check(graph_from_dict(CYCLE))
    namespace = {"inc": f, "out": f, "Choose": Choose}
    assert validate(graph_from_dict(CYCLE), namespaces=[namespace]) == []


def test_cycle_without_a_choice_never_ends() -> None:
    graph = line(flow(allow_cyclic=True), "a", "b")
    graph["b"].cycle_to("a").respond()
    assert "the loop a -> b -> a never ends: give it a step that chooses" in messages(graph)
    with pytest.raises(GraphError, match="never ends"):
        check(graph)


@pytest.mark.parametrize("code", [Choose, Filter])
def test_cycle_that_may_be_left_is_fine(code: Any) -> None:
    graph = line(flow(allow_cyclic=True), "a")
    graph["a"].respond()
    graph["a"].to(code, name="b", **({"fn": f} if code is Filter else {})).cycle_to("a")
    assert validate(graph) == []


def test_unreachable_step_is_an_error_and_an_unused_handler_a_warning() -> None:
    graph = line(flow("sync", allow_cyclic=True), "a")
    graph.to(Choose, name="x")
    graph.to(handler=f, name="y")
    graph.steps["x"].after, graph.steps["y"].after = ["y"], ["x"]
    graph["a"].error_handler("h", handler=f)
    graph.steps["a"].on_error = None
    assert found(graph) == [
        ("error", "x", "unreachable"),
        ("error", "y", "unreachable"),
        ("warning", "h", "unused-handler"),
    ]


def test_step_reached_only_from_a_handler_is_fine() -> None:
    graph = line(flow("sync"), "a", "b")
    graph["a"].error_handler("h", handler=f, before="b")
    assert validate(graph) == []


# -- handlers ----------------------------------------------------------------------------------------------------------


def test_handlers_must_be_error_steps_and_others() -> None:
    graph = line(flow("sync"), "a", "b")
    graph.steps["a"].on_error = "b"
    assert ("error", "a", "no-handler") in found(graph)
    graph.steps["a"].on_error = None
    graph.on_error = "b"
    assert ("error", "b", "no-handler") in found(graph)


def test_fallback_to_itself_is_an_error() -> None:
    graph = flow("sync")
    graph.to(handler=f, name="a", policy={"on_error": "fallback", "fallback": "a"})
    assert ("error", "a", "own-handler") in found(graph)


def test_fallback_that_is_also_wired_in_is_a_warning() -> None:
    graph = flow("sync")
    graph.to(handler=f, name="a", policy={"on_error": "fallback", "fallback": "b"})
    graph.add_step(handler=f, name="b")
    assert found(graph) == []
    graph["b"].after_step("a")
    assert ("warning", "b", "handler-wired") in found(graph)


def test_handler_of_another_function_is_an_error() -> None:
    graph = line(flow("sync"), "a")
    graph["a"].error_handler("h", handler=f, function="child")
    assert ("error", "a", "handler-elsewhere") in found(graph)


def test_handler_of_the_whole_graph_leads_nowhere() -> None:
    graph = line(flow("sync"), "a").error_handler("h", handler=f)
    assert found(graph) == []
    graph.steps["h"].before = ["a"]  # type: ignore[attr-defined]
    assert ("error", "h", "handler-before") in found(graph)


# -- answers -----------------------------------------------------------------------------------------------------------


def test_two_responders_are_an_error_that_lists_them() -> None:
    graph = line(flow(), "a", "b", "c")
    graph["a"].respond()
    graph["c"].respond()
    with pytest.raises(GraphError, match="several steps respond: a, c"):
        check(graph)


def test_async_flow_without_a_responder_is_a_warning() -> None:
    graph = line(flow(), "a")
    assert found(graph) == [("warning", None, "no-responder")]
    check(graph)


def _fan(graph: FlowGraph, first: Any = None, **arguments: Any) -> FlowGraph:
    """a -> left, right."""
    graph.to(first or f, name="a", **arguments).to(handler=f, name="left")
    graph["a"].to(handler=f, name="right")
    return graph


def test_several_last_steps_of_a_sync_flow_are_an_error() -> None:
    graph = _fan(flow("sync"))
    text = "a request gets several answers (left, right), as 'a' leads to all of left, right: mark the one that answers"
    assert text in messages(graph)
    with pytest.raises(GraphError, match="several answers"):
        check(graph)
    graph["left"].respond()
    assert found(graph) == []


def test_several_starts_of_a_sync_flow_are_an_error() -> None:
    graph = flow("sync")
    graph.to(handler=f, name="a")
    graph.to(handler=f, name="b")
    assert "as the start leads to all of a, b" in messages(graph)


def test_branch_that_ends_in_a_queue_does_not_answer() -> None:
    graph = line(flow("sync"), "a", "b")
    graph["a"].to("$queue", name="q", path="memory://q")
    assert found(graph) == []


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_responder_behind_open_branches_is_an_error(engine: str) -> None:
    graph = _fan(flow(engine))
    graph.add_step(handler=f, name="out", after=["left", "right"]).respond()
    assert found(graph) == [("error", "out", "several-answers")]
    assert "leads to it through all of left, right: join them with a Merge step" in messages(graph)
    with pytest.raises(GraphError, match="Merge"):
        check(graph)


@pytest.mark.parametrize("code", [Merge, "mlrun.serving.Merge", "servegraph.graph.builtin.Merge"])
def test_responder_behind_a_merge_is_fine(code: Any) -> None:
    graph = _fan(flow())
    graph.add_step(code, name="join", after=["left", "right"]).to(handler=f, name="out").respond()
    assert found(graph) == []
    check(graph)


def test_merge_that_responds_is_fine() -> None:
    graph = _fan(flow())
    graph.add_step(Merge, name="join", after=["left", "right"]).respond()
    assert found(graph) == []


def test_branch_past_a_merge_is_an_error() -> None:
    graph = _fan(flow())
    graph["a"].to(handler=f, name="past")
    graph.add_step(Merge, name="join", after=["left", "right"])
    graph.add_step(handler=f, name="out", after=["join", "past"]).respond()
    assert found(graph) == [("error", "out", "several-answers")]


def test_merges_joined_by_a_merge_are_fine() -> None:
    graph = flow("sync")
    graph.to(handler=f, name="a")
    for name in ("b", "c", "d", "e"):
        graph["a"].to(handler=f, name=name)
    graph.add_step(Merge, name="bc", after=["b", "c"])
    graph.add_step(Merge, name="de", after=["d", "e"])
    assert ("error", "a", "several-answers") in found(graph)
    graph.add_step(Merge, name="all", after=["bc", "de"])
    assert found(graph) == []


@pytest.mark.parametrize("code", [Choose, "test_validate.Choose", "ChoiceByField"])
def test_branches_of_a_choice_do_not_count_together(code: Any) -> None:
    graph = _fan(flow("sync"), code, **({"field_name": "to"} if code == "ChoiceByField" else {}))
    graph.add_step(handler=f, name="out", after=["left", "right"])
    assert found(graph, namespaces=[{"ChoiceByField": ChoiceByField}]) == []
    check(graph)


def test_branches_with_filters_may_answer_several_times() -> None:
    graph = flow()
    graph.to(handler=f, name="a")
    for name in ("left", "right"):
        graph["a"].to("storey.Filter", name=name, _fn="(event['x'] > 1)")
    graph.add_step(handler=f, name="out", after=["left", "right"]).respond()
    assert found(graph) == [("warning", "out", "several-answers")]
    check(graph)


def test_check_knows_that_each_of_several_last_steps_answers() -> None:
    graph = flow("sync")
    graph.to(handler=f, name="a")
    for name in ("left", "right"):
        graph["a"].to("no.such.Class", name=name)
    with pytest.raises(GraphError, match=r"several answers \(left, right\)"):
        check(graph)


def test_check_allows_that_an_unknown_class_joins() -> None:
    graph = _fan(flow())
    graph.add_step("no.such.Merge", name="out", after=["left", "right"]).respond()
    check(graph)


def test_check_says_nothing_of_code_that_it_does_not_know() -> None:
    graph = _fan(flow("sync"), "no.such.Class")
    check(graph)
    assert ("error", "a", "unknown-code") in found(graph)


def test_choice_without_followers_is_a_warning() -> None:
    graph = line(flow("sync"), "a")
    graph["a"].to(Choose, name="b")
    assert found(graph) == [("warning", "b", "no-choice")]


# -- functions and queues ----------------------------------------------------------------------------------------------


def test_exported_flow_is_fine_in_each_function() -> None:
    graph = graph_from_dict(FLOW)
    for function in ("*", "child"):
        check(graph, function)


def test_function_without_steps_is_an_error() -> None:
    graph = flow("sync")
    graph.to(handler=f, name="a", function="child")
    with pytest.raises(GraphError, match="function 'chidl' runs no step of the graph; did you mean 'child'"):
        check(graph, "chidl")


def test_queue_at_the_end_needs_a_path() -> None:
    graph = line(flow("sync"), "a")
    graph["a"].to("$queue", name="q", path="")
    assert ("error", "q", "queue-path") in found(graph)
    graph["q"].to(handler=f, name="b", function="child")
    assert found(graph) == []
    assert ("error", "q", "queue-path") in found(graph, current_function="parent")


def test_step_after_a_queue_names_a_function() -> None:
    graph = line(flow("sync"), "a")
    graph["a"].to("$queue", name="q", path="x").to(handler=f, name="b")
    assert found(graph) == [("warning", "b", "queue-function")]
    graph["b"].to(handler=f, name="c", function="child")
    assert found(graph) == [("error", "b", "queue-function")]


# -- code --------------------------------------------------------------------------------------------------------------


def only(*args: Any, **kwargs: Any) -> str:
    namespaces = [{"Scale": Scale, "f": f, "value": 7}]
    graph = flow("sync")
    graph.to(*args, **{"name": "a", **kwargs})
    return messages(graph, namespaces=namespaces)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_name": "Scael"}, "there is no class or function 'Scael'; did you mean 'Scale'?"),
        ({"class_name": "json.Decoder"}, "cannot import 'json.Decoder': 'json' has no attribute 'Decoder'"),
        ({"class_name": "no_such_package.Class"}, "there is no module 'no_such_package'"),
        ({"class_name": "value"}, "'value' is int, neither a class nor a function"),
        ({"handler": "g"}, "there is no class or function 'g'"),
        ({"handler": "value"}, "handler 'value' is int, which cannot be called"),
        ({"handler": "(event.x)"}, "step 'a'"),
        ({"handler": "(event[)"}, "step 'a'"),
        ({"class_name": "Scale"}, "Scale needs the argument 'factor' [missing-argument]"),
        ({"class_name": "Scale", "faktor": 1}, "Scale takes no argument 'faktor'; did you mean 'factor'?"),
        ({"class_name": Scale, "factor": 1, "handler": "halv"}, "Scale has no method 'halv'; did you mean 'halve'?"),
        ({"class_name": Scale(1), "handler": f}, "handler must name a method of Scale when there is a class"),
        ({"class_name": Nothing}, "Nothing cannot be a step: it has no do_event, do or select_outlets method"),
        ({"class_name": Described(1), "sise": 2}, "Described takes no argument 'sise'"),
        ({"class_name": Filter, "_fn": "(event[)"}, "argument '_fn': "),
        ({"class_name": Filter, "_fn": "g"}, "argument '_fn': there is no class or function 'g'"),
        ({"class_name": "*Scale", "factor": 1}, "Scale is no router: its constructor takes no 'routes'"),
        ({"handler": "f", "input_path": "a..b"}, "input_path 'a..b' has an empty part"),
        ({"handler": "f", "result_path": ""}, "result_path '' has an empty part"),
    ],
)
def test_wrong_code_is_an_error(arguments: dict[str, Any], message: str) -> None:
    assert message in only(**arguments)
    assert "error: step 'a'" in only(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_name": "Scale", "factor": 1},
        {"class_name": Scale, "factor": 1, "handler": "halve"},
        {"class_name": Scale, "factor": 1, "handler": "annotated"},
        {"class_name": Scale(1)},
        {"class_name": Described(1), "size": 2},
        {"class_name": Any2, "anything": 1},
        {"class_name": Filter, "_fn": "f"},
        {"class_name": Filter, "fn": f},
        {"class_name": Choose},
        {"class_name": "f"},
        {"handler": "f"},
        {"handler": "(event['x'] + 1)"},
        {"handler": "json:dumps"},
    ],
    ids=str,
)
def test_right_code_is_no_error(arguments: dict[str, Any]) -> None:
    assert "error" not in only(**arguments)


def test_module_that_fails_when_imported_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "broken_steps.py").write_text("raise ZeroDivisionError('no models')")
    monkeypatch.syspath_prepend(tmp_path)
    text = only("broken_steps.Model")
    assert "importing 'broken_steps.Model' failed: ZeroDivisionError: no models [unknown-code]" in text
    assert "argument '_fn': importing 'broken_steps.f' failed" in only(Filter, _fn="broken_steps.f")


def test_step_without_code_is_an_error() -> None:
    graph = flow("sync")
    graph.insert_step("a", Step())
    assert "a step needs code: give class_name or handler" in messages(graph)


def test_routes_are_checked_under_their_router() -> None:
    graph = RouterGraph(Router, name="")
    graph.add_route("good", class_name=Scale, factor=1)
    graph.add_route("bad:v1", class_name="NoModel")
    assert found(graph) == [("error", "router/bad:v1", "unknown-code")]
    check(graph)
    inner = flow("sync")
    inner.add_step(graph, name="models")
    assert found(inner) == [("error", "models/bad:v1", "unknown-code")]


def test_router_without_routes_is_a_warning() -> None:
    assert found(RouterGraph(Router)) == [("warning", "router", "no-routes")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: g.to(handler=lambda body: body, name="a"), "step 'a': handler: a lambda has no name"),
        (lambda g: g.to(type("Local", (Choose,), {"__qualname__": "x.<locals>.Local"}), name="a"), "inside a function"),
        (lambda g: g.to(Any2, name="a", x={1}), "step 'a': class_args.x: set {1} is of type set"),
        (lambda g: g.to(handler=f, name="a", policy={"on_error": "default", "default": b""}), "policy.default"),
        (lambda g: g.to("$queue", name="a", path="x", group=object), "options.group"),
        (lambda g: (g.extra.update(comment={1}), g.to(handler=f, name="a")), "error: comment: set {1}"),
    ],
)
def test_what_cannot_be_exported_is_told_only_if_asked(make: Callable[[FlowGraph], Any], message: str) -> None:
    graph = flow("sync")
    make(graph)
    assert "not-exportable" not in messages(graph)
    text = messages(graph, exportable=True)
    assert message in text
    assert "[not-exportable]" in text


def test_check_imports_nothing() -> None:
    graph = line(flow("sync"), "a")
    graph["a"].to("antigravity.Model", name="b")
    check(graph)
    assert "antigravity" not in sys.modules


def test_check_of_a_long_flow_is_quick() -> None:
    graph = flow("sync")
    previous: Any = None
    for number in range(1000):
        step = Step(handler=f)
        graph.insert_step(f"s{number}", step, after=previous)
        previous = step
    started = time.perf_counter()
    check(graph)
    assert time.perf_counter() - started < 10


def test_problem_reads_as_one_line() -> None:
    assert str(Problem("error", "a", "loop", "why")) == "error: step 'a': why [loop]"
    assert str(Problem("warning", None, "no-responder", "why")) == "warning: why [no-responder]"


def test_validate_changes_nothing() -> None:
    graph = graph_from_dict(FLOW)
    before = json.dumps(graph.to_dict())
    validate(graph, namespaces=[types.ModuleType("empty")], exportable=True)
    assert json.dumps(graph.to_dict()) == before
