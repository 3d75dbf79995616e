from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_examples import CYCLE, FLOW, ROUTER

from servegraph.errors import GraphError, ServegraphError
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.graph.plot import Plot, plot
from servegraph.graph.spec import graph_from_dict

SVG = "{http://www.w3.org/2000/svg}"


def f(body: Any) -> Any:
    return body


@pytest.fixture
def flow() -> Any:
    return graph_from_dict(FLOW)


@pytest.fixture
def no_graphviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def node(dot: str, title: str) -> str:
    """The line of the node with this title."""
    (found,) = [n for n in dot.splitlines() if re.search(rf"label=<(<b>)?{re.escape(title)}(</b>)?[<>]", n)]
    return found.strip()


def edge(dot: str, source: str, target: str) -> str:
    """The attributes of the edge between two titles."""
    pair = f"{node(dot, source).split()[0]} -> {node(dot, target).split()[0]} "
    (found,) = [e.strip() for e in dot.splitlines() if e.strip().startswith(pair)]
    return found.removeprefix(pair)


def titles(svg: str) -> list[str]:
    """The texts in an SVG document."""
    return ["".join(t.itertext()) for t in ET.fromstring(svg).iter(f"{SVG}text")]


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_each_kind_of_step_has_its_shape(flow: Any) -> None:
    dot = plot(flow).dot
    for title, shape in [
        ("start", "egg"),
        ("enrich", "ellipse"),
        ("ens", "doubleoctagon"),
        ("q1", "cds"),
        ("catcher", "ellipse"),
    ]:
        assert f'shape="{shape}"' in node(dot, title)


def test_router_stands_in_a_box_with_its_routes(flow: Any) -> None:
    dot = plot(flow).dot
    (box,) = [x for x in dot.splitlines() if "subgraph cluster_0" in x]
    assert {node(dot, "ens").split()[0], node(dot, "r1").split()[0]} <= set(re.findall(r"n\d+", box))
    assert edge(dot, "ens", "r1")


def test_way_to_an_error_step_is_dashed(flow: Any) -> None:
    dot = plot(flow).dot
    assert 'style="dashed"' in edge(dot, "st", "catcher")
    assert "dashed" not in edge(dot, "enrich", "st")


def test_responder_is_marked(flow: Any) -> None:
    dot = plot(flow).dot
    assert 'penwidth="2.4"' in node(dot, "out")
    assert 'tooltip="out answers the caller"' in node(dot, "out")
    assert "penwidth" not in node(dot, "enrich")


def test_last_step_of_a_sync_flow_is_marked() -> None:
    graph = FlowGraph("sync")
    graph.to(handler=f, name="a").to(handler=f, name="b")
    dot = plot(graph).dot
    assert "answers" in node(dot, "b")
    assert "answers" not in node(dot, "a")


def test_second_line_tells_code_and_function(flow: Any) -> None:
    dot = plot(flow).dot
    assert ">Step<" in node(dot, "st")
    assert ">Step, in child<" in node(dot, "s2")
    assert ">v3io:///users/q1<" in node(dot, "q1")
    assert "<br/>" not in node(dot, "enrich")


def test_cycle_is_drawn_without_turning_the_order() -> None:
    dot = plot(graph_from_dict(CYCLE)).dot
    assert 'constraint="false"' in edge(dot, "ch", "inc")
    assert "constraint" not in edge(dot, "inc", "ch")


def test_fallback_and_handler_are_joined_to_what_follows() -> None:
    graph = FlowGraph("sync")
    graph.to(handler=f, name="a", policy={"on_error": "fallback", "fallback": "b"}).to(handler=f, name="c")
    graph.add_step(handler=f, name="b")
    graph["c"].error_handler("mend", handler=f, before="d")
    graph.to(handler=f, name="d")
    graph.error_handler("last", handler=f)
    dot = plot(graph).dot
    assert 'label=" fallback "' in edge(dot, "a", "b")
    assert "dashed" in edge(dot, "b", "c")
    assert "dashed" in edge(dot, "mend", "d")
    assert 'label=" any step fails "' in edge(dot, "start", "last")


def test_router_graph_is_drawn_from_its_start() -> None:
    dot = plot(graph_from_dict(ROUTER)).dot
    assert edge(dot, "start", "router")
    for route in ("m1", "m2:v2", "rem"):
        assert edge(dot, "router", route)


def test_routes_beyond_a_dozen_are_counted() -> None:
    graph = RouterGraph()
    for number in range(40):
        graph.add_route(f"m{number}", class_name="M")
    dot = plot(graph).dot
    assert edge(dot, "router", "28 more routes")
    assert "m12<" not in dot


def test_name_that_is_no_step_is_drawn_as_missing() -> None:
    graph = FlowGraph("sync")
    graph.to(handler=f, name="a")
    graph.steps["a"].after = ["gone"]
    dot = plot(graph).dot
    assert "no such step" in node(dot, "gone")
    assert edge(dot, "gone", "a")


def test_source_and_targets_are_named(flow: Any) -> None:
    dot = plot(flow, source="orders", targets=["store"]).dot
    assert "egg" in node(dot, "orders")
    assert "cylinder" in node(dot, "store")
    assert edge(dot, "out", "store")
    assert edge(plot(flow, targets={"log": "enrich"}).dot, "enrich", "log")


def test_unknown_step_before_a_target_is_refused(flow: Any) -> None:
    with pytest.raises(GraphError, match="target 'log' follows 'enrihc', which is no step; did you mean 'enrich'"):
        plot(flow, targets={"log": ["enrihc"]})


def test_graph_attributes_are_written(flow: Any) -> None:
    first = plot(flow, rankdir="TB", ranksep=1.5, label='a "b" \\l').dot.splitlines()[1]
    assert 'rankdir="TB"' in first
    assert 'ranksep="1.5"' in first
    assert 'label="a \\"b\\" \\\\l"' in first


@pytest.mark.parametrize(("key", "value"), [("bad key", "x"), ("label", ["x"])])
def test_wrong_graph_attribute_is_refused(flow: Any, key: str, value: Any) -> None:
    with pytest.raises(GraphError, match=r"Graphviz attribute|no name of a Graphviz"):
        plot(flow, **{key: value})


def test_label_of_a_step_stands_in_place_of_its_code() -> None:
    graph = FlowGraph()
    graph.to(handler=f, name="a", plot_label='kind "x"').to(handler=f, name="b", plot_label="")
    dot, mermaid = plot(graph).dot, plot(graph).mermaid
    assert "kind &quot;x&quot;" in node(dot, "a")
    assert "font point-size" not in node(dot, "b")
    assert '("a<br/><small>kind #34;x#34;</small>")' in mermaid
    assert '("b")' in mermaid


@pytest.mark.parametrize(("shape", "drawn"), [("diamond", '{"a"}'), ("invtrapezium", '[\\"a"/]'), ("folder", '("a")')])
def test_shape_of_a_step_is_drawn_by_mermaid_where_it_has_it(shape: str, drawn: str) -> None:
    graph = FlowGraph()
    graph.to(handler=f, name="a", shape=shape, plot_label="")
    assert f"n1{drawn}" in plot(graph).mermaid


def test_shape_of_a_step_is_used_and_checked() -> None:
    graph = FlowGraph("sync")
    graph.to(handler=f, name="a", graph_shape="folder")
    assert 'shape="folder"' in node(plot(graph).dot, "a")
    graph.steps["a"].shape = "foldr"
    with pytest.raises(GraphError, match="step 'a': 'foldr' is no shape; did you mean 'folder'"):
        plot(graph)


# -- text that is in the way -------------------------------------------------------------------------------------------


def test_names_are_escaped_everywhere() -> None:
    graph = FlowGraph("sync")
    name = 'a "b" <i>&\\n\n`c` |#;'
    graph.to(handler="(event['x'] > \"1\")", name=name)
    drawing = plot(graph)
    assert "a &quot;b&quot; &lt;i&gt;&amp;\\n<br/>`c` |#;" in drawing.dot
    (line,) = [x for x in drawing.mermaid.splitlines() if x.strip().startswith("n1(")]
    assert line.count('"') == 2
    assert "a #34;b#34; #60;i#62;#38;#92;n<br/>#96;c#96; #124;#35;#59;" in line
    assert 'a "b" <i>&\\n' in titles(drawing.svg())


def test_long_names_are_cut() -> None:
    graph = FlowGraph("sync")
    graph.to(handler="f", name="x" * 500)
    assert "x" * 47 + "…" in plot(graph).dot
    assert "x" * 48 not in plot(graph).mermaid


@given(st.text(min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_any_name_gives_a_drawing(name: str) -> None:
    graph = FlowGraph("sync")
    step = graph.to(handler="f", name="a")
    step.to("$queue", name="q", path=name)
    graph.steps[name] = graph.steps.pop("q")
    drawing = plot(graph, source=name)
    assert ET.fromstring(drawing.svg()).tag == f"{SVG}svg"
    assert len(drawing.mermaid.splitlines()) == 12


# -- formats -----------------------------------------------------------------------------------------------------------


def test_svg_and_png_are_made(flow: Any) -> None:
    drawing = plot(flow)
    assert {"start", "enrich", "ens", "r1", "out"} <= set(titles(drawing.svg()))
    assert drawing.png().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("g.svg", b"<?xml"),
        ("g.PNG", b"\x89PNG"),
        ("g.dot", b"digraph servegraph {"),
        ("g.gv", b"digraph servegraph {"),
        ("g.mmd", b"flowchart LR"),
        ("g.md", b"```mermaid\nflowchart LR"),
    ],
)
def test_drawing_is_saved_by_its_ending(flow: Any, tmp_path: Path, name: str, start: bytes) -> None:
    plot(flow, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_format_gives_the_ending_of_a_file_without_one(flow: Any, tmp_path: Path) -> None:
    plot(flow, str(tmp_path / "g"), format="dot")
    assert (tmp_path / "g.dot").is_file()
    plot(flow, tmp_path / "g.txt", format="mmd")
    assert (tmp_path / "g.txt").read_text().startswith("flowchart")


def test_unknown_format_is_refused(flow: Any, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="'jpgg' is no format of a drawing; valid: dot, gv"):
        plot(flow, format="jpgg")
    with pytest.raises(GraphError, match=r"'\.txt' is no format"):
        plot(flow, tmp_path / "g.txt")
    with pytest.raises(GraphError, match="has no ending that tells the format"):
        plot(flow, tmp_path / "g")


def test_notebook_shows_svg(flow: Any) -> None:
    drawing = plot(flow)
    assert "<svg" in (drawing._repr_svg_() or "")
    bundle = drawing._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/svg+xml"}
    assert set(drawing._repr_mimebundle_(include={"image/svg+xml"})) == {"image/svg+xml"}
    assert set(drawing._repr_mimebundle_(exclude={"image/svg+xml"})) == {"text/plain"}


def test_notebook_shows_the_format_that_was_asked_for(flow: Any) -> None:
    assert base64.b64decode(plot(flow, format="png")._repr_mimebundle_()["image/png"]).startswith(b"\x89PNG")
    assert "text/vnd.mermaid" in plot(flow, format="mermaid")._repr_mimebundle_()
    assert plot(flow, format="dot")._repr_mimebundle_()["text/plain"].startswith("digraph")


@pytest.mark.usefixtures("no_graphviz")
def test_without_graphviz_a_notebook_gets_mermaid(flow: Any) -> None:
    drawing = plot(flow)
    assert drawing._repr_svg_() is None
    bundle = drawing._repr_mimebundle_()
    assert bundle["text/markdown"] == f"```mermaid\n{drawing.mermaid}```\n"
    assert bundle["text/vnd.mermaid"] == drawing.mermaid


@pytest.mark.usefixtures("no_graphviz")
def test_without_graphviz_an_image_is_refused_with_what_to_do(flow: Any, tmp_path: Path) -> None:
    with pytest.raises(ServegraphError, match="'dot', which is not installed: apt-get install graphviz"):
        plot(flow).svg()
    with pytest.raises(ServegraphError, match="not installed"):
        plot(flow, tmp_path / "g.png")
    plot(flow, tmp_path / "g.mmd")


def test_failure_of_graphviz_is_told() -> None:
    with pytest.raises(ServegraphError, match=r"Graphviz failed: .*syntax error"):
        Plot("digraph {", "").svg()


def test_drawing_is_the_same_each_time(flow: Any) -> None:
    assert plot(flow).dot == plot(graph_from_dict(FLOW)).dot
    assert plot(flow).mermaid == plot(graph_from_dict(FLOW)).mermaid
    assert repr(plot(flow)) == "<Plot of 10 nodes: .svg(), .png(), .mermaid, .dot, .save(filename)>"
