"""The table of topologies: what a graph means, one row each; run through every driver and edge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import servegraph
from servegraph import StepPolicy
from servegraph.errors import NotFoundError
from servegraph.graph.builtin import ChoiceByField, Filter, Merge
from servegraph.graph.events import DROP, Event, Response


@dataclass(frozen=True)
class Fails:
    """The request fails with this status, and the error names this step."""

    status: int
    step: str | None = None


@dataclass(frozen=True)
class NoResult:
    """The request ends without an answer; the reason holds this text."""

    because: str


@dataclass(frozen=True)
class Row:
    """One topology: how it is built, and what each body gives."""

    name: str
    build: Callable[[Any], None]
    cases: list[tuple[Any, Any]]
    engine: str = "async"
    topology: str = "flow"
    options: tuple[tuple[str, Any], ...] = ()

    def function(self) -> Any:
        """A function with this graph."""
        fn = servegraph.new_function(self.name)
        if self.topology == "router":
            self.build(fn)
        else:
            self.build(fn.set_topology("flow", engine=self.engine, **dict(self.options)))
        return fn


# -- the code of the steps --------------------------------------------------------------------------------------------


def add(x: Any) -> Any:
    return {**x, "n": x["n"] + 1}


def double(x: Any) -> Any:
    return {**x, "n": x["n"] * 2}


async def add_later(x: Any) -> Any:
    await asyncio.sleep(0)
    return {**x, "n": x["n"] + 1}


def mutate(x: Any) -> Any:
    x["seen"] = True
    x["rows"].append("mine")
    return x


def look(x: Any) -> Any:
    return {"rows": list(x["rows"]), "seen": x.get("seen", False)}


def boom(x: Any) -> Any:
    raise ValueError("boom")


def not_found(x: Any) -> Any:
    raise NotFoundError("nothing of that name")


def drop_odd(x: Any) -> Any:
    return DROP if x["n"] % 2 else x


def number(x: Any) -> Any:
    return x["n"]


def slow(x: Any) -> Any:
    time.sleep(0.3)
    return x


async def slow_async(x: Any) -> Any:
    await asyncio.sleep(5)
    return x


def recovered(event: Event) -> Event:
    event.body = {"error": f"{type(event.error).__name__}: {event.error}", "step": event.origin_state}
    return event


def whole(event: Event) -> Event:
    event.body = {"path": event.path, "n": event.body["n"]}
    return event


def stop_here(event: Event) -> Event:
    event.terminated = True
    event.body = "stopped"
    return event


def teapot(x: Any) -> Any:
    return Response(body={"tea": True}, status_code=299, headers={"x-kind": "teapot"})


class Flaky:
    """Fails a number of times for each event, then works."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def do(self, body: Any) -> Any:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError("not yet")
        return body


class Parity:
    """Counts up, and chooses by whether the number is even."""

    def do(self, body: Any) -> Any:
        return add(body)

    def select_outlets(self, body: Any) -> list[str]:
        return ["even" if body["n"] % 2 == 0 else "odd"]


class Enough:
    """Leads back until the number is large enough."""

    def select_outlets(self, body: Any) -> list[str]:
        return ["done" if body["n"] >= 5 else "inc"]


class Model(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        return [self.get_param("factor", 1) * x for x in request["inputs"]]


class AsyncModel(Model):
    async def predict(self, request: Any) -> Any:
        await asyncio.sleep(0)
        return [self.get_param("factor", 1) * x for x in request["inputs"]]


# -- the table --------------------------------------------------------------------------------------------------------


def _line(g: Any) -> None:
    g.to(name="a", handler=add).to(name="b", handler=double).to(name="c", handler=add).respond()


def _mixed_line(g: Any) -> None:
    g.to(name="a", handler=add).to(name="b", handler=add_later).to(name="c", handler=double).respond()


def _paths(g: Any) -> None:
    g.to(name="a", handler=number, input_path="in.x", result_path="out.y").to(
        name="b", handler=lambda v: v + 1, input_path="out.y", result_path="z"
    ).respond()


def _branches(g: Any) -> None:
    g.to(name="a", handler=add)
    g.add_step(name="left", handler=double, after="a")
    g.add_step(name="right", handler=add, after="a")
    g.add_step(Merge, name="join", after=["left", "right"]).respond()


def _isolated(g: Any) -> None:
    g.to(name="a", handler=lambda x: x)
    g.add_step(name="writer", handler=mutate, after="a")
    g.add_step(name="reader", handler=look, after="a")
    g.add_step(Merge, name="join", after=["writer", "reader"]).respond()


def _choice(g: Any) -> None:
    g.to(Parity, name="parity")
    g.add_step(name="even", handler=lambda x: {**x, "kind": "even"}, after="parity")
    g.add_step(name="odd", handler=lambda x: {**x, "kind": "odd"}, after="parity")
    g.add_step(name="out", handler=lambda x: x["kind"], after=["even", "odd"]).respond()


def _choice_by_field(g: Any) -> None:
    g.to(ChoiceByField, name="pick", field_name="go")
    g.add_step(name="up", handler=add, after="pick")
    g.add_step(name="down", handler=double, after="pick")
    g.add_step(name="out", handler=number, after=["up", "down"]).respond()


def _cycle(g: Any) -> None:
    g.to(name="inc", handler=add).to(Enough, name="enough", cycle_to="inc")
    g.add_step(name="done", handler=number, after="enough").respond()


def _handler_continues(g: Any) -> None:
    bad = g.to(name="bad", handler=boom)
    bad.error_handler("catch", handler=recovered, full_event=True, before="out")
    bad.to(name="out", handler=lambda x: {**x, "out": True}).respond()


def _handler_ends(g: Any) -> None:
    bad = g.to(name="a", handler=add).to(name="bad", handler=boom)
    bad.error_handler("catch", handler=recovered, full_event=True)
    bad.to(name="out", handler=lambda x: "never").respond()


def _graph_handler(g: Any) -> None:
    g.error_handler("catch", handler=recovered, full_event=True)
    g.to(name="a", handler=add).to(name="bad", handler=boom).to(name="c", handler=add).respond()


def _policy(policy: StepPolicy, handler: Any = boom, **extra: Any) -> Callable[[Any], None]:
    def build(g: Any) -> None:
        g.to(name="a", handler=add).to(name="bad", handler=handler, policy=policy, **extra).to(
            name="out", handler=add
        ).respond()

    return build


def _retry(g: Any) -> None:
    g.to(Flaky, name="flaky", failures=2, policy=StepPolicy(retries=2, backoff_s=0.001)).to(
        name="out", handler=number
    ).respond()


def _fallback(g: Any) -> None:
    g.to(name="bad", handler=boom, policy=StepPolicy(on_error="fallback", fallback="plan_b")).to(
        name="out", handler=number
    ).respond()
    g.add_step(name="plan_b", handler=lambda x: {"n": 77})


def _mid_responder(g: Any) -> None:
    g.to(name="a", handler=add).respond().to(name="later", handler=boom)


def _side_branch(g: Any) -> None:
    g.to(name="a", handler=add)
    g.add_step(name="log", handler=boom, after="a")
    g.add_step(name="out", handler=number, after="a").respond()


def _partial_merge(partial: bool) -> Callable[[Any], None]:
    def build(g: Any) -> None:
        g.to(name="a", handler=lambda x: x)
        g.add_step(name="odd", handler=drop_odd, after="a")
        g.add_step(name="all", handler=number, after="a")
        g.add_step(Merge, name="join", after=["odd", "all"], partial=partial).respond()

    return build


def _handler_sees(chained: bool) -> Callable[[Any], None]:
    def build(g: Any) -> None:
        g.error_handler("catch", handler=lambda event: event, full_event=True)
        first = g.to(name="a", handler=add if chained else whole, full_event=None if chained else True)
        first.to(name="bad", handler=boom).respond()

    return build


def _stand_in(g: Any) -> None:
    g.to(name="a", handler=add)
    bad = g.add_step(name="left", handler=boom, after="a")
    bad.error_handler("catch", handler=lambda x: "stand-in", before="join")
    g.add_step(name="right", handler=number, after="a")
    g.add_step(Merge, name="join", after=["left", "right"]).respond()


def _nested_branches(g: Any) -> None:
    g.to(name="a", handler=add)
    g.add_step(name="left", handler=double, after="a")
    g.add_step(name="right", handler=add, after="a")
    g.add_step(name="r1", handler=number, after="right")
    g.add_step(name="r2", handler=double, after="right")
    g.add_step(Merge, name="inner", after=["r1", "r2"])
    g.add_step(Merge, name="join", after=["left", "inner"]).respond()


def _partial_behind_partial(g: Any) -> None:
    g.to(name="a", handler=lambda x: x)
    g.add_step(name="c", handler=number, after="a")
    g.add_step(name="all", handler=add, after="a")
    g.add_step(name="odd", handler=drop_odd, after="a")
    g.add_step(Merge, name="outer", after="c", partial=True)
    g.add_step(Merge, name="inner", after=["all", "odd"], partial=True)
    g["outer"].after_step("inner").respond()


def _choice_of_several(g: Any) -> None:
    g.to(ChoiceByField, name="pick", field_name="go")
    for name, handler in (("up", add), ("down", double), ("same", number)):
        g.add_step(name=name, handler=handler, after="pick")
    g.add_step(Merge, name="join", after=["up", "down", "same"], partial=True).respond()


class ChoosesNone:
    def select_outlets(self, body: Any) -> list[str]:
        return []


def _choice_of_none(g: Any) -> None:
    g.to(ChoosesNone, name="none").to(name="out", handler=number).respond()


def _several_starts(g: Any) -> None:
    g.to(name="a", handler=add)
    g.to(name="b", handler=double)
    g.add_step(Merge, name="join", after=["a", "b"]).respond()


def _responder_in_a_branch(g: Any) -> None:
    g.to(name="a", handler=add)
    g.add_step(name="log", handler=mutate, after="a")
    g.add_step(name="out", handler=number, after="a").respond()
    g.add_step(name="later", handler=boom, after="out")


def _queue(g: Any) -> None:
    g.to(name="a", handler=add).to("$queue", "q", path="").to(name="b", handler=double).respond()


def _made_anew(g: Any) -> None:
    g.to(name="anew", handler=lambda event: Event({"inputs": [event.body["n"]]}), full_event=True)
    router = g.add_step("*", name="models", after="anew")
    router.add_route("m", class_name=Model, factor=2)
    g.add_step(name="out", handler=lambda x: x["outputs"], after="models").respond()


def _retries_then_fallback(g: Any) -> None:
    policy = StepPolicy(retries=2, backoff_s=0.001, on_error="fallback", fallback="plan_b")
    g.to(name="bad", handler=boom, policy=policy).to(name="out", handler=number).respond()
    g.add_step(name="plan_b", handler=lambda x: {"n": 7})


def next_of_none(x: Any) -> Any:
    return next(iter([]))


def _answer(value: Any) -> Callable[[Any], None]:
    return lambda g: g.to(name="a", handler=lambda x: value).respond() and None


def _router_in_flow(g: Any) -> None:
    g.to(name="pre", handler=lambda x: {"inputs": [x["n"]]})
    router = g.add_step("*", name="models", after="pre")
    router.add_route("m", class_name=Model, factor=3)
    router.add_route("n", class_name=AsyncModel, factor=5)
    g.add_step(name="out", handler=lambda x: x["outputs"], after="models").respond()


def _router(fn: Any) -> None:
    fn.set_topology("router")
    fn.add_model("m", class_name=Model, factor=3)


def _async_router(fn: Any) -> None:
    fn.set_topology("router")
    fn.add_model("m", class_name=AsyncModel, factor=4)


FALSY: list[Any] = [None, 0, False, [], {}, "", 0.5]
OUTPUTS = "outputs"
"""Stands for an answer of a model; only its outputs are compared."""

ROWS = [
    Row("line sync", _line, [({"n": 1}, {"n": 5})], "sync"),
    Row("line async", _line, [({"n": 1}, {"n": 5})]),
    Row("line with a coroutine", _mixed_line, [({"n": 1}, {"n": 6})]),
    Row("line with a coroutine, sync engine", _mixed_line, [({"n": 1}, {"n": 6})], "sync"),
    Row(
        "sync flow answers with its last step",
        lambda g: g.to(name="a", handler=add) and None,
        [({"n": 1}, {"n": 2})],
        "sync",
    ),
    Row("body mapping", _paths, [({"in": {"x": {"n": 4}}}, {"in": {"x": {"n": 4}}, "out": {"y": 4}, "z": 5})]),
    Row(
        "body mapping sync",
        _paths,
        [({"in": {"x": {"n": 4}}}, {"in": {"x": {"n": 4}}, "out": {"y": 4}, "z": 5})],
        "sync",
    ),
    Row(
        "full event",
        lambda g: g.to(name="w", handler=whole, full_event=True).respond() and None,
        [({"n": 1}, {"path": "/", "n": 1})],
    ),
    Row("explicit response", lambda g: g.to(name="t", handler=teapot).respond() and None, [({}, {"tea": True})]),
    Row(
        "terminated",
        lambda g: g.to(name="s", handler=stop_here, full_event=True).to(name="x", handler=boom).respond() and None,
        [({}, "stopped")],
    ),
    Row("branches join in order", _branches, [({"n": 1}, [{"n": 4}, {"n": 3}])]),
    Row("branches join in order, sync", _branches, [({"n": 1}, [{"n": 4}, {"n": 3}])], "sync"),
    Row(
        "branches are isolated",
        _isolated,
        [({"rows": ["a"]}, [{"rows": ["a", "mine"], "seen": True}, {"rows": ["a"], "seen": False}])],
    ),
    Row(
        "branches are isolated, sync",
        _isolated,
        [({"rows": ["a"]}, [{"rows": ["a", "mine"], "seen": True}, {"rows": ["a"], "seen": False}])],
        "sync",
    ),
    Row("choice of its own", _choice, [({"n": 1}, "even"), ({"n": 2}, "odd")]),
    Row("choice of its own, sync", _choice, [({"n": 1}, "even"), ({"n": 2}, "odd")], "sync"),
    Row(
        "choice by field",
        _choice_by_field,
        [
            ({"n": 1, "go": "up"}, 2),
            ({"n": 4, "go": ["down"]}, 8),
            ({"n": 1}, Fails(422, "pick")),
            ({"n": 1, "go": "sideways"}, Fails(500, "pick")),
        ],
    ),
    Row("cycle", _cycle, [({"n": 1}, 5)], options=(("allow_cyclic", True),)),
    Row(
        "cycle without end",
        _cycle,
        [({"n": -50}, Fails(500, "inc"))],
        options=(("allow_cyclic", True), ("max_iterations", 10)),
    ),
    Row("cycle sync", _cycle, [({"n": 1}, 5)], "sync", options=(("allow_cyclic", True),)),
    Row(
        "filter",
        lambda g: g.to(Filter, name="f", _fn="(event['n'] > 1)").to(name="o", handler=number).respond() and None,
        [({"n": 2}, 2), ({"n": 1}, NoResult("'f'"))],
    ),
    Row(
        "filter sync",
        lambda g: g.to(Filter, name="f", _fn="(event['n'] > 1)").to(name="o", handler=number).respond() and None,
        [({"n": 2}, 2), ({"n": 1}, NoResult("'f'"))],
        "sync",
    ),
    Row(
        "dropped in a chain",
        lambda g: (
            g.to(name="a", handler=add).to(name="d", handler=drop_odd).to(name="o", handler=number).respond() and None
        ),
        [({"n": 1}, 2), ({"n": 2}, NoResult("'d'"))],
    ),
    Row(
        "user code fails",
        lambda g: g.to(name="a", handler=add).to(name="bad", handler=boom).to(name="z", handler=add).respond() and None,
        [({"n": 1}, Fails(500, "bad"))],
    ),
    Row(
        "user code fails, sync",
        lambda g: g.to(name="a", handler=add).to(name="bad", handler=boom).respond() and None,
        [({"n": 1}, Fails(500, "bad"))],
        "sync",
    ),
    Row(
        "user code refuses",
        lambda g: g.to(name="nf", handler=not_found).respond() and None,
        [({"n": 1}, Fails(404, "nf"))],
    ),
    Row("handler goes on", _handler_continues, [({"n": 1}, {"error": "ValueError: boom", "step": "bad", "out": True})]),
    Row(
        "handler goes on, sync",
        _handler_continues,
        [({"n": 1}, {"error": "ValueError: boom", "step": "bad", "out": True})],
        "sync",
    ),
    Row("handler ends", _handler_ends, [({"n": 1}, {"error": "ValueError: boom", "step": "bad"})]),
    Row("handler ends, sync", _handler_ends, [({"n": 1}, {"error": "ValueError: boom", "step": "bad"})], "sync"),
    Row("graph handler", _graph_handler, [({"n": 1}, {"error": "ValueError: boom", "step": "bad"})]),
    Row("graph handler, sync", _graph_handler, [({"n": 1}, {"error": "ValueError: boom", "step": "bad"})], "sync"),
    Row("policy skip", _policy(StepPolicy(on_error="skip")), [({"n": 1}, {"n": 3})]),
    Row("policy skip, sync", _policy(StepPolicy(on_error="skip")), [({"n": 1}, {"n": 3})], "sync"),
    Row(
        "policy default",
        _policy(StepPolicy(on_error="default", default={"n": 9})),
        [({"n": 1}, {"n": 10}), ({"n": 1}, {"n": 10})],
    ),
    Row("policy fallback", _fallback, [({"n": 1}, 77)]),
    Row("policy retries", _retry, [({"n": 6}, 6)]),
    Row("policy timeout of a thread", _policy(StepPolicy(timeout_s=0.05), slow), [({"n": 1}, Fails(504, "bad"))]),
    Row(
        "policy timeout of a coroutine",
        _policy(StepPolicy(timeout_s=0.05), slow_async),
        [({"n": 1}, Fails(504, "bad"))],
    ),
    Row(
        "policy timeout, then default",
        _policy(StepPolicy(timeout_s=0.05, on_error="default", default={"n": 0}), slow_async),
        [({"n": 1}, {"n": 1})],
    ),
    Row("responder in the middle", _mid_responder, [({"n": 1}, {"n": 2})]),
    Row("responder in the middle, sync", _mid_responder, [({"n": 1}, {"n": 2})], "sync"),
    Row("side branch fails", _side_branch, [({"n": 1}, 2)]),
    Row("side branch fails, sync", _side_branch, [({"n": 1}, 2)], "sync"),
    Row(
        "merge of what did not come", _partial_merge(False), [({"n": 2}, [{"n": 2}, 2]), ({"n": 1}, NoResult("'join'"))]
    ),
    Row("partial merge", _partial_merge(True), [({"n": 2}, [{"n": 2}, 2]), ({"n": 1}, [1])]),
    Row("partial merge behind a partial merge", _partial_behind_partial, [({"n": 1}, [1, [{"n": 2}]])]),
    Row("partial merge behind a partial merge, sync", _partial_behind_partial, [({"n": 1}, [1, [{"n": 2}]])], "sync"),
    Row("branches within branches", _nested_branches, [({"n": 1}, [{"n": 4}, [3, {"n": 6}]])]),
    Row("branches within branches, sync", _nested_branches, [({"n": 1}, [{"n": 4}, [3, {"n": 6}]])], "sync"),
    Row("handler stands in for a branch", _stand_in, [({"n": 1}, ["stand-in", 2])]),
    Row("handler stands in for a branch, sync", _stand_in, [({"n": 1}, ["stand-in", 2])], "sync"),
    Row("graph handler sees the body in a chain", _handler_sees(True), [({"n": 1}, {"n": 2})]),
    Row("graph handler sees the body", _handler_sees(False), [({"n": 1}, {"path": "/", "n": 1})]),
    Row(
        "choice of several",
        _choice_of_several,
        [({"n": 1, "go": ["up", "same"]}, [{"n": 2, "go": ["up", "same"]}, 1]), ({"n": 1, "go": ["same"]}, [1])],
    ),
    Row("choice of none", _choice_of_none, [({"n": 1}, NoResult("'none'"))]),
    Row("choice of none, sync", _choice_of_none, [({"n": 1}, NoResult("'none'"))], "sync"),
    Row("several starts", _several_starts, [({"n": 3}, [{"n": 4}, {"n": 6}])]),
    Row("several starts, sync", _several_starts, [({"n": 3}, [{"n": 4}, {"n": 6}])], "sync"),
    Row("responder in a branch", _responder_in_a_branch, [({"n": 1, "rows": []}, 2)]),
    Row("responder in a branch, sync", _responder_in_a_branch, [({"n": 1, "rows": []}, 2)], "sync"),
    Row("queue within a function", _queue, [({"n": 1}, {"n": 4})]),
    Row("event made anew", _made_anew, [({"n": 3}, [6])]),
    Row("event made anew, sync", _made_anew, [({"n": 3}, [6])], "sync"),
    Row("policy retries, then fallback", _retries_then_fallback, [({"n": 1}, 7)]),
    Row(
        "user code fails with StopIteration",
        lambda g: g.to(name="a", handler=add).to(name="bad", handler=next_of_none).respond() and None,
        [({"n": 1}, Fails(500, "bad"))],
    ),
    *[Row(f"answer {value!r}", _answer(value), [({}, value)]) for value in FALSY],
    Row("router in a flow", _router_in_flow, [({"n": 7}, [21])]),
    Row("router in a flow, sync", _router_in_flow, [({"n": 7}, [21])], "sync"),
    Row(
        "router",
        _router,
        [
            ({"inputs": [1, 2]}, {OUTPUTS: [3, 6]}),
            ({"inputs": 1}, Fails(422)),
            ({"model": "x", "inputs": [1]}, Fails(404)),
        ],
        topology="router",
    ),
    Row("router of a coroutine model", _async_router, [({"inputs": [1, 2]}, {OUTPUTS: [4, 8]})], topology="router"),
]
