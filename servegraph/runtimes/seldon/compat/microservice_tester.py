"""``seldon_core.microservice_tester``: requests made of a contract, and the test of a component by its contract."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np

from servegraph import jsoncodec
from servegraph.runtimes.seldon.tester import SeldonTesterOptions, exchanges
from servegraph.serving.seldon.contract import Contract, SeldonTesterException
from servegraph.serving.seldon.contract_batches import make_batch

_COMMAND: Final = "servegraph.cli.seldon_tester"


def generate_batch(contract: Mapping[str, Any], n: int, field: str) -> Any:
    """An array of ``n`` random rows.

    Args:
        contract: a decoded ``contract.json``.
        n: how many rows.
        field: ``features`` or ``targets``.

    Raises:
        SeldonTesterException: the contract is none.
    """
    return make_batch(Contract.of({"features": contract.get(field)}), n, np.random.default_rng())


def unfold_contract(contract: Mapping[str, Any]) -> dict[str, Any]:
    """The contract with each repeated column written out, under a name of its own."""
    return {
        "features": [one for column in contract["features"] for one in _written_out(column, "", 1)],
        "targets": [one for column in contract.get("targets") or () for one in _written_out(column, ":", 0)],
    }


def _written_out(column: Mapping[str, Any], mark: str, first: int) -> list[dict[str, Any]]:
    repeat = column.get("repeat")
    if repeat is None:
        return [dict(column)]
    rest = {key: value for key, value in column.items() if key != "repeat"}
    return [{**rest, "name": f"{column['name']}{mark}{number}"} for number in range(first, first + repeat)]


def get_class_names(contract: Mapping[str, Any]) -> list[str]:
    """The names of the features."""
    return [feature["name"] for feature in contract["features"]]


def run_method(args: Any, method: str) -> None:
    """Send random requests to a component.

    Args:
        args: an object with ``contract`` (a file), ``host``, ``port``, ``batch_size``, ``n_requests``, ``grpc``,
            ``tensor`` and ``prnt``.
        method: ``predict`` or ``transform-input``.

    Raises:
        SeldonTesterException: the contract cannot be read, or a request failed.
    """
    send(args, method)


def run_send_feedback(args: Any) -> None:
    """Send random feedback to a component; see `run_method`."""
    send(args, "send-feedback")


def send(args: Any, endpoint: str, **through: Any) -> None:
    """Send requests, and show them where that is asked for.

    Args:
        args: see `run_method`.
        endpoint: what is asked.
        **through: further options: the gateway that they go through.

    Raises:
        SeldonTesterException: the contract cannot be read, or a request failed.
    """
    options = SeldonTesterOptions(
        f"{args.host}:{args.port}",
        endpoint,
        args.batch_size,
        args.n_requests,
        "grpc" if args.grpc else "rest",
        "tensor" if args.tensor else "ndarray",
        check_names=False,
        **through,
    )
    for exchange in exchanges(Contract.read(args.contract), options):
        if getattr(args, "prnt", False):
            sys.stdout.write(f"SENDING NEW REQUEST:\n{jsoncodec.dumps(exchange.request).decode()}\n")
            sys.stdout.write(f"RECEIVED RESPONSE:\n{jsoncodec.dumps(exchange.response).decode()}\n")
        if exchange.findings:
            raise SeldonTesterException(f"request {exchange.number}: {'; '.join(exchange.findings)}")


def main() -> None:
    """Run the command with the arguments of this process, and end it."""
    # The command is above this layer: it is named here, not depended on.
    import_module(_COMMAND).command()


__all__ = [
    "SeldonTesterException",
    "generate_batch",
    "get_class_names",
    "main",
    "run_method",
    "run_send_feedback",
    "unfold_contract",
]
