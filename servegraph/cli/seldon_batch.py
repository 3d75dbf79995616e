"""``servegraph seldon-batch``, also installed as ``seldon-batch-processor``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from servegraph.cli.script import ScriptCommand

_FILE = click.Path(path_type=Path)


@click.command(
    name="seldon-batch",
    cls=ScriptCommand,
    short_help="Send each line of a file to a Seldon deployment.",
    context_settings={
        "auto_envvar_prefix": "SELDON_BATCH",
        "help_option_names": ["--help"],  # -h is the host
        "show_default": True,
    },
)
@click.option("-d", "--deployment-name", required=True, help="Deployment to call.")
@click.option(
    "-g",
    "--gateway-type",
    type=click.Choice(["ambassador", "istio", "seldon"]),
    default="istio",
    help="Kind of gateway.",
)
@click.option("-n", "--namespace", default="default", help="Namespace of the deployment.")
@click.option(
    "-h", "--host", default="istio-ingressgateway.istio-system.svc.cluster.local:80", help="host:port of the gateway."
)
@click.option("-t", "--transport", type=click.Choice(["rest", "grpc"]), default="rest", help="How requests are sent.")
@click.option(
    "-a", "--data-type", type=click.Choice(["data", "json", "str", "raw"]), default="data", help="What a line is."
)
@click.option(
    "-p",
    "--payload-type",
    type=click.Choice(["ndarray", "tensor", "tftensor"]),
    default="ndarray",
    help="How arrays of numbers are sent.",
)
@click.option("-w", "--workers", type=click.IntRange(1), default=1, help="Requests under way at once.")
@click.option("-r", "--retries", type=click.IntRange(0), default=3, help="How often a request is sent at most.")
@click.option("-i", "--input-data-path", type=_FILE, default="/assets/input-data.txt", help="One JSON value a line.")
@click.option("-o", "--output-data-path", type=_FILE, default="/assets/output-data.txt", help="One JSON object a line.")
@click.option(
    "-m", "--method", type=click.Choice(["predict", "feedback"]), default="predict", help="feedback needs raw lines."
)
@click.option(
    "-l", "--log-level", type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False), default="info"
)
@click.option("-b", "--benchmark", is_flag=True, help="Print the time that the run took.")
@click.option("-u", "--batch-id", envvar="SELDON_BATCH_ID", help="Name of the run in the tags.  [default: made up]")
@click.option(
    "-s", "--batch-size", envvar="SELDON_BATCH_SIZE", type=click.IntRange(1), default=1, help="Lines of one request."
)
@click.option(
    "--batch-interval",
    envvar="SELDON_BATCH_MIN_INTERVAL",
    type=click.FloatRange(0),
    default=0.0,
    help="Least seconds between two requests of a worker.",
)
@click.option("--use-ssl", type=bool, is_flag=False, flag_value="true", default=False, help="Encrypt the connection.")
@click.option("--call-credentials-token", default="", show_default=False, help="Token to send; encrypts as well.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=60.0, help="Seconds of one request."
)
@click.option("--resume", is_flag=True, help="Go on where an earlier run with this output was stopped.")
@click.option(
    "--progress/--no-progress", default=None, help="Show a bar.  [default: on a terminal]", show_default=False
)
def command(log_level: str, benchmark: bool, **options: Any) -> None:
    """Send each line of a file to a Seldon deployment and write each answer as a line, in the same order.

    Every option can be given in the environment as SELDON_BATCH_ and its name. The exit code is 1 when a line failed;
    its output line says why.

    \b
    Examples:
      servegraph seldon-batch -d iris -n prod -h gateway:80 -w 8 -i in.txt -o out.txt
      servegraph seldon-batch -d iris -g seldon -h localhost:8000 -a raw -s 32 -i in.txt -o out.txt
      servegraph seldon-batch -d iris -h gateway:80 -i in.txt -o out.txt --resume
    """  # noqa: D301 - click's mark for lines that stay as they are
    from servegraph.runtimes.seldon.batch_options import SeldonBatchOptions
    from servegraph.runtimes.seldon.batch_processor import process_batch

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request is too much of a batch
    summary = process_batch(SeldonBatchOptions(**options))
    failed = f"{summary.failed} failed" if summary.failed else "none failed"
    click.echo(f"batch {summary.batch_id}: {summary.rows} lines, {failed}, written to {summary.output}")
    if benchmark:
        click.echo(f"Elapsed time: {summary.seconds:.3f} s")
    if summary.failed:
        raise click.exceptions.Exit(1)
