"""``seldon_core.batch_processor``: the batch processor as a function."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SettingsError, closest
from servegraph.runtimes.seldon.batch_options import (
    DATA_TYPES,
    GATEWAYS,
    METHODS,
    PAYLOAD_TYPES,
    TRANSPORTS,
    SeldonBatchOptions,
)
from servegraph.runtimes.seldon.batch_processor import process_batch

logger = logging.getLogger("servegraph.seldon.batch")

SELDON_PUID_HEADER: Final = "Seldon-Puid"
CHOICES_GATEWAY_TYPE: Final = list(GATEWAYS)
CHOICES_TRANSPORT: Final = list(TRANSPORTS)
CHOICES_PAYLOAD_TYPE: Final = list(PAYLOAD_TYPES)
CHOICES_DATA_TYPE: Final = list(DATA_TYPES)
CHOICES_METHOD: Final = list(METHODS)
_COMMAND: Final = "servegraph.cli.seldon_batch"
_ORDER: Final = (
    "deployment_name", "gateway_type", "namespace", "host", "transport", "data_type", "payload_type", "workers",
    "retries", "batch_size", "input_data_path", "output_data_path", "method", "log_level", "benchmark", "batch_id",
    "batch_interval", "call_credentials_token", "use_ssl", "ssl_verify",
)  # fmt: skip


def start_multithreaded_batch_worker(*args: Any, **kwargs: Any) -> None:
    """Send each line of a file to a deployment, and write each answer as a line.

    Args:
        *args: the options in Seldon's order; see `SeldonBatchOptions` for what they are.
        **kwargs: the same by name; besides ``log_level``, ``benchmark`` (log the time it took) and ``ssl_verify``.

    Raises:
        SettingsError: an option is unknown, or has a value that it cannot have; a file cannot be read or written.
        SeldonClientException: the deployment cannot be called as it is asked for.
    """
    told = {**dict(zip(_ORDER, args, strict=False)), **kwargs}
    for name in told:
        if name not in _ORDER:
            raise SettingsError(f"there is no option {name!r}; {closest(name, _ORDER)}")
    if not told.pop("ssl_verify", True) and (told.get("use_ssl") or told.get("call_credentials_token")):
        raise SettingsError("ssl_verify: certificates are always checked; have the gateway's trusted by SSL_CERT_FILE")
    logger.setLevel(str(told.pop("log_level", "info")).upper())
    benchmark = told.pop("benchmark", False)
    for name in ("input_data_path", "output_data_path"):
        if name in told:
            told[name] = Path(told[name])
    summary = process_batch(SeldonBatchOptions(**{k: v for k, v in told.items() if v is not None}))
    if benchmark:
        logger.info("elapsed time: %.3f s", summary.seconds)


def run_cli() -> None:
    """Run the command with the arguments of this process, and end it."""
    # The command is above this layer: it is named here, not depended on.
    import_module(_COMMAND).command()


__all__ = [
    "CHOICES_DATA_TYPE",
    "CHOICES_GATEWAY_TYPE",
    "CHOICES_METHOD",
    "CHOICES_PAYLOAD_TYPE",
    "CHOICES_TRANSPORT",
    "SELDON_PUID_HEADER",
    "run_cli",
    "start_multithreaded_batch_worker",
]
