"""What a picture of a graph shows: nodes, edges and groups, before any drawing language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from servegraph.errors import GraphError, closest
from servegraph.graph.flow import FlowGraph, Graph
from servegraph.graph.steps import ErrorStep, QueueStep, RouterStep, Step, as_names

NodeKind = Literal["start", "task", "router", "queue", "error", "target", "more", "missing"]
EdgeKind = Literal["next", "route", "error", "fallback", "back"]

MAX_ROUTES_DRAWN = 12
"""A router's further routes are drawn as one node that tells their number."""


@dataclass(slots=True)
class Node:
    """A node of the picture."""

    id: str
    """``n0``, ``n1``, …: safe in any drawing language, whatever the step is named."""
    kind: NodeKind
    title: str
    detail: str = ""
    """A second line: the code, the stream, the child function."""
    answers: bool = False
    """Its output is the answer to the caller."""
    shape: str | None = None
    """The Graphviz shape that the step asks for."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one node to another."""

    source: str
    target: str
    kind: EdgeKind = "next"
    label: str = ""


@dataclass(slots=True)
class Drawing:
    """The nodes and edges of a graph, in the order of its steps."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)
    """Ids of nodes that stand in one box: a router and its routes."""

    def add(self, kind: NodeKind, title: str, **more: Any) -> Node:
        """A new node."""
        node = Node(f"n{len(self.nodes)}", kind, title, **more)
        self.nodes.append(node)
        return node


def draw(graph: Graph, source: Any = None, targets: Any = None) -> Drawing:
    """The picture of a graph.

    Args:
        graph: the graph; a name in it that is no step is drawn as a missing one.
        source: what the start node is called, or an object with a ``name``.
        targets: where results go: names (each after the last steps), or a mapping of names to the steps they follow.

    Raises:
        GraphError: ``targets`` names a step that is not there.
    """
    return _Artist(graph, source, targets).draw()


class _Artist:
    def __init__(self, graph: Graph, source: Any, targets: Any) -> None:
        self.graph = graph
        self.targets = targets
        self.drawing = Drawing()
        self.ids: dict[str, str] = {}
        self.start = self.drawing.add("start", str(getattr(source, "name", source) or "start"))

    def draw(self) -> Drawing:
        if isinstance(self.graph, FlowGraph):
            self._flow(self.graph)
        else:
            name = self.graph.name or "router"
            self._step(self.graph, name).answers = True
            self._edge(self.start.id, self.ids[name])
        for target, after in self._targets().items():
            node = self.drawing.add("target", target)
            for name in after:
                self._edge(self._known(name, target), node.id)
        return self.drawing

    def _flow(self, graph: FlowGraph) -> None:
        for name, step in graph.steps.items():
            self._step(step, name)
        fallbacks = {s.policy.fallback for s in graph.steps.values()}
        for name in graph.starts():
            if name not in fallbacks:
                self._edge(self.start.id, self.ids[name])
        for name, step in graph.steps.items():
            self._flow_edges(graph, name, step)
        if graph.on_error is not None:
            self._edge(self.start.id, self._id(graph.on_error), "error", "any step fails")
        if graph.engine == "sync" and not any(s.responder for s in graph.steps.values()):
            for name in self._last():
                self._node(name).answers = True

    def _flow_edges(self, graph: FlowGraph, name: str, step: Step) -> None:
        for before in step.after:
            kind: EdgeKind = "back" if before in step.cycle_from else "next"
            self._edge(self._id(before), self.ids[name], kind)
        if step.on_error is not None:
            self._edge(self.ids[name], self._id(step.on_error), "error")
        if step.policy.fallback is not None:
            stand_in = self._id(step.policy.fallback)
            self._edge(self.ids[name], stand_in, "fallback", "fallback")
            for following in graph.followers(name):
                self._edge(stand_in, self.ids[following], "fallback")
        if isinstance(step, ErrorStep):
            for following in step.before:
                self._edge(self.ids[name], self._id(following), "error")

    def _step(self, step: Step, name: str) -> Node:
        kind: NodeKind = "task"
        if isinstance(step, RouterStep):
            kind = "router"
        elif isinstance(step, QueueStep):
            kind = "queue"
        elif isinstance(step, ErrorStep):
            kind = "error"
        detail = _detail(step, name)
        node = self.drawing.add(kind, name, detail=detail, answers=step.responder, shape=step.shape)
        self.ids[name] = node.id
        if isinstance(step, RouterStep) and step.routes:
            self.drawing.groups.append(self._routes(step, node))
        return node

    def _routes(self, router: RouterStep, node: Node) -> list[str]:
        """Draw the routes of a router, those of routers among them too; the ids of all."""
        group = [node.id]
        shown = list(router.routes.items())[:MAX_ROUTES_DRAWN]
        for key, route in shown:
            kind: NodeKind = "router" if isinstance(route, RouterStep) else "task"
            child = self.drawing.add(kind, key, detail=_detail(route, key), shape=route.shape)
            self._edge(node.id, child.id, "route")
            group.extend(self._routes(route, child) if isinstance(route, RouterStep) else [child.id])
        hidden = len(router.routes) - len(shown)
        if hidden:
            more = self.drawing.add("more", f"{hidden} more routes")
            group.append(more.id)
            self._edge(node.id, more.id, "route")
        return group

    def _edge(self, source: str, target: str, kind: EdgeKind = "next", label: str = "") -> None:
        self.drawing.edges.append(Edge(source, target, kind, label))

    def _id(self, name: str) -> str:
        """The node of a step; one that says so for a step that is not there."""
        if name not in self.ids:
            self.ids[name] = self.drawing.add("missing", name, detail="no such step").id
        return self.ids[name]

    def _node(self, name: str) -> Node:
        return self.drawing.nodes[int(self.ids[name][1:])]

    def _last(self) -> list[str]:
        if not isinstance(self.graph, FlowGraph):
            return list(self.ids)
        steps = self.graph.steps
        led_from: set[str | None] = {before for step in steps.values() for before in step.after}
        led_from.update(step.policy.fallback for step in steps.values())
        return [n for n, s in steps.items() if n not in led_from and not isinstance(s, (ErrorStep, QueueStep))]

    def _targets(self) -> dict[str, list[str]]:
        targets = self.targets
        if targets is None:
            return {}
        if isinstance(targets, Mapping):
            return {str(name): as_names(after) for name, after in targets.items()}
        items = [targets] if isinstance(targets, str) or not isinstance(targets, Iterable) else targets
        return {str(getattr(t, "name", t)): self._last() for t in items}

    def _known(self, name: str, target: str) -> str:
        if name not in self.ids:
            raise GraphError(f"target {target!r} follows {name!r}, which is no step; {closest(name, self.ids)}")
        return self.ids[name]


def _detail(step: Step, title: str) -> str:
    """The second line of a step's node: what it runs where its name does not tell, and in which function."""
    if step.plot_label is not None:
        code = step.plot_label
    elif isinstance(step, QueueStep):
        code = step.path
    elif step.class_name is not None:
        code = _short(step.class_name)
        if isinstance(step.handler, str):
            code = f"{code}.{step.handler}"
    else:
        code = "" if step.handler is None else _short(step.handler)
    parts = [] if code == title else [code]
    if step.function not in (None, "", "*"):
        parts.append(f"in {step.function}")
    return ", ".join(filter(None, parts))


def _short(code: Any) -> str:
    """The last part of a class's or function's name; an expression as it is."""
    if not isinstance(code, str):
        code = getattr(code, "__qualname__", type(code).__qualname__)
    return code if code.startswith("(") else re.split(r"[.:]", code)[-1]
