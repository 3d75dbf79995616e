"""Wires the units of a flow: what follows what, what answers, what can still become the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from servegraph.errors import GraphError
from servegraph.graph.flow import FlowGraph
from servegraph.graph.plan import Plan, Unit, reachable
from servegraph.graph.steps import ErrorStep, Step


def wire(graph: FlowGraph, units: Mapping[str, Unit], mutates: Mapping[str, bool], current: str) -> Plan:
    """The plan of a flow whose steps are compiled.

    Args:
        graph: the flow.
        units: the unit that runs each step; neighbours may share one.
        mutates: for each step whether it may change the body.
        current: the function that runs the plan; ``"*"`` runs every step.
    """
    ordered = list(dict.fromkeys(units.values()))
    fallbacks = {s.policy.fallback for s in graph.steps.values() if s.policy.fallback}
    for unit in ordered:
        _connect(graph, units, unit)
    starts = tuple(dict.fromkeys(units[n] for n in _starts(graph, units, current) if n not in fallbacks))
    if not starts:
        raise GraphError(f"function {current!r} runs no step of the graph")
    handler = units[graph.on_error] if graph.on_error else None
    plan = Plan(starts=starts, units=tuple(ordered), on_error=handler, fail_fast=graph.fail_fast)
    _answers(graph, plan, ordered, fallbacks)
    _mark_mutation(ordered, mutates, units)
    plan.background = plan.detached or any(not u.leads for u in reachable(starts))
    concurrent = len(starts) > 1 or any(len(u.next) > 1 and not u.chooses for u in ordered)
    plan.plain = graph.engine == "sync" or not (concurrent or plan.background)
    only = starts[0]
    if len(ordered) == 1 and not (only.merge or only.chooses or only.max_iterations or plan.detached):
        no_recovery = only.on_error is None and plan.on_error is None and only.policy.on_error == "fail"
        plan.direct = only if no_recovery and (only.answers or only.responder) else None
    return plan


def _connect(graph: FlowGraph, units: Mapping[str, Unit], unit: Unit) -> None:
    step: Step = graph.steps[unit.name]
    followers = [n for n in graph.followers(unit.name) if n in units]
    if isinstance(step, ErrorStep):
        followers = [*(n for n in step.before if n in units), *followers]
    unit.next = tuple(dict.fromkeys(units[n] for n in followers))
    unit.outlets = {n: units[n] for n in followers}
    unit.responder = step.responder
    if step.on_error is not None:
        unit.on_error = units[step.on_error]
    if step.policy.fallback is not None:
        unit.fallback = units[step.policy.fallback]
    if unit.merge is not None:
        unit.uplinks = tuple(step.after)
        unit.stand_ins = _stand_ins(graph, step)
        unit.merge_expected = unit.merge.expected_num_events or len(unit.uplinks)


def _starts(graph: FlowGraph, units: Mapping[str, Unit], current: str) -> Iterable[str]:
    if current in ("*", ""):
        return [n for n in graph.starts() if n in units]
    own = [n for n in units if graph.steps[n].function == current]
    # A child function begins where the graph first comes to it.
    return [n for n in own if not isinstance(graph.steps[n], ErrorStep) and not _has_local_before(graph, units, n)]


def _has_local_before(graph: FlowGraph, units: Mapping[str, Unit], name: str) -> bool:
    current = graph.steps[name].function
    return any(b in units and graph.steps[b].function == current for b in graph.steps[name].after)


def _answers(graph: FlowGraph, plan: Plan, ordered: list[Unit], fallbacks: set[str]) -> None:
    """Mark the units whose output answers and those that can still lead to an answer."""
    responders = [u for u in ordered if u.responder]
    if not responders and graph.engine == "sync":
        for unit in ordered:
            is_last = not unit.next and not isinstance(graph.steps[unit.name], ErrorStep)
            unit.answers = is_last and unit.name not in fallbacks
    plan.detached = not responders and graph.engine == "async"
    leading = {u for u in ordered if u.responder or u.answers}
    grown = True
    while grown:
        grown = False
        for unit in ordered:
            if unit not in leading and any(n in leading for n in _after(unit)):
                leading.add(unit)
                grown = True
    for unit in ordered:
        unit.leads = unit in leading
    for unit in ordered:  # a handler stands in for the step it handles
        for stand_in in (unit.on_error, unit.fallback):
            if stand_in is not None and unit.leads:
                stand_in.leads = True
    if plan.on_error is not None:
        plan.on_error.leads = not plan.detached


def _after(unit: Unit) -> tuple[Unit, ...]:
    return (*unit.next, *unit.on_error.next) if unit.on_error is not None else unit.next


def _mark_mutation(ordered: list[Unit], mutates: Mapping[str, bool], units: Mapping[str, Unit]) -> None:
    """A branch is read-only when no step on it, up to the next merge, may change the body."""
    own: dict[Unit, bool] = dict.fromkeys(ordered, False)
    for name, unit in units.items():
        own[unit] = own[unit] or mutates[name]
    for unit in ordered:
        unit.mutates = own[unit]
    grown = True
    while grown:
        grown = False
        for unit in ordered:
            following: list[Any] = [*unit.next, unit.on_error, unit.fallback]
            if not unit.mutates and any(u is not None and u.merge is None and u.mutates for u in following):
                unit.mutates = grown = True
    for unit in ordered:
        if unit.merge is not None:
            unit.mutates = False  # joins; what follows gets the joined list


def _stand_ins(graph: FlowGraph, merge: Step) -> dict[str, str]:
    """For each error handler that goes on at a merge: the step before the merge whose event it stands in for."""
    found = {}
    for name, step in graph.steps.items():
        if isinstance(step, ErrorStep) and merge.name in step.before and step.base_step is not None:
            uplink = next((u for u in merge.after if step.base_step in _ways_to(graph, u)), None)
            if uplink is not None:
                found[name] = uplink
    return found


def _ways_to(graph: FlowGraph, name: str) -> set[str]:
    """A step and all that lead to it."""
    seen: set[str] = set()
    stack = [name]
    while stack:
        step = stack.pop()
        if step not in seen and step in graph.steps:
            seen.add(step)
            stack.extend(graph.steps[step].after)
    return seen
