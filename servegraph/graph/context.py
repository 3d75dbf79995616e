"""What user code is handed: `GraphContext`, and the small protocols by which a runtime plugs into it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from servegraph import jsoncodec
from servegraph.graph.calls import InlineLimits
from servegraph.graph.events import Event, Response

logger = logging.getLogger("servegraph")


class GraphLogger(logging.LoggerAdapter[logging.Logger]):
    """A standard logger that also answers Nuclio's ``info_with(message, **fields)`` family."""

    def __init__(self, target: logging.Logger = logger) -> None:
        super().__init__(target, {})

    def debug_with(self, message: str, *args: Any, **fields: Any) -> None:
        """Log at level debug, with fields."""
        self._with(logging.DEBUG, message, args, fields)

    def info_with(self, message: str, *args: Any, **fields: Any) -> None:
        """Log at level info, with fields."""
        self._with(logging.INFO, message, args, fields)

    def warn_with(self, message: str, *args: Any, **fields: Any) -> None:
        """Log at level warning, with fields."""
        self._with(logging.WARNING, message, args, fields)

    warning_with = warn_with

    def error_with(self, message: str, *args: Any, **fields: Any) -> None:
        """Log at level error, with fields."""
        self._with(logging.ERROR, message, args, fields)

    def warn(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at level warning; the short name that Nuclio's logger has."""
        self.warning(msg, *args, **kwargs)

    def _with(self, level: int, message: str, args: tuple[Any, ...], fields: Mapping[str, Any]) -> None:
        if self.isEnabledFor(level):
            tail = " ".join(f"{k}={v!r}" for k, v in fields.items())
            self.log(level, "%s %s", message % args if args else message, tail)


@dataclass(slots=True)
class Prediction:
    """What a model tells the recorder of one call; nothing in it is copied, nothing in it may be changed.

    It is not frozen because that makes each one three times as slow.
    """

    model: str
    version: str
    model_class: str
    endpoint_uid: str
    op: str
    request: Any
    response: Any
    when_ns: int
    """Wall clock at the start of the call, nanoseconds since 1970."""
    microsec: int
    """Time spent in the call, whole microseconds of the monotonic clock."""
    error: BaseException | None
    metrics: Mapping[str, Any] | None
    labels: Mapping[str, str] | None
    key: str | None = None
    """Partition key of the record in the stream."""
    request_id: str | None = None
    """The request's id: for records of failed calls, whose response cannot tell it."""
    logged: Callable[[Any, Any, str], Any] | None = None
    """The model's own ``logged_results(request, response, op)``, when it has one."""


class Recorder(Protocol):
    """Takes one record per prediction; never waits, never raises. The runtime supplies it when tracking is on."""

    def record(self, prediction: Prediction) -> None:
        """Hand a prediction over."""
        ...


class Observer(Protocol):
    """Makes the function that a model calls with each operation's duration and outcome."""

    def model(self, name: str, version: str) -> Callable[[float, bool], None]:
        """A function of (seconds, failed) for one model."""
        ...


@dataclass(slots=True)
class StreamInfo:
    """Where predictions are recorded, as user code may ask."""

    enabled: bool = False
    stream_uri: str = ""
    function_uri: str = ""
    hostname: str = ""


class GraphContext:
    """What a function's code can reach: logger, parameters, secrets, streams, the server that runs it.

    User code may set attributes of its own on it; they live as long as the server.
    """

    Response = Response

    def __init__(
        self,
        *,
        name: str = "",
        project: str = "default",
        tag: str = "",
        parameters: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        worker_id: int = 0,
        is_mock: bool = False,
        verbose: bool = False,
    ) -> None:
        self.name = name
        self.project = project
        self.tag = tag
        self.parameters: dict[str, Any] = dict(parameters or {})
        self._secrets: dict[str, str] = dict(secrets or {})
        self.worker_id = worker_id
        self.is_mock = is_mock
        self.verbose = verbose
        self.logger = GraphLogger()
        self.stream = StreamInfo(function_uri=self.function_uri)
        self.current_function = "*"
        self.trigger = ""
        self.platform: Any = None
        self.server: Any = None
        self.root: Any = None
        self.workdir: str | None = None
        """The folder that relative model paths start from."""
        self.tensor_rank = 8
        """How many dimensions a tensor of a request may have."""
        self.read_json: Callable[[bytes], Any] = jsoncodec.loads
        """Reads JSON that a request brought, within the server's limits."""
        self.inline_limits = InlineLimits()
        """When synchronous code of the graph may run on the event loop."""
        self.load_mode: str = "sync"
        self.load_timeout_s: float | None = None
        self.recorder: Recorder | None = None
        self.observer: Observer | None = None
        self.error_sink: Callable[[Mapping[str, Any]], None] | None = None
        self.stream_opener: Callable[..., Any] | None = None
        self.services: dict[str, Any] = {}
        """What the runtime offers to steps that know its name."""

    @property
    def function_uri(self) -> str:
        """``project/name[:tag]``."""
        return f"{self.project}/{self.name}" + (f":{self.tag}" if self.tag else "")

    def get_param(self, key: str, default: Any = None) -> Any:
        """A parameter of the function, or the default."""
        return self.parameters.get(key, default)

    def get_secret(self, key: str, default: str | None = None) -> str | None:
        """A secret of the function, or the default. Secrets are in no spec and no log."""
        return self._secrets.get(key, default)

    def push_error(self, event: Event, message: str, source: str = "", **args: Any) -> None:
        """Log a failure and put it on the function's error stream, when it has one. Never raises for the stream."""
        self.logger.error("%s: request %s: %s", source or self.name, event.id, message)
        self.report_error(event, message, source, **args)

    def report_error(self, event: Event, message: str, source: str = "", **args: Any) -> None:
        """Put a failure on the function's error stream, when it has one; for those that are logged elsewhere."""
        if self.error_sink is not None:
            self.error_sink(
                {
                    "function_uri": self.function_uri,
                    "worker": self.worker_id,
                    "host": self.stream.hostname,
                    "source": source,
                    "event": {"id": event.id, "body": event.body},
                    "message": message,
                    "args": args,
                }
            )
