"""Random graphs, run in both drivers, against a small interpreter of their own that knows nothing of the engine."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graph_kit import INLINE, THREADS, Running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servegraph.errors import ServegraphError
from servegraph.graph.builtin import Filter, Merge
from servegraph.graph.engine import Outcome
from servegraph.graph.events import Event
from servegraph.graph.flow import FlowGraph
from servegraph.graph.policies import StepPolicy

Body = dict[str, Any]
MOST_STEPS = 12


# -- what a graph is made of ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Changes its body in place: adds to ``n`` and writes its name into the log."""

    add: int
    later: bool


@dataclass(frozen=True)
class Drop:
    """Ends events whose ``n`` can be divided."""

    by: int


@dataclass(frozen=True)
class Fail:
    """Fails for events whose ``n`` can be divided; ``what`` is done about it."""

    by: int
    what: str
    later: bool


@dataclass(frozen=True)
class Choice:
    """One of several lines by the rest of ``n``, and a step where they come together again."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Branches:
    """Several lines at once, a merge, and a step that makes one body of the list."""

    lines: tuple[Line, ...]
    partial: bool


Block = Step | Drop | Fail | Choice | Branches
Line = tuple[Block, ...]

POLICIES: dict[str, dict[str, Any]] = {
    "fail": {},
    "skip": {"on_error": "skip"},
    "default": {"on_error": "default", "default": {"n": 100, "log": ["default"]}},
    "retry": {"retries": 1, "backoff_s": 0.0},
    "retry, skip": {"retries": 1, "backoff_s": 0.0, "on_error": "skip"},
    "in time": {"timeout_s": 20.0},
}

steps = st.builds(Step, st.integers(-3, 3), st.booleans())
fails = st.builds(Fail, st.integers(1, 3), st.sampled_from(sorted(POLICIES)), st.booleans())
leaves = st.one_of(steps, steps, st.builds(Drop, st.integers(1, 4)), fails)
lines = st.recursive(
    st.lists(leaves, min_size=1, max_size=3).map(tuple),
    lambda inner: st.tuples(
        st.one_of(
            st.builds(Choice, st.lists(inner, min_size=1, max_size=3).map(tuple)),
            st.builds(Branches, st.lists(inner, min_size=1, max_size=3).map(tuple), st.booleans()),
        ),
        leaves,
    ),
    max_leaves=6,
)


def size(line: Line) -> int:
    """How many steps a line becomes."""
    return sum(map(_size, line))


def _size(block: Block) -> int:
    if isinstance(block, (Choice, Branches)):
        return (2 if isinstance(block, Choice) else 3) + sum(map(size, block.lines))
    return 1


# -- the graph --------------------------------------------------------------------------------------------------------


def change(name: str, add: int) -> Callable[[Body], Body]:
    def code(body: Body) -> Body:
        body["n"] += add
        body["log"].append(name)
        return body

    return code


def later(code: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def run(body: Any) -> Any:
        await asyncio.sleep(0)
        return code(body)

    return run


def failing(by: int) -> Callable[[Body], Body]:
    def code(body: Body) -> Body:
        if body["n"] % by == 0:
            raise ArithmeticError("divisible")
        return body

    return code


def join(bodies: list[Body]) -> Body:
    return {"n": sum(b["n"] for b in bodies), "log": [b["log"] for b in bodies]}


class Chooser:
    """Leads to the outlet that the rest of ``n`` names."""

    def __init__(self, outlets: list[str]) -> None:
        self.outlets = outlets

    def select_outlets(self, body: Body) -> str:
        number: int = body["n"]
        return self.outlets[number % len(self.outlets)]


class Builder:
    """Makes a `FlowGraph` of a line."""

    def __init__(self, engine: str) -> None:
        self.graph = FlowGraph(engine)
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def line(self, line: Line, after: list[str]) -> list[str]:
        """Add a line behind steps; the names of its ends."""
        for block in line:
            after = [self.block(block, after)]
        return after

    def block(self, block: Block, after: list[str]) -> str:
        name = self.name()
        add = self.graph.add_step
        if isinstance(block, Step):
            code = change(name, block.add)
            add(later(code) if block.later else code, name, after=after)
        elif isinstance(block, Drop):
            add(Filter, name, after=after, fn=lambda body: body["n"] % block.by != 0)
        elif isinstance(block, Fail):
            bad = failing(block.by)
            add(later(bad) if block.later else bad, name, after=after, policy=StepPolicy(**POLICIES[block.what]))
        elif isinstance(block, Choice):
            outlets: list[str] = []
            add(Chooser, name, after=after, outlets=outlets)
            ends: list[str] = []
            for line in block.lines:
                outlets.append(f"s{self.count + 1}")
                ends += self.line(line, [name])
            name = self.name()
            add(change(name, 0), name, after=ends)
        else:
            add(change(name, 0), name, after=after)
            ends = [end for line in block.lines for end in self.line(line, [name])]
            merge = self.name()
            add(Merge, merge, after=ends, partial=block.partial)
            name = self.name()
            # A merge of one line passes its event on as it is.
            add(join if len(ends) > 1 else (lambda body: join([body])), name, after=merge)
        return name


# -- the interpreter --------------------------------------------------------------------------------------------------


class Dropped(Exception):
    """The event ended."""


class Failed(Exception):
    """The request failed at a step."""


class Interpreter:
    """Says what a line makes of a body; bodies are never shared and never changed."""

    def __init__(self) -> None:
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def line(self, line: Line, body: Body) -> Body:
        for i, block in enumerate(line):
            try:
                body = self.block(block, body)
            except (Dropped, Failed):
                self.count += size(line[i + 1 :])
                raise
        return body

    def block(self, block: Block, body: Body) -> Body:
        name = self.name()
        if isinstance(block, Step):
            return {"n": body["n"] + block.add, "log": [*body["log"], name]}
        if isinstance(block, Drop):
            if body["n"] % block.by == 0:
                raise Dropped
            return body
        if isinstance(block, Fail):
            return self.fail(block, body, name)
        return self.choice(block, body) if isinstance(block, Choice) else self.branches(block, body, name)

    def fail(self, block: Fail, body: Body, name: str) -> Body:
        if body["n"] % block.by != 0 or "skip" in block.what:
            return body
        if block.what == "default":
            return {"n": 100, "log": ["default"]}
        raise Failed(name)

    def choice(self, block: Choice, body: Body) -> Body:
        chosen = body["n"] % len(block.lines)
        outcome: Body | Exception | None = None
        for i, line in enumerate(block.lines):
            if i == chosen:
                outcome = self.attempt(line, body)
            else:
                self.count += size(line)
        name = self.name()
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return {"n": outcome["n"], "log": [*outcome["log"], name]}

    def branches(self, block: Branches, body: Body, name: str) -> Body:
        body = {"n": body["n"], "log": [*body["log"], name]}
        outcomes = [self.attempt(line, body) for line in block.lines]
        self.count += 2
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                raise outcome
        arrived = [o for o in outcomes if not isinstance(o, Exception)]
        if not arrived or (len(arrived) < len(outcomes) and not block.partial):
            raise Dropped
        return join(arrived)

    def attempt(self, line: Line, body: Body) -> Body | Exception:
        try:
            return self.line(line, body)
        except (Dropped, Failed) as exc:
            return exc


def expected(line: Line, body: Body) -> Any:
    try:
        return Interpreter().line(line, body)
    except Dropped:
        return "dropped"
    except Failed as exc:
        return f"failed at {exc}"


def told(run: Callable[[Any], Outcome], body: Body) -> Any:
    try:
        outcome = run(copy.deepcopy(body))
    except ServegraphError as exc:
        return f"failed at {exc.step}"
    return outcome.body if isinstance(outcome, Event) else "dropped"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(lines.filter(lambda line: size(line) <= MOST_STEPS), st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_random_graph_means_the_same_in_every_driver_and_in_the_interpreter(line: Line, numbers: list[int]) -> None:
    for engine in ("sync", "async"):
        builder = Builder(engine)
        (end,) = builder.line(line, [])
        builder.graph[end].respond()
        for limits in (INLINE, THREADS):
            with Running(builder.graph, limits, threads=2) as running:
                for n in numbers:
                    body = {"n": n, "log": []}
                    wanted = expected(line, body)
                    assert told(running.loop, body) == wanted
                    if running.plan.plain:
                        assert told(running.plain, body) == wanted
