"""``servegraph validate``: what is wrong in a function's graph, found without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import click

from servegraph import jsoncodec
from servegraph.cli.target import component_option, components_of, load_target
from servegraph.errors import GraphError
from servegraph.graph.problems import Problem
from servegraph.graph.validate import validate


@click.command(name="validate", short_help="Check a function's graph without running it.")
@click.argument("target")
@click.option("--name", help="The function to check, where a file defines several.")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a JSON array.")
@click.option("--exportable", is_flag=True, help="Also tell what cannot be written into a spec.")
@component_option
def command(target: str, name: str | None, as_json: bool, exportable: bool, components: tuple[str, ...]) -> None:
    """Check the graph of TARGET: a .py file or notebook, a graph spec or a SeldonDeployment, a folder, or module:attr.

    Exits with 1 when there are errors, with 0 when there are only warnings or nothing.
    """
    try:
        problems = find_problems(target, name, exportable, components_of(components))
    except GraphError as exc:
        if not as_json:
            raise
        problems = [Problem("error", exc.step, "unreadable", exc.message)]
    if as_json:
        click.echo(jsoncodec.dumps([asdict(p) for p in problems], indent=True).decode())
    else:
        for problem in problems:
            click.echo(str(problem))
        click.echo(_summary(problems), err=True)
    if any(p.level == "error" for p in problems):
        raise click.exceptions.Exit(1)


def find_problems(
    target: str, name: str | None = None, exportable: bool = False, components: Mapping[str, str] | None = None
) -> list[Problem]:
    """The problems of the graph that a target names.

    Raises:
        ServegraphError: the target cannot be loaded.
    """
    function = load_target(target, name, components)
    return validate(
        function.graph,
        namespaces=function.namespaces(),
        exportable=exportable,
        folder=function.spec.workdir or None,
    )


def _summary(problems: list[Problem]) -> str:
    if not problems:
        return "no problems found"
    counts = {level: sum(p.level == level for p in problems) for level in ("error", "warning")}
    return ", ".join(f"{n} {level}{'s' if n != 1 else ''}" for level, n in counts.items() if n)
