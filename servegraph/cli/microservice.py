"""``servegraph microservice``, also installed as ``seldon-core-microservice``: serves one Seldon component.

The options, their environment variables and defaults are those of Seldon Core's command, so that images and
deployments that call it need no change. What they mean is decided in ``runtimes/seldon/command.py``.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from servegraph.cli.target import show_traceback
from servegraph.errors import ServegraphError
from servegraph.runtimes.seldon.command import (
    SERVICE_TYPES,
    BadValueError,
    MicroserviceCommand,
    UnknownArgumentsError,
    serve_component,
)

_UNKNOWN: Final = 255
_BAD_VALUE: Final = 2


class _Command(click.Command):
    """Names all unknown options at once and ends with the status that Seldon's command has for them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        words = (ctx.params.get("interface_name") or "", *ctx.params.get("api", ()))
        unknown = [word for word in words if word.startswith("-")]
        if unknown:
            click.echo(f"unknown arguments: {' '.join(unknown)}; see --help", err=True)
            ctx.exit(_UNKNOWN)
        return rest


_INTEGER = click.INT


@click.command(
    name="microservice",
    cls=_Command,
    short_help="Serve a Seldon component: REST, gRPC and metrics.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("interface_name", required=False)
@click.argument("api", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--service-type", type=click.Choice(SERVICE_TYPES), help="Kind of the component; all of its methods are served."
)
@click.option(
    "--persistence",
    type=_INTEGER,
    is_flag=False,
    flag_value="1",
    metavar="[N]",
    help="Keep the state of the component (1).",
)
@click.option("--parameters", help="JSON list of name, value and type, for the component's class.")
@click.option("--log-level", help="DEBUG, INFO, WARNING or ERROR.  [default: INFO]")
@click.option(
    "--debug",
    is_flag=False,
    flag_value="true",
    metavar="[X]",
    help="Log at level DEBUG; show tracebacks in the log of every failed request.",
)
@click.option(
    "--tracing",
    type=_INTEGER,
    is_flag=False,
    flag_value="1",
    metavar="[N]",
    help="Accepted; see the migration page.",
)
@click.option("--workers", type=_INTEGER, help="Worker processes, each with its own component.  [default: 1]")
@click.option("--threads", type=_INTEGER, help="How many of the component's methods may run at once.  [default: 1]")
@click.option(
    "--max-requests", type=_INTEGER, help="Replace a worker after so many requests; 0 for never.  [default: 0]"
)
@click.option("--max-requests-jitter", type=_INTEGER, help="At most so many more, at random.  [default: 0]")
@click.option("--keepalive", type=_INTEGER, help="Seconds an idle connection is kept.  [default: 2]")
@click.option("--single-threaded", type=_INTEGER, help="1: the same as --threads 1.  [default: 0]")
@click.option("--http-port", type=_INTEGER, help="TCP port of REST; 0 takes any free one.  [default: 9000]")
@click.option("--grpc-port", type=_INTEGER, help="TCP port of gRPC.  [default: 5000]")
@click.option("--metrics-port", type=_INTEGER, help="TCP port of the metrics.  [default: 6000]")
@click.option("--pidfile", type=click.Path(dir_okay=False), help="File for the process id.")
@click.option("--access-log", is_flag=False, flag_value="true", metavar="[X]", help="Log one line for each request.")
@click.option("--grpc-threads", type=_INTEGER, help="How many gRPC calls run at once.  [default: 1]")
@click.option("--grpc-workers", type=_INTEGER, help="0: no gRPC.  [default: 1]")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - as Seldon's command
@click.option("--allow-pickle/--no-allow-pickle", default=None, help="Whether pickled models and states may be loaded.")
@click.option("--state-store", help="Where --persistence keeps the state.  [default: redis of REDIS_SERVICE_HOST]")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any setting of the server: limits.json_depth=32."
)
def command(interface_name: str | None, api: tuple[str, ...], **options: Any) -> None:
    """Serve the component INTERFACE_NAME: a class of the module of its name, or package.module.Class.

    \b
    Examples:
      servegraph microservice MyModel --service-type MODEL
      servegraph microservice mypackage.models.Classifier --workers 4 --http-port 9000
      servegraph microservice SKLearnServer --parameters '[{"name":"model_uri","value":"models/iris","type":"STRING"}]'
    """  # noqa: D301 - click's mark for lines that stay as they are
    try:
        code = serve_component(MicroserviceCommand(interface_name or "", api, options))
    except UnknownArgumentsError as exc:
        click.echo(f"Error: {exc}", err=True)
        code = _UNKNOWN
    except BadValueError as exc:
        click.echo(f"Error: {exc}", err=True)
        code = _BAD_VALUE
    except ServegraphError as exc:
        raise click.ClickException(str(exc)) from exc
    except Exception as exc:  # noqa: BLE001 - the component's own module, constructor or load
        show_traceback(exc)
        code = 1
    sys.exit(code)


def main() -> None:
    """The command under Seldon's name."""
    command(prog_name="seldon-core-microservice")
