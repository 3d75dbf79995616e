"""``seldon_core.api_tester``: the test of a deployment behind a gateway by its contract."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from servegraph.runtimes.seldon.compat.microservice_tester import send
from servegraph.serving.seldon.client import SeldonClient

_COMMAND: Final = "servegraph.cli.seldon_tester"
_GATEWAY: Final = "ambassador"


def get_seldon_client(args: Any) -> SeldonClient:
    """A client of the deployment.

    Args:
        args: an object with ``host``, ``port``, ``deployment``, ``namespace`` and ``grpc``.
    """
    return SeldonClient(
        gateway=_GATEWAY,
        gateway_endpoint=f"{args.host}:{args.port}",
        transport="grpc" if args.grpc else "rest",
        deployment_name=args.deployment,
        namespace=args.namespace,
    )


def run_predict(args: Any) -> None:
    """Send random requests to a deployment.

    Args:
        args: as for `get_seldon_client`, and ``contract`` (a file), ``batch_size``, ``n_requests``, ``tensor`` and
            ``prnt``.

    Raises:
        SeldonTesterException: the contract cannot be read, or a request failed.
    """
    _send(args, "predict")


def run_send_feedback(args: Any) -> None:
    """Send random requests to a deployment, and feedback on its answers; see `run_predict`."""
    _send(args, "send-feedback")


def _send(args: Any, endpoint: str) -> None:
    send(args, endpoint, gateway=_GATEWAY, deployment=args.deployment, namespace=args.namespace)


def main() -> None:
    """Run the command with the arguments of this process, and end it."""
    # The command is above this layer: it is named here, not depended on.
    import_module(_COMMAND).api_tester()


__all__ = ["get_seldon_client", "main", "run_predict", "run_send_feedback"]
