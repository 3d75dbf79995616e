"""``servegraph serve``: a function over HTTP on this machine, with supervised worker processes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from servegraph import jsoncodec
from servegraph.cli.target import assignment, component_option, components_of
from servegraph.errors import SettingsError
from servegraph.settings import load_settings

FACTORY = "servegraph.runtimes.local:build_application"


@click.command(name="serve", short_help="Serve a function over HTTP and gRPC.")
@click.argument("target")
@click.option("--name", help="The function to serve, where a file defines several.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--http-port", type=int, help="TCP port of the HTTP edge; 0 takes any free one.  [default: 8080]")
@click.option("--grpc-port", help="TCP port of gRPC, where it is offered; off, or 0 for any free one.  [default: 8081]")
@click.option("--metrics-port", help="TCP port for the metrics alone; 0 takes any free one.  [default: off]")
@click.option("--workers", type=int, help="Worker processes, each with its own models.  [default: 1]")
@click.option("--reload", is_flag=True, default=None, help="Restart when a source file changes. For development.")
@click.option("--access-log/--no-access-log", default=None, help="Log one line for each request.")
@click.option("--log-level", help="debug, info, warning, error or critical.  [default: info]")
@component_option
@click.option("--state-store", help="Where Seldon components keep what they learn: redis://host:port/db.")
@click.option("--allow-pickle/--no-allow-pickle", default=None, help="Whether Seldon components may load pickles.")
@click.option("--settings", "settings_file", type=click.Path(dir_okay=False), help="A YAML, JSON or TOML file.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any setting: limits.json_depth=32.")
def command(
    target: str,
    name: str | None,
    components: tuple[str, ...],
    settings_file: str | None,
    assignments: tuple[str, ...],
    **flags: Any,
) -> None:
    """Serve TARGET: a .py file or notebook, a graph spec or a SeldonDeployment (.yaml, .json), a folder, or
    module:attr.

    \b
    Examples:
      servegraph serve examples/iris/function.py
      servegraph serve function.py:fraud --http-port 9000 --workers 4
      servegraph serve graph.yaml --set timeouts.request_s=5
      servegraph serve deployment.yaml --component classifier=models:Iris
    """  # noqa: D301 - click's mark for lines that stay as they are
    from servegraph.runtimes.listening import GRPC, listeners_for
    from servegraph.runtimes.supervisor import Supervisor

    given = components_of(components)
    described = describe(target, name, given)
    if flags["grpc_port"] not in (None, "off") and GRPC not in described["edges"]:
        raise SettingsError(f"--grpc-port: {described['name']} offers no gRPC service; SeldonDeployments do")
    overrides = {**flags, **dict(assignment(a) for a in assignments)}
    settings = load_settings(file=settings_file, overrides=overrides, function=described["settings"])
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s"
    )
    watch = [Path(p) for p in described["files"]] if settings.reload else []
    supervisor = Supervisor(
        settings,
        FACTORY,
        {"function": target, "name": name, "components": given},
        watch=watch,
        listeners=listeners_for(settings, described["edges"]),
    )
    sys.exit(supervisor.run())


def describe(target: str, name: str | None, components: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a target's function asks for, found in a process of its own: the supervisor runs no user code."""
    line = [
        sys.executable,
        "-m",
        "servegraph.cli.describe",
        target,
        name or "",
        jsoncodec.dumps(components or {}).decode(),
    ]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        raise click.exceptions.Exit(1)
    described: dict[str, Any] = jsoncodec.loads(done.stdout)
    return described
