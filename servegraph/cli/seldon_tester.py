"""``servegraph seldon-test``, and the console scripts of Seldon that do the same."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import click

from servegraph import jsoncodec
from servegraph.cli.script import ScriptCommand

ENDPOINTS = ("predict", "send-feedback", "transform-input")
GATEWAYS = ("ambassador", "istio", "seldon")


@click.command(
    name="seldon-test",
    cls=ScriptCommand,
    short_help="Test a Seldon component or deployment against its contract.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("contract", type=click.Path(dir_okay=False))
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("deployment", required=False)
@click.option("--endpoint", type=click.Choice(ENDPOINTS), default="predict", show_default=True)
@click.option("-b", "--batch-size", "rows", type=click.IntRange(1), default=1, help="Rows of a request.")
@click.option("-n", "--n-requests", "requests", type=click.IntRange(1), default=1, help="How many requests to send.")
@click.option("--grpc", is_flag=True, help="Send them over gRPC.")
@click.option("-t", "--tensor", is_flag=True, help="Send numbers as a tensor, not as nested lists.")
@click.option("-p", "--prnt", is_flag=True, help="Print requests and answers.")
@click.option("--seed", type=click.IntRange(0), help="Make the same requests as a run with this seed.")
@click.option("--gateway", type=click.Choice(GATEWAYS), help="Go through a gateway.  [default: with a DEPLOYMENT]")
@click.option("--namespace", help="Namespace of the deployment.")
@click.option("--gateway-prefix", "--ambassador-path", help="Path of the deployment at the gateway.")
@click.option("--ssl", is_flag=True, help="Use an encrypted connection.")
@click.option("--names/--ignore-names", "check_names", default=True, help="Whether names of answers are checked.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, help="Seconds."
)
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "ERROR"], case_sensitive=False), default="ERROR")
def command(contract: str, host: str, port: int, prnt: bool, seed: int | None, log_level: str, **options: Any) -> None:
    """Send random requests that keep CONTRACT to HOST and PORT, and check the answers against it.

    Without DEPLOYMENT and gateway, a component is tested by itself. The exit code is 1 when a request fails or an
    answer breaks the contract.

    \b
    Examples:
      servegraph seldon-test contract.json localhost 9000 -n 20 -b 5
      servegraph seldon-test contract.json localhost 5000 --grpc -p
      servegraph seldon-test contract.json localhost 8003 iris --namespace prod
    """  # noqa: D301 - click's mark for lines that stay as they are
    from servegraph.runtimes.seldon.tester import Exchange, exchanges
    from servegraph.serving.seldon.contract import Contract

    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    told = _options(f"{host}:{port}", seed if seed is not None else secrets.randbelow(2**32), options)
    agreed = Contract.read(contract)
    wrong: list[Exchange] = []
    for exchange in exchanges(agreed, told):
        if prnt:
            click.echo(f"request {exchange.number}: {jsoncodec.dumps(exchange.request).decode()}")
            click.echo(f"answer {exchange.number}: {jsoncodec.dumps(exchange.response).decode()}")
        for finding in exchange.findings:
            click.echo(f"request {exchange.number}: {finding}", err=True)
        if exchange.findings:
            wrong.append(exchange)
    outcome = f"{len(wrong)} of {told.requests} requests failed" if wrong else f"{told.requests} requests, all good"
    click.echo(f"{outcome} (--seed {told.seed} makes them again)")
    if wrong:
        raise click.exceptions.Exit(1)


def _options(address: str, seed: int, options: dict[str, Any]) -> Any:
    from servegraph.runtimes.seldon.tester import SeldonTesterOptions

    grpc, tensor = options.pop("grpc"), options.pop("tensor")
    through = options["deployment"] or options["gateway_prefix"]
    options["gateway"] = options["gateway"] or ("ambassador" if through else None)
    return SeldonTesterOptions(
        address,
        transport="grpc" if grpc else "rest",
        payload_type="tensor" if tensor else "ndarray",
        seed=seed,
        **options,
    )


def api_tester() -> None:
    """``seldon-core-api-tester``: the same command, through a gateway always."""
    command.main(default_map={"gateway": "ambassador"})
