"""What a run of the batch processor can be told."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SettingsError, closest
from servegraph.runtimes.batch_progress import Progress

GATEWAYS: Final = ("ambassador", "istio", "seldon")
TRANSPORTS: Final = ("rest", "grpc")
DATA_TYPES: Final = ("data", "json", "str", "raw")
PAYLOAD_TYPES: Final = ("ndarray", "tensor", "tftensor")
METHODS: Final = ("predict", "feedback")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway_type": GATEWAYS,
    "transport": TRANSPORTS,
    "data_type": DATA_TYPES,
    "payload_type": PAYLOAD_TYPES,
    "method": METHODS,
}


@dataclass(frozen=True, slots=True)
class SeldonBatchOptions:
    """One run."""

    deployment_name: str
    """The deployment that is called."""
    input_data_path: Path
    """File with one JSON value on each line."""
    output_data_path: Path
    """File that gets one JSON object for each line, in the same order."""
    gateway_type: str = "istio"
    """What stands in front of the deployment; ``seldon`` is nothing."""
    namespace: str = "default"
    """The deployment's namespace."""
    host: str = "istio-ingressgateway.istio-system.svc.cluster.local:80"
    """``host:port`` of the gateway."""
    transport: str = "rest"
    """``rest`` or ``grpc``."""
    data_type: str = "data"
    """What a line is: ``data`` an array, ``json`` any value, ``str`` a text, ``raw`` a whole message."""
    payload_type: str = "ndarray"
    """How arrays of numbers are sent."""
    workers: int = 1
    """How many requests are under way at once."""
    retries: int = 3
    """How often a request is sent at most before its lines count as failed."""
    method: str = "predict"
    """``predict`` or ``feedback``, whose lines are whole feedback messages."""
    batch_id: str | None = None
    """Name of the run in the tags of each line; made up when not given."""
    batch_size: int = 1
    """How many lines are sent in one request."""
    batch_interval: float = 0.0
    """Least seconds between two requests of the same worker."""
    use_ssl: bool = False
    """Whether the connection is encrypted; with a token it always is."""
    call_credentials_token: str = field(default="", repr=False)
    """Token that is sent with each request."""
    timeout_s: float = 60.0
    """Seconds that one request may take."""
    resume: bool = False
    """Whether to go on where an earlier run with the same output was stopped."""
    progress: bool | Callable[[Progress], Any] | None = False
    """Whether, and to whom, progress is shown; as in `BatchOptions`."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise SettingsError(f"{name}={value!r} is unknown; {closest(str(value), choices)}")
        for name in ("workers", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.batch_interval < 0 or self.retries < 0:
            raise SettingsError("batch_interval and retries must not be below 0")
        if self.method == "feedback" and self.data_type != "raw":
            raise SettingsError("method=feedback needs data_type=raw: each line is a whole feedback message")
        if self.batch_size > 1 and (self.method == "feedback" or self.data_type not in ("data", "raw")):
            raise SettingsError("batch_size above 1 is for predictions with data_type=data or raw: only arrays join")
        if self.batch_size > 1 and self.payload_type == "tftensor":
            raise SettingsError("batch_size above 1 needs payload_type=ndarray or tensor")
        if self.input_data_path.resolve() == self.output_data_path.resolve():
            raise SettingsError(f"input and output are the same file: {self.output_data_path}")
        if not self.output_data_path.parent.is_dir() or self.output_data_path.is_dir():
            raise SettingsError(f"the output {self.output_data_path} cannot be written: its folder is not there")

    def named(self, kept: str | None) -> str:
        """The name of the run: the one given, that of the run that is gone on with, or a new one."""
        return self.batch_id or kept or str(uuid.uuid1())
