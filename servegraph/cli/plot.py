"""``servegraph plot``: a drawing of a function's graph."""

from __future__ import annotations

import click

from servegraph.cli.target import component_option, components_of, load_target
from servegraph.graph.plot import plot


@click.command(name="plot", short_help="Draw a function's graph.")
@click.argument("target")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="The file to write: .svg, .png, .dot, .mmd, .md.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "markdown", "svg", "png"]),
    help="The format.  [default: that of the file's ending, else mermaid]",
)
@click.option("--name", help="The function to draw, where a file defines several.")
@component_option
def command(target: str, output: str | None, form: str | None, name: str | None, components: tuple[str, ...]) -> None:
    """Draw the graph of TARGET: a .py file or notebook, a graph spec or a SeldonDeployment, a folder, or module:attr.

    The code of a SeldonDeployment need not be there. Without -o the drawing is printed. SVG and PNG need Graphviz's
    program `dot`; the text formats need nothing.

    \b
    Examples:
      servegraph plot function.py
      servegraph plot function.py -o graph.svg
    """  # noqa: D301 - click's mark for lines that stay as they are
    if output is None and form == "png":
        raise click.UsageError("a PNG image needs a file: -o graph.png")
    function = load_target(target, name, components_of(components), code_needed=False)
    drawing = plot(function.graph, output, form)
    if output is not None:
        click.echo(f"wrote {output}", err=True)
        return
    texts = {"dot": lambda: drawing.dot, "svg": drawing.svg, "markdown": drawing._repr_markdown_}
    click.echo(texts.get(form or "", lambda: drawing.mermaid)().rstrip("\n"))
