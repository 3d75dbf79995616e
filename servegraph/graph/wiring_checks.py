"""What can be wrong in the wiring of a flow: names, loops, ends, answers. Needs no code to be imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from servegraph.errors import closest
from servegraph.graph.flow import FlowGraph
from servegraph.graph.problems import Level, Problem, TraitsOf
from servegraph.graph.steps import ErrorStep, QueueStep, Step

Edges = Mapping[str, Sequence[str]]


def wiring_problems(graph: FlowGraph, current: str, traits: TraitsOf) -> Iterator[Problem]:
    """The problems of a flow's wiring, the plainest first."""
    if not graph.steps:
        yield Problem("error", None, "no-steps", "the graph has no steps: add one with graph.to(...)")
        return
    wiring = Wiring(graph, current, traits)
    if not wiring.local:
        functions = {s.function for s in graph.steps.values() if s.function}
        message = f"function {current!r} runs no step of the graph; {closest(current, functions)}"
        yield Problem("error", None, "no-steps", message)
    for rule in _RULES:
        yield from rule(wiring)


class Wiring:
    """A flow as edges between names; edges to steps that are not there are left out.

    Args:
        graph: the flow.
        current: the function whose steps run here; ``"*"`` is all.
        traits: tells what a step's code does.
    """

    def __init__(self, graph: FlowGraph, current: str, traits: TraitsOf) -> None:
        self.graph = graph
        self.current = current
        self.steps = graph.steps
        self.traits = {name: traits(step) for name, step in graph.steps.items()}
        self.fallbacks = {s.policy.fallback for s in graph.steps.values() if s.policy.fallback}
        self.local = {n for n, s in graph.steps.items() if current in ("*", "") or _in(s.function, current)}
        self.next: dict[str, list[str]] = {name: [] for name in graph.steps}
        for name, step in graph.steps.items():
            for before in step.after:
                self._link(before, name)
            if isinstance(step, ErrorStep):
                for following in step.before:
                    self._link(name, following)
        self.rescue = {name: self._rescue(step) for name, step in graph.steps.items()}

    def _link(self, source: str, target: str) -> None:
        if source in self.next and target in self.next and target not in self.next[source]:
            self.next[source].append(target)

    def _rescue(self, step: Step) -> list[str]:
        names = (step.on_error, step.policy.fallback)
        return [n for n in names if n is not None and n in self.steps]

    def all_edges(self) -> dict[str, list[str]]:
        """Every way that an event may take, also after a failure."""
        edges = {name: [*self.next[name], *self.rescue[name]] for name in self.steps}
        for name, step in self.steps.items():
            fallback = step.policy.fallback
            if fallback in edges:
                edges[fallback].extend(self.next[name])
        return edges

    def followers(self, name: str) -> list[str]:
        """The steps here that run after this one, without going back."""
        return [n for n in self.next[name] if n in self.local and name not in self.steps[n].cycle_from]

    def starts(self) -> list[str]:
        """The steps at which an event enters this function."""
        entered = {n for name in self.local for n in self.followers(name)}
        return [
            n
            for n, s in self.steps.items()
            if n in self.local and n not in entered and n not in self.fallbacks and not isinstance(s, ErrorStep)
        ]


def _in(function: str | None, current: str) -> bool:
    return function in (None, "", "*", current)


# -- names -------------------------------------------------------------------------------------------------------------


def _names(wiring: Wiring) -> Iterator[Problem]:
    for name, step in wiring.steps.items():
        lists: list[tuple[str, Iterable[str], Level]] = [
            ("after", step.after, "error"),
            ("cycle_from", step.cycle_from, "error"),
            ("on_error", [step.on_error] if step.on_error else [], "error"),
            ("policy.fallback", [step.policy.fallback] if step.policy.fallback else [], "error"),
        ]
        if isinstance(step, ErrorStep):
            lists += [("before", step.before, "error"), ("base_step", filter(None, [step.base_step]), "warning")]
        for where, names, level in lists:
            for unknown in (n for n in names if n not in wiring.steps):
                message = f"{where} names {unknown!r}, which is no step; {closest(unknown, wiring.steps)}"
                yield Problem(level, name, "unknown-step", message)
    handler = wiring.graph.on_error
    if handler is not None and handler not in wiring.steps:
        message = f"the graph's on_error names {handler!r}, which is no step; {closest(handler, wiring.steps)}"
        yield Problem("error", None, "unknown-step", message)


def _handlers(wiring: Wiring) -> Iterator[Problem]:
    for name, step in wiring.steps.items():
        for kind, target in (("on_error", step.on_error), ("fallback", step.policy.fallback)):
            if target is not None and target in wiring.steps:
                yield from _handler(wiring, name, kind, target)
        wired = isinstance(step, ErrorStep) or name in wiring.fallbacks
        if wired and step.after:
            role = "handles failures" if isinstance(step, ErrorStep) else "is a fallback"
            message = f"it {role} and also runs after {', '.join(step.after)}: it runs in both cases"
            yield Problem("warning", name, "handler-wired", message)
    handler = wiring.steps.get(wiring.graph.on_error or "")
    if handler is not None and not isinstance(handler, ErrorStep):
        yield Problem("error", handler.name, "no-handler", "the graph's on_error must name an error step")
    elif handler is not None and handler.before:
        message = "a handler for the whole graph ends it: 'before' is for a step's own handler"
        yield Problem("error", handler.name, "handler-before", message)


def _handler(wiring: Wiring, name: str, kind: str, target: str) -> Iterator[Problem]:
    step, handler = wiring.steps[name], wiring.steps[target]
    if target == name:
        yield Problem("error", name, "own-handler", f"{kind} names the step itself: name another one")
    elif kind == "on_error" and not isinstance(handler, ErrorStep):
        message = f"on_error names {target!r}, a {handler.kind}: make an error step with step.error_handler(...)"
        yield Problem("error", name, "no-handler", message)
    elif not _in(handler.function, step.function or ""):
        message = f"{kind} names {target!r} of function {handler.function!r}: both must run in the same function"
        yield Problem("error", name, "handler-elsewhere", message)


# -- loops and reach ---------------------------------------------------------------------------------------------------


def find_loop(edges: Edges) -> list[str] | None:
    """The names along one loop, the first again at the end; None when there is none."""
    done: set[str] = set()
    for root in edges:
        if root in done:
            continue
        path, on_path = [root], {root}
        ways = [iter(edges[root])]
        while path:
            following = next(ways[-1], None)
            if following is None:
                ways.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                on_path.add(following)
                ways.append(iter(edges[following]))
    return None


def _loops(wiring: Wiring) -> Iterator[Problem]:
    if not wiring.graph.allow_cyclic:
        loop = find_loop(wiring.all_edges())
        if loop:
            message = (
                f"the steps form a loop: {' -> '.join(loop)}; set_topology('flow', allow_cyclic=True) allows loops"
            )
            yield Problem("error", loop[0], "loop", message)
        return
    # A loop goes on for ever if no step on it may choose another way or end the event.
    blind = [n for n, s in wiring.steps.items() if not s.full_event and _never_leaves(wiring, n)]
    loop = find_loop({n: [f for f in wiring.next[n] if f in blind] for n in blind})
    if loop:
        message = (
            f"the loop {' -> '.join(loop)} never ends: give it a step that chooses the next one (with select_outlets)"
        )
        yield Problem("error", loop[0], "endless-loop", message)


def _never_leaves(wiring: Wiring, name: str) -> bool:
    traits = wiring.traits[name]
    return traits.chooses is False and traits.filters is False


def _reach(wiring: Wiring) -> Iterator[Problem]:
    starts = wiring.graph.starts()
    if not starts:
        yield Problem("error", None, "no-start", "every step runs after another one: none gets what the caller sends")
        return
    edges = wiring.all_edges()
    reached: set[str] = set()
    waiting = [n for n in (*starts, wiring.graph.on_error) if n in wiring.steps]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(edges[name])
    for name, step in wiring.steps.items():
        if name in reached:
            continue
        if isinstance(step, ErrorStep):
            yield Problem("warning", name, "unused-handler", "no step's on_error names it: it never runs")
        elif all(n in wiring.steps for n in step.after):
            message = f"it is never reached: nothing that runs leads to {' or '.join(step.after)}"
            yield Problem("error", name, "unreachable", message)


def _choices(wiring: Wiring) -> Iterator[Problem]:
    for name in wiring.steps:
        if wiring.traits[name].chooses and not wiring.next[name]:
            yield Problem("warning", name, "no-choice", "it chooses the next step, but no step runs after it")


# -- answers -----------------------------------------------------------------------------------------------------------


def _answers(wiring: Wiring) -> Iterator[Problem]:
    graph = wiring.graph
    responders = [n for n, s in wiring.steps.items() if s.responder and not isinstance(s, ErrorStep)]
    here = [n for n in responders if n in wiring.local]
    if len(here) > 1:
        message = f"several steps respond: {', '.join(here)}; only one may be marked with respond()"
        yield Problem("error", here[1], "several-responders", message)
        return
    if not responders and graph.engine == "async":
        message = "no step is marked with respond(): callers get only the event's id, at once"
        yield Problem("warning", None, "no-responder", message)
    if here or graph.engine == "sync":
        yield from _answers_once(wiring, set(here) or _last_steps(wiring))


def _last_steps(wiring: Wiring) -> set[str]:
    """The steps whose output is the answer of a sync flow in which no step responds."""
    return {
        name
        for name, step in wiring.steps.items()
        if name in wiring.local
        and name not in wiring.fallbacks
        and not isinstance(step, (ErrorStep, QueueStep))
        and not any(n in wiring.local for n in wiring.next[name])
    }


def _answers_once(wiring: Wiring, answering: set[str]) -> Iterator[Problem]:
    """A request must not be answered by several of its branches."""
    forks: list[tuple[str | None, list[str]]] = [(None, wiring.starts())]
    forks += [(n, wiring.followers(n)) for n in wiring.steps if n in wiring.local]
    for fork, branches in forks:
        if len(branches) < 2 or (fork is not None and wiring.traits[fork].chooses is not False):
            continue
        for level, sure in (("error", True), ("warning", False)):
            count = _Arrivals(wiring, answering, sure)
            if count.of(branches) > 1:
                yield _answered_twice(fork, branches, answering, count.reaching, level == "error")
                return


def _answered_twice(
    fork: str | None, branches: Sequence[str], answering: set[str], reaching: Iterable[str], certain: bool
) -> Problem:
    ways = [b for b in branches if b in reaching] or list(branches)
    source = "the start" if fork is None else repr(fork)
    may = "gets" if certain else "may get"
    level: Level = "error" if certain else "warning"
    if len(answering) > 1:
        message = (
            f"a request {may} several answers ({', '.join(sorted(answering))}), as {source} leads to all of "
            f"{', '.join(ways)}: mark the one that answers with respond()"
        )
        return Problem(level, fork, "several-answers", message)
    (step,) = answering
    message = (
        f"it {may} several events of one request, as {source} leads to it through all of {', '.join(ways)}: "
        "join them with a Merge step in front of it"
    )
    return Problem(level, step, "several-answers", message)


class _Arrivals:
    """How many events of one request come to the steps that answer.

    Args:
        wiring: the flow.
        answering: the steps that answer.
        sure: count only those that come for certain; steps that choose or filter may end a branch.
    """

    def __init__(self, wiring: Wiring, answering: set[str], sure: bool) -> None:
        self.wiring = wiring
        self.answering = answering
        self.sure = sure
        self.reaching: set[str] = set()
        self._merged: set[str] = set()

    def of(self, branches: Iterable[str]) -> int:
        """The number of events, when each of these steps gets one."""
        merges: set[str] = set()
        count = 0
        for branch in branches:
            arrives, joined = self._follow(branch)
            merges |= joined
            if arrives:
                count += 1
            if arrives or joined:
                self.reaching.add(branch)
        for merge in sorted(merges):
            if merge in self._merged:  # maybe behind another one of them
                continue
            self._merged.add(merge)
            if merge in self.answering:
                count += 1
            else:
                count += self.of([merge + _BEHIND])
        return count

    def _follow(self, branch: str) -> tuple[bool, set[str]]:
        """Whether an event that enters a step comes to an answer, and which merges take it in."""
        merge = branch.removesuffix(_BEHIND)
        waiting = self.wiring.followers(merge) if branch.endswith(_BEHIND) else [branch]
        seen: set[str] = set()
        arrives, merges = False, set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if self._joins(name):
                merges.add(name)
            elif name in self.answering:
                arrives = True
            elif self._goes_on(name):
                waiting.extend(self.wiring.followers(name))
        return arrives, merges

    def _joins(self, name: str) -> bool:
        merges = self.wiring.traits[name].merges
        if merges is None:  # code that is not known may join events where several can come to it
            return self.sure and name in self.answering and len(self.wiring.steps[name].after) > 1
        return merges

    def _goes_on(self, name: str) -> bool:
        traits = self.wiring.traits[name]
        return not self.sure or (traits.chooses is False and traits.filters is False)


_BEHIND = "/"  # no step's name holds it: "m/" is what comes out of merge m

# -- queues ------------------------------------------------------------------------------------------------------------


def _queues(wiring: Wiring) -> Iterator[Problem]:
    uses_functions = any(s.function not in (None, "", "*") for s in wiring.steps.values())
    for name, step in wiring.steps.items():
        if not isinstance(step, QueueStep):
            continue
        passes_on = wiring.current == "*" and any(n in wiring.local for n in wiring.next[name])
        if not step.path and not passes_on and name in wiring.local:
            message = "nothing runs after the queue here and it has no path to write to: give it path=<stream URI>"
            yield Problem("error", name, "queue-path", message)
        for follower in wiring.next[name]:
            if wiring.steps[follower].function in (None, ""):
                level: Level = "error" if uses_functions else "warning"
                message = f"it runs after queue {name!r} and names no function: give it function=<child function>"
                yield Problem(level, follower, "queue-function", message)


_RULES: tuple[Callable[[Wiring], Iterator[Problem]], ...] = (
    _names,
    _handlers,
    _loops,
    _reach,
    _answers,
    _choices,
    _queues,
)
