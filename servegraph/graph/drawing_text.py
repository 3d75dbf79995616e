"""Pictures as text: in Graphviz's language and in Mermaid's. Names are escaped, whatever they hold."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from servegraph.errors import GraphError, closest
from servegraph.graph.drawing import Drawing, Edge, EdgeKind, Node, NodeKind

_FONT = "Helvetica,Arial,sans-serif"
_MAX_TITLE = 48
_MAX_DETAIL = 60

_SHAPE_NAMES = """
box box3d cds circle component cylinder diamond doublecircle doubleoctagon egg ellipse folder hexagon house invhouse
invtrapezium invtriangle larrow none note octagon oval parallelogram pentagon plain plaintext point polygon rarrow rect
rectangle septagon square star tab trapezium triangle tripleoctagon underline
"""
SHAPES = frozenset(_SHAPE_NAMES.split())
"""Graphviz's shapes that a step may ask for."""

_NODE_SHAPES: dict[NodeKind, str] = {
    "start": "egg",
    "task": "ellipse",
    "router": "doubleoctagon",
    "queue": "cds",
    "error": "ellipse",
    "target": "cylinder",
    "more": "plaintext",
    "missing": "box",
}
# Fill and line of each kind of node.
_COLORS: dict[NodeKind, tuple[str, str]] = {
    "start": ("#f3f4f6", "#6b7280"),
    "task": ("#eaf1fb", "#3b6fb5"),
    "router": ("#f1ebfa", "#7650ad"),
    "queue": ("#fdf3dc", "#b07d12"),
    "error": ("#fdebe9", "#c2402f"),
    "target": ("#f3f4f6", "#6b7280"),
    "more": ("#ffffff", "#6b7280"),
    "missing": ("#ffffff", "#c2402f"),
}
_MORE_ATTRIBUTES: dict[NodeKind, dict[str, str]] = {
    "router": {"ordering": "out"},
    "queue": {"margin": "0.22,0.12"},
    "more": {"style": ""},
    "missing": {"style": "filled,dashed"},
}
_ANSWER = ("#dcf3e2", "#1f7a3d")
_EDGES: dict[EdgeKind, dict[str, str]] = {
    "next": {},
    "route": {"color": "#7650ad", "arrowsize": "0.6"},
    "error": {"style": "dashed", "color": "#c2402f", "fontcolor": "#c2402f"},
    "fallback": {"style": "dashed", "color": "#b07d12", "fontcolor": "#b07d12"},
    "back": {"constraint": "false", "color": "#3b6fb5", "penwidth": "1.5"},
}
_MERMAID_NODES: dict[NodeKind, tuple[str, str]] = {
    "start": ("([", "])"),
    "task": ("(", ")"),
    "router": ("{{", "}}"),
    "queue": ("[/", "/]"),
    "error": ("(", ")"),
    "target": ("[(", ")]"),
    "more": ("[", "]"),
    "missing": ("[", "]"),
}
# Graphviz's shapes that Mermaid has too; a step that asks for another is drawn as all of its kind.
_MERMAID_SHAPES: dict[str, tuple[str, str]] = {
    "box": ("[", "]"),
    "circle": ("((", "))"),
    "cylinder": ("[(", ")]"),
    "diamond": ("{", "}"),
    "ellipse": ("(", ")"),
    "hexagon": ("{{", "}}"),
    "invtrapezium": ("[\\", "/]"),
    "parallelogram": ("[/", "/]"),
    "rect": ("[", "]"),
    "trapezium": ("[/", "\\]"),
}
_MERMAID_EDGES: dict[EdgeKind, str] = {
    "next": "-->",
    "route": "---",
    "error": "-.->",
    "fallback": "-.->",
    "back": "==>",
}


def to_dot(drawing: Drawing, attributes: Mapping[str, Any]) -> str:
    """The picture in Graphviz's language.

    Raises:
        GraphError: an attribute or a step's shape is not one that can be written.
    """
    defaults = {"rankdir": "LR", "fontname": _FONT, "nodesep": "0.3", "ranksep": "0.5", "pad": "0.2"}
    lines = ["digraph servegraph {", f"  graph [{_attributes({**defaults, **attributes})}];"]
    node = {"fontname": _FONT, "fontsize": "12", "style": "filled", "margin": "0.14,0.07", "penwidth": "1.2"}
    lines.append(f"  node [{_attributes(node)}];")
    edge = {"fontname": _FONT, "fontsize": "9", "color": "#4b5563", "fontcolor": "#4b5563", "arrowsize": "0.75"}
    lines.append(f"  edge [{_attributes(edge)}];")
    lines += [f"  {_dot_node(n)}" for n in drawing.nodes]
    for number, group in enumerate(drawing.groups):
        box = {"style": "rounded,filled", "color": "#d9cdec", "fillcolor": "#faf7fe", "margin": "14"}
        lines.append(f"  subgraph cluster_{number} {{ graph [{_attributes(box)}]; {'; '.join(group)}; }}")
    # From left to right, Graphviz puts the first of several below the others.
    routes = [e for e in drawing.edges if e.kind == "route"]
    others = [e for e in drawing.edges if e.kind != "route"]
    lines += [f"  {_dot_edge(e)}" for e in (*reversed(routes), *others)]
    return "\n".join([*lines, "}", ""])


def _dot_node(node: Node) -> str:
    fill, line = _ANSWER if node.answers else _COLORS[node.kind]
    if node.shape is not None and node.shape not in SHAPES:
        raise GraphError(f"step {node.title!r}: {node.shape!r} is no shape; {closest(node.shape, SHAPES)}")
    attributes = {"shape": node.shape or _NODE_SHAPES[node.kind], "fillcolor": fill, "color": line}
    if node.answers:
        attributes["penwidth"] = "2.4"
        attributes["tooltip"] = f"{_clean(node.title, _MAX_TITLE)} answers the caller"
    attributes.update(_MORE_ATTRIBUTES.get(node.kind, {}))
    label = _html(node.title, _MAX_TITLE)
    if node.answers or node.kind == "router":
        label = f"<b>{label}</b>"
    if node.detail:
        label += f'<br/><font point-size="9" color="#4b5563">{_html(node.detail, _MAX_DETAIL)}</font>'
    return f"{node.id} [label=<{label}>, {_attributes(attributes)}];"


def _dot_edge(edge: Edge) -> str:
    attributes = dict(_EDGES[edge.kind])
    if edge.label:
        attributes["label"] = f" {edge.label} "
    return f"{edge.source} -> {edge.target} [{_attributes(attributes)}];"


def _attributes(attributes: Mapping[str, Any]) -> str:
    parts = []
    for key, value in attributes.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", key):
            raise GraphError(f"{key!r} is no name of a Graphviz attribute")
        if not isinstance(value, (str, int, float)):
            raise GraphError(f"the Graphviz attribute {key!r} must be text or a number, not {type(value).__name__}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        parts.append(f"{key}={_quoted(text)}")
    return ", ".join(parts)


def _quoted(text: str) -> str:
    """Text between quotes; a backslash stays itself and starts none of Graphviz's escapes."""
    escaped = _clean(text, 10_000).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _html(text: str, length: int) -> str:
    return html.escape(_clean(text, length)).replace("\n", "<br/>")


def _clean(text: str, length: int) -> str:
    """Text without what XML cannot hold, of at most this length."""
    text = re.sub(r"\r\n?|[\u2028\u2029]", "\n", text).replace("\t", " ")
    text = re.sub(r"[^\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def to_mermaid(drawing: Drawing) -> str:
    """The picture in Mermaid's language, which GitHub and JupyterLab draw."""
    grouped = {n for group in drawing.groups for n in group}
    lines = ["flowchart LR"]
    by_id = {n.id: n for n in drawing.nodes}
    lines += [f"  {_mermaid_node(n)}" for n in drawing.nodes if n.id not in grouped]
    for number, group in enumerate(drawing.groups):
        lines.append(f'  subgraph g{number}[" "]')
        lines += [f"    {_mermaid_node(by_id[n])}" for n in group]
        lines.append("  end")
    lines += [f"  {_mermaid_edge(e)}" for e in drawing.edges]
    for kind, (fill, line) in _COLORS.items():
        members = [n.id for n in drawing.nodes if n.kind == kind and not n.answers]
        lines += _mermaid_class(kind, members, f"fill:{fill},stroke:{line},color:#111827")
    answers = [n.id for n in drawing.nodes if n.answers]
    lines += _mermaid_class("answers", answers, f"fill:{_ANSWER[0]},stroke:{_ANSWER[1]},stroke-width:3px,color:#111827")
    return "\n".join([*lines, ""])


def _mermaid_node(node: Node) -> str:
    left, right = _MERMAID_SHAPES.get(node.shape or "", _MERMAID_NODES[node.kind])
    label = _entities(node.title, _MAX_TITLE)
    if node.detail:
        label += f"<br/><small>{_entities(node.detail, _MAX_DETAIL)}</small>"
    return f'{node.id}{left}"{label}"{right}'


def _mermaid_edge(edge: Edge) -> str:
    label = f'|"{_entities(edge.label, _MAX_TITLE)}"|' if edge.label else ""
    return f"{edge.source} {_MERMAID_EDGES[edge.kind]}{label} {edge.target}"


def _mermaid_class(name: str, members: list[str], style: str) -> list[str]:
    return [f"  classDef {name} {style};", f"  class {','.join(members)} {name};"] if members else []


def _entities(text: str, length: int) -> str:
    """Text as Mermaid takes it in quotes: everything that may mean something else is written by its number."""
    plain = _clean(text, length)
    return re.sub(r"[^\w .,:/+=-]", lambda m: "<br/>" if m[0] == "\n" else f"#{ord(m[0])};", plain)
