from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_examples import CYCLE, FLOW, ROUTER

from servegraph.errors import SpecError
from servegraph.graph.builtin import Filter
from servegraph.graph.expressions import compile_expression
from servegraph.graph.flow import FlowGraph, Graph, RouterGraph
from servegraph.graph.policies import StepPolicy
from servegraph.graph.spec import (
    graph_from_dict,
    graph_from_json,
    graph_from_yaml,
    graph_to_dict,
    graph_to_json,
    graph_to_yaml,
    step_from_dict,
    step_to_dict,
)
from servegraph.graph.spec_fields import POLICY_TYPES
from servegraph.graph.steps import QueueStep, RouterStep, StepOptions


class Model:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def do(self, body: Any) -> Any:
        return body

    @classmethod
    def make(cls) -> Model:
        return cls()

    def to_dict(self) -> dict[str, Any]:
        return {"class_args": {"size": self.size}}


class Plain:
    def do(self, body: Any) -> Any:
        return body


def handle(body: Any) -> Any:
    return body


# -- what other tools write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [ROUTER, FLOW, CYCLE], ids=["router", "flow", "cycle"])
def test_spec_of_another_tool_exports_to_an_equal_dict(spec: dict[str, Any]) -> None:
    before = json.dumps(spec)
    graph = graph_from_dict(spec)
    assert graph_to_dict(graph) == spec
    assert json.dumps(spec) == before
    assert graph_to_dict(graph_from_json(graph_to_json(graph))) == spec
    assert graph_to_dict(graph_from_yaml(graph_to_yaml(graph))) == spec


def test_spec_keeps_the_order_of_its_steps() -> None:
    graph = graph_from_dict(FLOW)
    assert list(graph_to_dict(graph)["steps"]) == list(FLOW["steps"])
    assert graph_to_json(graph) == graph_to_json(graph_from_json(graph_to_json(graph)))


def test_strip_leaves_out_what_only_another_tool_needs() -> None:
    stripped = graph_to_dict(graph_from_dict(FLOW), strip=True)
    text = json.dumps(stripped)
    assert "endpoint_type" not in text
    assert "creation_strategy" not in text
    assert stripped["steps"]["catcher"]["base_step"] == "st"


def test_exported_dict_shares_nothing_with_the_graph() -> None:
    graph = graph_from_dict(FLOW)
    spec = graph_to_dict(graph)
    spec["steps"]["st"]["class_args"]["mul"] = 8
    spec["steps"]["st"]["after"].append("q1")
    assert graph_to_dict(graph) == FLOW


@pytest.mark.parametrize("kind", [None, "flow", "root"])
def test_flow_is_what_has_no_kind_or_says_flow(kind: str | None) -> None:
    graph = graph_from_dict({"kind": kind, "steps": {"a": {"handler": "f"}}})
    assert isinstance(graph, FlowGraph)
    assert "kind" not in graph_to_dict(graph)


def test_choice_is_read_as_a_task() -> None:
    step = step_from_dict("c", {"kind": "choice", "class_name": "Choose"})
    assert step_to_dict(step) == {"kind": "task", "class_name": "Choose"}


def test_after_is_written_as_a_list() -> None:
    graph = graph_from_dict({"steps": {"a": {"handler": "f"}, "b": {"handler": "f", "after": "a"}}})
    assert graph_to_dict(graph)["steps"]["b"]["after"] == ["a"]


def test_last_read_step_is_the_previous_one() -> None:
    graph = graph_from_dict({"steps": {"a": {"handler": "f"}}})
    assert isinstance(graph, FlowGraph)
    assert graph.add_step(handler="g", name="b", after="$prev").after == ["a"]


def test_set_flow_takes_dictionaries() -> None:
    graph = FlowGraph().set_flow([{"name": "a", "handler": "f"}, {"class_name": "pkg.Model"}])
    assert list(graph.steps) == ["a", "Model"]
    assert graph.steps["Model"].after == ["a"]


# -- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "$: a graph's spec must be an object, not list []"),
        ({"kind": "tree"}, "$.kind: a graph cannot be 'tree'; valid: flow, router"),
        ({"stepps": {}}, "$.stepps: a flow has no 'stepps'; did you mean 'steps'?"),
        ({"steps": []}, "$.steps: must be an object of steps by name"),
        ({"engine": "fast"}, "$.engine: must be one of sync, async, not 'fast'"),
        ({"allow_cyclic": "yes"}, "$.allow_cyclic: must be true or false, not 'yes'"),
        ({"max_iterations": 0}, "$.max_iterations: must be a whole number above 0, not 0"),
        ({"steps": {"enrich": {"hander": "f"}}}, "$.steps.enrich.hander: a step of kind 'task' has no 'hander'; did"),
        ({"steps": {"a b": {"handler": 7}}}, "$.steps['a b'].handler: must be a class's or function's name, not 7"),
        ({"steps": {"a": {"handler": ""}}}, "$.steps.a.handler: must be a class's or function's name"),
        ({"steps": {"a": {}}}, "$.steps.a: the step has no code: give class_name or handler"),
        ({"steps": {"a": "f"}}, "$.steps.a: a step's spec must be an object, not 'f'"),
        ({"steps": {"a/b": {"handler": "f"}}}, "'a/b' is no name of a step"),
        ({"steps": {"": {"handler": "f"}}}, "'' is no name of a step"),
        ({"steps": {1: {"handler": "f"}}}, "1 is no name of a step"),
        ({"steps": {"a": {"kind": "taks", "handler": "f"}}}, "there is no kind of step 'taks'; valid: task, router"),
        ({"steps": {"a": {"kind": 1, "handler": "f"}}}, "$.steps.a.kind: must be text, not 1"),
        ({"steps": {"a": {"kind": "flow", "steps": {}}}}, "a flow inside a flow is not supported: put its steps"),
        ({"steps": {"a": {"kind": "model_runner"}}}, "model runners are not supported: add the models as routes"),
        ({"steps": {"a": {"kind": "hub_task"}}}, "steps from a hub are not fetched: install the package"),
        ({"steps": {"a": {"kind": "monitoring_application"}}}, "turn monitoring on with set_tracking"),
        ({"steps": {"a": {"kind": "queue", "class_name": "C"}}}, "(only task and router and error_step steps have it)"),
        ({"steps": {"a": {"handler": "f", "routes": {}}}}, "has no 'routes' (only router steps have it)"),
        ({"steps": {"a": {"handler": "f", "name": "b"}}}, "named 'a' by its key and 'b' here"),
        ({"steps": {"a": {"handler": "f", "after": [1]}}}, "$.steps.a.after: must be a list of step names"),
        ({"steps": {"a": {"handler": "f", "policy": {"retry": 1}}}}, "$.steps.a.policy.retry: a policy has no"),
        ({"steps": {"a": {"handler": "f", "policy": {"retries": "x"}}}}, "policy.retries: must be a whole number"),
        ({"steps": {"a": {"handler": "f", "policy": {"on_error": "default"}}}}, "$.steps.a.policy: on_error='default'"),
        ({"kind": "router", "routes": []}, "$.routes: must be an object of routes by key"),
        ({"kind": "router", "routes": {"a": {"kind": "queue"}}}, "$.routes.a.kind: a route cannot be of kind 'queue'"),
        ({"kind": "router", "steps": {}}, "$.steps: a step of kind 'router' has no 'steps'"),
        ({7: "x"}, "$: the key 7 is int; keys are text"),
    ],
)
def test_wrong_spec_is_refused_with_its_place(spec: Any, message: str) -> None:
    with pytest.raises(SpecError) as failed:
        graph_from_dict(spec)
    assert message in str(failed.value)


def test_router_with_too_many_routes_is_refused() -> None:
    routes = {f"m{i}": {"class_name": "M"} for i in range(5001)}
    with pytest.raises(SpecError, match="at most 5000 routes"):
        graph_from_dict({"kind": "router", "routes": routes})


def test_policy_table_has_every_field_of_the_policy() -> None:
    assert list(POLICY_TYPES) == list(StepPolicy.__dataclass_fields__)


def test_null_default_of_a_policy_is_a_value() -> None:
    spec = {"steps": {"a": {"handler": "f", "policy": {"on_error": "default", "default": None, "timeout_s": None}}}}
    graph = graph_from_dict(spec)
    assert graph_to_dict(graph)["steps"]["a"]["policy"] == {"on_error": "default", "default": None}


# -- code -------------------------------------------------------------------------------------------------------------


def _only(graph: FlowGraph) -> dict[str, Any]:
    (step,) = graph_to_dict(graph)["steps"].values()
    return {k: v for k, v in step.items() if k != "kind"}


def _flow(*args: Any, **kwargs: Any) -> FlowGraph:
    graph = FlowGraph()
    graph.to(*args, **{"name": "a", **kwargs})
    return graph


def test_classes_and_functions_are_written_by_name() -> None:
    assert _only(_flow(Model, size=3)) == {"class_name": f"{__name__}.Model", "class_args": {"size": 3}}
    assert _only(_flow(handler=handle)) == {"handler": f"{__name__}.handle"}
    assert _only(_flow(handler=json.dumps)) == {"handler": "json.dumps"}
    assert _only(_flow(handler=math.sqrt)) == {"handler": "math.sqrt"}
    assert _only(_flow(Model.make)) == {"handler": f"{__name__}.Model.make"}


def test_class_of_main_is_written_by_its_bare_name() -> None:
    made = types.new_class("Mine")
    made.__module__, made.__qualname__ = "__main__", "Outer.Mine"
    assert _only(_flow(made)) == {"class_name": "Outer.Mine"}


def test_object_with_to_dict_is_written_as_class_and_arguments() -> None:
    assert _only(_flow(Model(5))) == {"class_name": f"{__name__}.Model", "class_args": {"size": 5}}
    assert _only(_flow(Model(5), size=6))["class_args"] == {"size": 6}


def test_functions_among_the_arguments_are_written_as_names_to_resolve() -> None:
    written = _only(_flow(Filter, fn=handle))
    assert written["class_args"] == {"_fn": f"{__name__}.handle"}
    written = _only(_flow(Filter, fn=compile_expression("event > 1")))
    assert written["class_args"] == {"_fn": "(event > 1)"}


def test_plain_arguments_are_copied() -> None:
    arguments = {"path": Path("models/a"), "pair": (1, 2.5), "deep": {"x": [None, True]}}
    assert _only(_flow(Plain, **arguments))["class_args"] == {
        "path": "models/a",
        "pair": [1, 2.5],
        "deep": {"x": [None, True]},
    }


def _local() -> Any:
    class Local:
        pass

    return Local


def _too_deep() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (_flow(handler=lambda body: body), "$.steps.a.handler: a lambda has no name to import it by"),
        (_flow(_local()), "$.steps.a.class_name: '_local.<locals>.Local' is defined inside a function"),
        (_flow(Plain()), "$.steps.a.class_name: an object of Plain without to_dict() cannot be written"),
        (_flow(handler=Plain().do), "$.steps.a.handler: test_spec.Plain.do is not this method: give the class"),
        (_flow(Plain, size={1, 2}), "$.steps.a.class_args.size: set {1, 2} is of type set"),
        (_flow(Plain, deep={"x": [1, object]}), "$.steps.a.class_args.deep.x[1]: <class 'object'> is of type type"),
        (_flow(Plain, deep={1: 2}), "$.steps.a.class_args.deep: the key 1 is int"),
        (_flow(Plain, rate=math.nan), "$.steps.a.class_args.rate: nan is no JSON number"),
        (_flow(Plain, big=2**70), "$.steps.a.class_args.big: the number needs more than 64 bits"),
        (_flow(Plain, text="\ud800"), "$.steps.a.class_args.text: '\\ud800' is not valid Unicode text"),
        (_flow(Plain, deep=_too_deep()), "the value is nested too deeply"),
        (_flow(Plain, fn=lambda: 0), "$.steps.a.class_args.fn: a lambda has no name"),
        (_flow(handler="f", policy=StepPolicy(on_error="default", default=b"")), "$.steps.a.policy.default: b''"),
    ],
)
def test_what_cannot_be_written_is_told_with_its_place(graph: FlowGraph, message: str) -> None:
    with pytest.raises(SpecError) as failed:
        graph_to_dict(graph)
    assert message in str(failed.value)


def test_class_that_its_module_no_longer_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("some_code")
    monkeypatch.setitem(sys.modules, "some_code", module)
    made = types.new_class("Mine")
    made.__module__ = "some_code"
    with pytest.raises(SpecError, match=r"some_code\.Mine is not this type"):
        graph_to_dict(_flow(made))
    module.Mine = made  # type: ignore[attr-defined]
    assert _only(_flow(made)) == {"class_name": "some_code.Mine"}


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps:\n  a:\n    hander: f\n", "line 3: $.steps.a.hander: a step of kind 'task' has no 'hander'"),
        ("steps:\n  a:\n    handler: f\n  a:\n    handler: g\n", "line 4, column 3: $.steps.a stands twice"),
        ("steps: [1", "line 2, column 1: this is no YAML that can be read"),
        ("steps:\n  a: !!python/name:os.system {}\n", "line 2, column 6: $.steps.a is of YAML's type 'python/name"),
        ("steps: {a: {handler: 2020-01-01}}", "is of YAML's type 'timestamp': write it in quotes"),
        ("steps: {on: {handler: f}}", "line 1, column 9: $.steps: the key True is no text: write it in quotes"),
        ("a: &x [*x]", "it is nested deeper than the 100 levels of lists and objects that are read, or holds itself"),
        ("", "the text is empty"),
        ("\0", "this is no YAML that can be read"),
        (b"\xff\xfe\xff", "this is no YAML that can be read"),
        pytest.param("[" * 1_000_000, "line 1, column 101: it is nested deeper than the 100 levels", id="deep"),
        pytest.param(
            "- " * 1_000_000 + "x", "line 1, column 201: it is nested deeper than the 100 levels", id="deep-block"
        ),
        ("x: 0x_\n", "this is no YAML that can be read"),
    ],
)
def test_wrong_yaml_is_refused_with_its_line(text: str | bytes, message: str) -> None:
    with pytest.raises(SpecError) as failed:
        graph_from_yaml(text)
    assert message in str(failed.value)


def test_yaml_whose_aliases_multiply_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(SpecError, match="aliases make more than 1000000 values"):
        graph_from_yaml("\n".join(lines))


def test_yaml_anchors_are_read_as_copies() -> None:
    text = "steps:\n  a: &one {class_name: M, class_args: {x: [1]}}\n  b: *one\n"
    graph = graph_from_yaml(text)
    assert isinstance(graph, FlowGraph)
    graph.steps["a"].class_args["x"].append(2)
    assert graph.steps["b"].class_args == {"x": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "steps": }', "line 2, column 11: this is no JSON"),
        ('{"steps": {"a": {"handler": "f"}, "a": {"handler": "g"}}}', "the key 'a' stands twice in one object"),
        ("[" * 100_000, "JSON"),
        (b"\xff", "this is no JSON"),
        ('{"steps": {"a": {"hander": "f"}}}', "$.steps.a.hander"),
    ],
)
def test_wrong_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(SpecError) as failed:
        graph_from_json(text)
    assert message in str(failed.value)


@pytest.mark.parametrize("read", [graph_from_json, graph_from_yaml])
def test_long_text_is_refused_unread(read: Any) -> None:
    with pytest.raises(SpecError, match="longer than the 8 MiB"):
        read(" " * (8 * 2**20 + 1))


# -- any graph --------------------------------------------------------------------------------------------------------

_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8
).filter(lambda t: not t[0].isspace())  # fmt: skip
_texts = st.text(st.characters(codec="utf-8"), max_size=12)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_arguments = st.dictionaries(_names, _values, max_size=3)
_policies = st.sampled_from(
    [
        None,
        StepPolicy(timeout_s=0.5, retries=2),
        StepPolicy(on_error="skip", max_in_flight=4, execution="thread"),
        StepPolicy(on_error="default", default=None),
        StepPolicy(on_error="fallback", fallback="x", backoff_s=0.0),
    ]
)
_options = st.builds(
    StepOptions,
    function=st.none() | _names,
    full_event=st.none() | st.booleans(),
    input_path=st.none() | _texts,
    result_path=st.none() | _texts,
    policy=_policies,
    mutates=st.none() | st.booleans(),
    model_endpoint_creation_strategy=st.none() | _texts,
    endpoint_type=st.none() | st.integers(0, 9),
    shape=st.none() | st.just("folder"),
    plot_label=st.none() | _texts,
    max_iterations=st.none() | st.integers(1, 100),
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs with every kind of step; not all of them could run."""
    if draw(st.booleans()):
        router = RouterGraph(draw(st.none() | _names), draw(_arguments), None, draw(st.just("") | _names))
        _draw_routes(draw, router)
        return router
    graph = FlowGraph(
        draw(st.sampled_from(["sync", "async"])),
        allow_cyclic=draw(st.booleans()),
        max_iterations=draw(st.none() | st.integers(1, 50)),
        fail_fast=draw(st.booleans()),
    )
    names = draw(st.lists(_names, min_size=1, max_size=5, unique=True))
    for position, name in enumerate(names):
        after = draw(st.lists(st.sampled_from(names[:position]), unique=True)) if position else []
        _draw_step(draw, graph, name, after)
    graph.extra = draw(st.just({}) | st.just({"model_endpoints_routes_names": names}))
    return graph


def _draw_step(draw: st.DrawFn, graph: FlowGraph, name: str, after: list[str]) -> None:
    kind = draw(st.sampled_from(["class", "handler", "router", "queue", "error"]))
    options = draw(_options)
    if kind == "error":
        target = next((s for s in graph.steps.values() if s.on_error is None), None)
        if target is not None:
            target.error_handler(name, handler="f", before=draw(st.lists(st.sampled_from([*graph.steps]), unique=True)))
            return
    if kind == "queue":
        step: Any = QueueStep(name, draw(_texts), draw(st.none() | st.integers(1, 9)), 3, draw(_arguments), options)
        step.stream_options = draw(_arguments)
    elif kind == "router":
        step = RouterStep(draw(st.none() | _names), draw(_arguments), None, name, options)
        _draw_routes(draw, step)
    else:
        step = FlowGraph().to("C" if kind == "class" else None, "s", "f", **vars_of(options))
        step.class_args = draw(_arguments)
        step.responder = draw(st.booleans())
    graph.insert_step(name, step, after=after)


def vars_of(options: StepOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in StepOptions.__dataclass_fields__}


def _draw_routes(draw: st.DrawFn, router: RouterStep) -> None:
    for key in draw(st.lists(_names, max_size=3, unique=True)):
        router.add_route(key, class_name=draw(_names), **vars_of(draw(_options)))


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_any_graph_comes_back_equal_from_dict_json_and_yaml(graph: Graph) -> None:
    spec = graph_to_dict(graph)
    assert graph_to_dict(graph_from_dict(spec)) == spec
    for back in (graph_from_json(graph_to_json(graph)), graph_from_yaml(graph_to_yaml(graph))):
        assert type(back) is type(graph)
        assert graph_to_json(back) == graph_to_json(graph)
