"""Drawings of graphs: shown in a notebook, or saved as SVG, PNG, Graphviz or Mermaid text."""

from __future__ import annotations

import base64
import shutil
import subprocess
from os import PathLike
from pathlib import Path
from typing import Any

from servegraph.errors import GraphError, ServegraphError, closest
from servegraph.graph.drawing import draw
from servegraph.graph.drawing_text import to_dot, to_mermaid
from servegraph.graph.flow import Graph

_FORMATS = {
    "svg": "svg",
    "png": "png",
    "dot": "dot",
    "gv": "dot",
    "mmd": "mermaid",
    "mermaid": "mermaid",
    "md": "markdown",
    "markdown": "markdown",
}
_DOT_TIMEOUT_S = 60
_PNG_DPI = 144


def plot(
    graph: Graph,
    filename: str | PathLike[str] | None = None,
    format: str | None = None,
    source: Any = None,
    targets: Any = None,
    **graph_attrs: Any,
) -> Plot:
    """A drawing of a graph, which a notebook shows; with ``filename`` it is also saved.

    Args:
        graph: the graph.
        filename: where to save it; its ending tells the format. One without an ending gets that of ``format``.
        format: ``svg``, ``png``, ``dot``, ``mmd`` or ``md``; also how a notebook shows it.
        source: what the start node is called.
        targets: names of what takes the results, or a mapping of them to the steps they follow.
        **graph_attrs: attributes of the Graphviz graph, such as ``rankdir="TB"``.

    Raises:
        GraphError: the format, an attribute, a shape or a target is unknown.
        ServegraphError: it is to be saved as SVG or PNG and Graphviz is not installed.
    """
    drawing = draw(graph, source, targets)
    shown = None if format is None else _format(format)
    result = Plot(to_dot(drawing, graph_attrs), to_mermaid(drawing), shown or "svg")
    if filename is not None:
        path = Path(filename)
        if not path.suffix and format is not None:
            path = path.with_name(f"{path.name}.{format.lstrip('.').lower()}")
        result.save(path, format)
    return result


def _format(name: str) -> str:
    known = _FORMATS.get(name.lstrip(".").lower())
    if known is None:
        raise GraphError(f"{name!r} is no format of a drawing; {closest(name, _FORMATS)}")
    return known


class Plot:
    """A drawing; made by `plot`.

    Attributes:
        dot: the drawing in Graphviz's language.
        mermaid: the drawing in Mermaid's language.
        format: how a notebook shows it.
    """

    def __init__(self, dot: str, mermaid: str, format: str = "svg") -> None:
        self.dot = dot
        self.mermaid = mermaid
        self.format = format

    def svg(self) -> str:
        """The drawing as an SVG document.

        Raises:
            ServegraphError: Graphviz's program ``dot`` is not installed, or failed.
        """
        return _run_dot(self.dot, "-Tsvg").decode()

    def png(self) -> bytes:
        """The drawing as a PNG image; errors as for `svg`."""
        return _run_dot(self.dot, "-Tpng", f"-Gdpi={_PNG_DPI}")

    def save(self, filename: str | PathLike[str], format: str | None = None) -> Path:
        """Write the drawing to a file and return its path.

        Args:
            filename: its ending (.svg, .png, .dot, .mmd, .md) tells the format where ``format`` is not given.
            format: see `plot`.
        """
        path = Path(filename)
        if not path.suffix and format is None:
            raise GraphError(f"{str(path)!r} has no ending that tells the format; valid: .svg, .png, .dot, .mmd, .md")
        path.write_bytes(self._content(_format(format or path.suffix)))
        return path

    def _content(self, form: str) -> bytes:
        if form == "png":
            return self.png()
        texts = {"dot": self.dot, "mermaid": self.mermaid, "markdown": self._repr_markdown_()}
        return (self.svg() if form == "svg" else texts[form]).encode()

    def __repr__(self) -> str:
        return f"<Plot of {self.dot.count('[label=')} nodes: .svg(), .png(), .mermaid, .dot, .save(filename)>"

    def _repr_markdown_(self) -> str:
        return f"```mermaid\n{self.mermaid}```\n"

    def _repr_svg_(self) -> str | None:
        """SVG where Graphviz is installed; elsewhere None, and a notebook takes the Mermaid text."""
        return self.svg() if _dot_program() else None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.format in ("dot", "mermaid", "markdown") or _dot_program() is None:
            if self.format == "dot":
                bundle["text/plain"] = self.dot
            else:
                bundle["text/vnd.mermaid"] = self.mermaid
                bundle["text/markdown"] = self._repr_markdown_()
        elif self.format == "png":
            bundle["image/png"] = base64.b64encode(self.png()).decode()
        else:
            bundle["image/svg+xml"] = self.svg()
        wanted = {k: v for k, v in bundle.items() if not include or k in include}
        return {k: v for k, v in wanted.items() if not exclude or k not in exclude}


def _dot_program() -> str | None:
    return shutil.which("dot")


def _run_dot(source: str, *options: str) -> bytes:
    program = _dot_program()
    if program is None:
        raise ServegraphError(
            "drawing SVG and PNG needs Graphviz's program 'dot', which is not installed: apt-get install graphviz, "
            "brew install graphviz or conda install graphviz; .mermaid and .dot need nothing"
        )
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program; the drawing goes to its standard input
            [program, *options], input=source.encode(), capture_output=True, timeout=_DOT_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as exc:
        raise ServegraphError(f"Graphviz failed: {exc.stderr.decode(errors='replace').strip()}") from exc
    except subprocess.TimeoutExpired as exc:
        raise ServegraphError(f"Graphviz did not draw the graph within {_DOT_TIMEOUT_S} s") from exc
    return done.stdout
