from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graph_kit import Running, body_of, flow

from servegraph.errors import GraphError
from servegraph.graph.builtin import ChoiceByField, Merge
from servegraph.graph.compile import Compiler
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.plan import Plan
from servegraph.graph.policies import StepPolicy
from servegraph.serving.routers import ModelRouter


def same(body: Any) -> Any:
    return body


async def later(body: Any) -> Any:
    return body


class Times:
    def __init__(self, factor: int = 2, name: str = "", context: Any = None) -> None:
        self.factor, self.name, self.context = factor, name, context

    def do(self, body: Any) -> Any:
        return body * self.factor

    def other(self, body: Any) -> Any:
        return -body


def plan_of(graph: Any, current: str = "*") -> Plan:
    context = GraphContext(name="test")
    context.current_function = current
    return Compiler(graph, context, [globals()]).compile()


def units(plan: Plan) -> list[str]:
    return [u.name for u in plan.units]


# -- chains and drivers -----------------------------------------------------------------------------------------------


def test_plain_steps_in_a_line_run_as_one_call() -> None:
    graph = flow()
    graph.to(same, "a").to(Times, "b").to(same, "c").respond()
    plan = plan_of(graph)
    assert units(plan) == ["c"]
    assert plan.direct is plan.units[0]
    assert plan.plain


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda g: g.to(same, "a").to(later, "b").to(same, "c").respond(), ["a", "b", "c"]),
        (lambda g: g.to(same, "a").to(lambda e: e, "b", full_event=True).to(same, "c").respond(), ["a", "b", "c"]),
        (lambda g: g.to(same, "a").respond().to(same, "b"), ["a", "b"]),
        (lambda g: g.to(same, "a").to(same, "b", policy=StepPolicy(on_error="skip")).respond(), ["a", "b"]),
        (lambda g: g.to(same, "a").error_handler("h", handler=same).to(same, "b").respond(), ["a", "h", "b"]),
    ],
)
def test_chains_end_where_something_else_begins(build: Any, names: list[str]) -> None:
    graph = flow()
    build(graph)
    assert sorted(units(plan_of(graph))) == sorted(names)


@pytest.mark.parametrize(
    ("engine", "build", "plain"),
    [
        ("async", lambda g: g.to(same, "a").respond(), True),
        ("async", lambda g: g.to(later, "a").respond(), False),
        ("sync", lambda g: g.to(later, "a").respond(), False),
        ("async", lambda g: g.to(same, "a"), False),  # the caller gets an id at once
        ("sync", lambda g: g.to(same, "a"), True),
        ("async", lambda g: g.to(same, "a").respond().to(same, "b"), False),
        ("sync", lambda g: g.to(same, "a").respond().to(same, "b"), True),
        ("async", lambda g: g.to(same, "a", policy=StepPolicy(timeout_s=1)).respond(), False),
        ("sync", lambda g: g.to(same, "a", policy=StepPolicy(retries=1)).respond(), False),
        ("sync", lambda g: g.to(same, "a", policy=StepPolicy(on_error="skip")).respond(), True),
    ],
)
def test_plan_is_plain_when_nothing_in_it_waits(engine: str, build: Any, plain: bool) -> None:
    graph = FlowGraph(engine)
    build(graph)
    assert plan_of(graph).plain is plain


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_branches_want_a_loop_only_in_an_async_flow(engine: str) -> None:
    graph = FlowGraph(engine)
    graph.to(same, "a")
    graph.add_step(same, "b", after="a")
    graph.add_step(same, "c", after="a")
    graph.add_step(Merge, "join", after=["b", "c"]).respond()
    assert plan_of(graph).plain is (engine == "sync")


def test_choice_wants_no_loop() -> None:
    graph = flow()
    graph.to(ChoiceByField, "pick", field_name="go")
    graph.add_step(same, "b", after="pick")
    graph.add_step(same, "c", after="pick")
    graph.add_step(same, "out", after=["b", "c"]).respond()
    assert plan_of(graph).plain


# -- code of a step ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"class_name": "Times", "factor": 3}, 12),
        ({"class_name": Times, "factor": 3}, 12),
        ({"class_name": Times(5)}, 20),
        ({"class_name": Times, "handler": "other"}, -4),
        ({"class_name": "same"}, 4),
        ({"handler": "(event + 1)"}, 5),
        ({"class_name": f"{__name__}.Times"}, 8),
    ],
)
def test_step_runs_whatever_stands_for_code(arguments: dict[str, Any], answer: int) -> None:
    graph = flow()
    graph.to(name="a", **arguments).respond()
    plan = plan_of(graph)
    result = plan.starts[0].call.function(Event(4))
    assert result.body == answer


def test_object_with_to_dict_is_built_anew_with_its_arguments() -> None:
    class Described(Times):
        def to_dict(self) -> dict[str, Any]:
            return {"class_args": {"factor": self.factor}}

    given = Described(7)
    graph = flow()
    graph.to(given, "a").respond()
    plan = plan_of(graph)
    built = plan.objects["a"]
    assert built is not given
    assert (built.factor, built.name) == (7, "a")
    assert isinstance(built.context, GraphContext)


def test_function_that_takes_the_context_gets_it() -> None:
    graph = flow()
    graph.to(lambda body, context: context.name, "a").respond()
    assert plan_of(graph).starts[0].call.function(Event(1)).body == "test"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"class_name": "Tims"}, "did you mean 'Times'"),
        ({"class_name": Times, "handler": "othr"}, "has no method 'othr'; did you mean 'other'"),
        ({"class_name": Times, "handler": same}, "must name a method"),
        ({"class_name": Times, "facto": 3}, "takes no argument 'facto'; did you mean 'factor'"),
        ({"class_name": object}, "cannot be a step"),
        ({"handler": "(event +"}, "a"),
        ({"handler": same, "input_path": "a..b"}, "empty part"),
    ],
)
def test_step_that_cannot_be_built_names_itself_and_what_is_wrong(arguments: dict[str, Any], words: str) -> None:
    graph = flow()
    graph.to(name="my_step", **arguments).respond()
    with pytest.raises(GraphError) as caught:
        plan_of(graph)
    assert words in str(caught.value)
    assert caught.value.step == "my_step"
    assert "my_step" in str(caught.value)


def test_paths_for_a_class_that_takes_whole_events_are_refused_unless_it_takes_them() -> None:
    class Whole:
        def do_event(self, event: Event) -> Event:
            return event

    class Takes(Whole):
        def __init__(self, input_path: str | None = None) -> None:
            self.input_path = input_path

    graph = flow()
    graph.to(Whole, "w", input_path="a").respond()
    with pytest.raises(GraphError, match="does not take input_path"):
        plan_of(graph)
    graph = flow()
    graph.to(Takes, "t", input_path="a").respond()
    assert plan_of(graph).objects["t"].input_path == "a"


# -- objects, routes, functions ---------------------------------------------------------------------------------------


def test_route_with_the_name_of_a_step_keeps_both_objects() -> None:
    graph = flow()
    graph.to(Times, "iris", factor=1)
    router = graph.add_step("*", "models", after="iris")
    router.add_route("iris", class_name=Times, factor=2)  # type: ignore[attr-defined]
    router.add_route("plain", handler=same)  # type: ignore[attr-defined]
    router.respond()
    objects = plan_of(graph).objects
    assert objects["iris"].factor == 1
    assert objects["models/iris"].factor == 2
    assert isinstance(objects["models"], ModelRouter)
    assert sorted(objects) == ["iris", "models", "models/iris"]


@pytest.mark.parametrize("on_error", [{"on_error": "skip"}, {"on_error": "default", "default": 1}])
def test_route_with_a_policy_for_failures_is_refused(on_error: dict[str, Any]) -> None:
    graph = RouterGraph()
    graph.add_route("m", class_name=Times, policy=on_error)
    with pytest.raises(GraphError, match=r"route 'm'.*for steps of a flow"):
        plan_of(graph)


def test_root_router_is_named_in_failures() -> None:
    graph = RouterGraph()
    graph.add_route("m", handler=lambda body: 1 / 0)
    with Running(graph) as running, pytest.raises(Exception, match=r"'router'|'m'"):
        running.loop({"inputs": []})


def test_current_function_runs_its_own_steps_only() -> None:
    graph = flow("sync")
    graph.to(same, "parent")
    graph.add_step(same, "one", after="parent", function="child")
    graph.add_step(same, "two", after="one", function="child")
    assert units(plan_of(graph, "child")) == ["two"]
    assert units(plan_of(graph, "")) == ["parent"]
    with pytest.raises(GraphError, match="other"):
        plan_of(graph, "other")


def test_queue_between_local_steps_passes_on_and_without_followers_needs_a_path() -> None:
    graph = flow()
    graph.to(same, "a").to("$queue", "q", path="").to(same, "b").respond()
    with Running(graph) as running:
        assert body_of(running.loop(3)) == 3
    graph = flow()
    graph.to(same, "a").to("$queue", "q", path="")
    with pytest.raises(GraphError, match="'q'"):
        plan_of(graph)


def test_queue_writes_events_whole_or_their_bodies() -> None:
    pushed: list[Any] = []

    class Stream:
        def push_data(self, data: Any, key: str | None = None) -> None:
            pushed.append((data, key))

    for full_event in (None, True):
        graph = flow("sync")
        graph.to(same, "a").to("$queue", "q", path="memory://x", full_event=full_event, group="g")
        opened: list[Any] = []
        context = GraphContext()

        def opener(path: str, opened: list[Any] = opened, **options: Any) -> Stream:
            opened.append((path, options))
            return Stream()

        context.stream_opener = opener
        plan = Compiler(graph, context).compile()
        event = Event({"n": 1}, event_id="e", headers={"H": "v"}, path="/p")
        event.key = "k"
        plan.units[-1].call.function(event)
        assert opened == [("memory://x", {"group": "g"})]
    assert pushed[0] == ({"n": 1}, "k")
    wrapped = pushed[1][0]
    assert (wrapped["full_event_wrapper"], wrapped["body"], wrapped["id"], wrapped["path"]) == (
        True,
        {"n": 1},
        "e",
        "/p",
    )
    assert wrapped["headers"] == {"h": "v"}


def test_graph_is_not_changed_by_compiling_it() -> None:
    graph = flow()
    graph.to(Times, "a", factor=3).to(same, "b").respond()
    before = graph.to_dict() if graph["b"].handler is None else {n: vars(s).copy() for n, s in graph.steps.items()}
    plan_of(graph)
    assert before == {n: vars(s) for n, s in graph.steps.items()}


def test_choice_of_a_coroutine_step_is_followed() -> None:
    class Chooses:
        async def do(self, body: Any) -> Any:
            await asyncio.sleep(0)
            return body + 1

        def select_outlets(self, body: Any) -> str:
            return "even" if body % 2 == 0 else "odd"

    graph = flow()
    graph.to(Chooses, "c")
    graph.add_step(lambda body: "even", "even", after="c")
    graph.add_step(lambda body: "odd", "odd", after="c")
    graph.add_step(same, "out", after=["even", "odd"]).respond()
    with Running(graph) as running:
        assert [body_of(running.loop(i)) for i in (1, 2)] == ["even", "odd"]
