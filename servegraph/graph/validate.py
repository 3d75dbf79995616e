"""What can be found wrong in a graph before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servegraph.errors import GraphError, SpecError
from servegraph.graph.code_checks import CodeChecks
from servegraph.graph.flow import FlowGraph, Graph, RouterGraph
from servegraph.graph.problems import Problem, known_traits
from servegraph.graph.resolve import Namespace
from servegraph.graph.spec_values import plain_value
from servegraph.graph.steps import RouterStep, Step
from servegraph.graph.wiring_checks import wiring_problems


def check(graph: Graph, current_function: str = "*") -> None:
    """Raise `GraphError` for the first thing that is wrong in a graph's wiring; nothing is imported for it."""
    if isinstance(graph, RouterGraph):
        return
    for problem in wiring_problems(graph, current_function, known_traits):
        if problem.level == "error":
            where = f"step {problem.step!r}: " if problem.step else ""
            raise GraphError(f"{where}{problem.message}", step=problem.step)


def validate(
    graph: Graph,
    *,
    namespaces: Sequence[Namespace] = (),
    current_function: str = "*",
    exportable: bool = False,
    folder: str | None = None,
) -> list[Problem]:
    """Everything that can be found wrong in a graph without making its objects; empty when that is nothing.

    Args:
        graph: the graph; it is not changed.
        namespaces: modules and dicts in which names are looked up before they are imported. The modules that the
            graph names are imported.
        current_function: the function whose steps run; ``"*"`` is all.
        exportable: also tell what cannot be written into a spec (lambdas, local classes, arguments without JSON).
        folder: where relative names in the steps' arguments start from; the working directory if left out.

    Returns:
        Problems in the order: wiring, then the steps' code. Those of level ``error`` keep the graph from running.
    """
    code = CodeChecks(namespaces, exportable, folder)
    problems: list[Problem] = []
    if isinstance(graph, FlowGraph):
        problems.extend(wiring_problems(graph, current_function, code.traits))
        if exportable:
            problems.extend(_extras(graph))
    for where, step in _all_steps(graph):
        problems.extend(code.problems(step, where))
        if isinstance(step, RouterStep) and not step.routes:
            message = "the router has no routes yet: add them with add_route(...) or add_model(...)"
            problems.append(Problem("warning", where or None, "no-routes", message))
    return problems


def _all_steps(graph: Graph) -> Iterator[tuple[str, Step]]:
    """Every step and route of a graph, with its path."""
    waiting: list[tuple[str, Step]] = (
        [(graph.name or "router", graph)] if isinstance(graph, RouterGraph) else list(graph.steps.items())
    )
    while waiting:
        where, step = waiting.pop(0)
        yield where, step
        if isinstance(step, RouterStep):
            waiting[:0] = [(f"{where}/{key}", route) for key, route in step.routes.items()]


def _extras(graph: FlowGraph) -> Iterator[Problem]:
    try:
        plain_value(graph.extra, "$")
    except SpecError as exc:
        yield Problem("error", None, "not-exportable", exc.message.removeprefix("$."))


__all__ = ["Problem", "check", "validate"]
