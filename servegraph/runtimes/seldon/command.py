"""What ``seldon-core-microservice`` means: options, environment and annotations become settings, and a server runs.

An option wins over its environment variable, and that over a line of ``.s2i/environment``.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from servegraph.errors import SettingsError, closest
from servegraph.runtimes.alone import run_alone
from servegraph.runtimes.listening import GRPC, METRICS, Listen
from servegraph.runtimes.seldon.annotations import pod_annotations
from servegraph.runtimes.seldon.defaults import DEFAULTS
from servegraph.runtimes.seldon.microservice import FACTORY
from servegraph.runtimes.seldon.options import MicroserviceOptions
from servegraph.runtimes.supervisor import Supervisor
from servegraph.serving.seldon.environment import SeldonEnvironment, read_environment
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.parameters import read_parameters, typed_parameters
from servegraph.serving.seldon.step_state import OFF
from servegraph.settings import ServerSettings, load_settings

logger = logging.getLogger("servegraph")

SERVICE_TYPES: Final = ("MODEL", "ROUTER", "TRANSFORMER", "COMBINER", "OUTLIER_DETECTOR")
_APIS: Final = ("REST", "GRPC")
_HTTP_PORT: Final = 9000
_GRPC_PORT: Final = 5000
"""Also the port of the one interface of old command lines."""
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class UnknownArgumentsError(SettingsError):
    """The command line has words that mean nothing."""


class BadValueError(SettingsError):
    """An option, or the variable that stands for it, has a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class MicroserviceCommand:
    """One command line."""

    interface_name: str
    api: tuple[str, ...]
    """What follows the component's name: in old command lines ``REST`` or ``GRPC``."""
    options: Mapping[str, Any]
    """The options by name; ``None`` for those that are not given."""

    def get(self, name: str, default: Any) -> Any:
        """An option, or what stands in its place."""
        value = self.options.get(name)
        return default if value is None else value


def serve_component(command: MicroserviceCommand) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        UnknownArgumentsError: there are words behind the component's name that mean nothing.
        BadValueError: an option or a variable has a value that it cannot have.
        SettingsError: a port is taken, or a file cannot be written.
        Exception: what the component's own code raises while it is made.
    """
    try:
        environment = read_environment()
        options, settings = resolve(command, environment)
    except UnknownArgumentsError:
        raise
    except SettingsError as exc:
        raise BadValueError(exc.message) from exc
    level = settings.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each malformed request
    _tell(command, environment)
    if not options.grpc:
        none = command.get("grpc_workers", environment.grpc_workers) <= 0
        logger.info("gRPC is not served: %s", "--grpc-workers is 0" if none else "the command names REST alone")
    listeners = {METRICS: Listen(settings.host, settings.metrics_port or 0, reserve=True)}
    if options.grpc:
        listeners[GRPC] = Listen(settings.host, settings.grpc_port or 0, reserve=True)
    pidfile = command.get("pidfile", None)
    if pidfile:
        _write_pid(Path(pidfile))
    target = options.to_dict()
    if settings.workers == 1 and not settings.max_requests:
        signal.signal(signal.SIGHUP, _keep_on)
        return run_alone(settings, FACTORY, target, listeners, listen_when_ready=True)
    return Supervisor(settings, FACTORY, target, listeners=listeners, listen_when_ready=True).run()


def resolve(command: MicroserviceCommand, environment: SeldonEnvironment) -> tuple[MicroserviceOptions, ServerSettings]:
    """What is served, and how.

    Raises:
        UnknownArgumentsError: there are words behind the component's name that mean nothing.
        SettingsError: an option or a variable has a value that it cannot have.
    """
    component = command.interface_name or environment.model_name
    if not component:
        raise SettingsError("name the component: servegraph microservice MyModel, or set MODEL_NAME")
    _service_type(command.get("service_type", environment.service_type))
    api = _api(command.api)
    parameters = command.get("parameters", None)
    typed = list(environment.parameters) if parameters is None else read_parameters(parameters, "--parameters")
    _check_parameters(typed, "PREDICTIVE_UNIT_PARAMETERS" if parameters is None else "--parameters")
    annotations = pod_annotations()
    grpc_workers = command.get("grpc_workers", environment.grpc_workers)
    workers = max(command.get("workers", environment.workers), grpc_workers, 1)
    threads = max(command.get("threads", environment.threads), 1)
    if command.get("single_threaded", environment.single_threaded):
        threads = 1
    threads = max(threads, command.get("grpc_threads", environment.grpc_threads))  # of the component: one number
    http_port, grpc_port, serves_grpc = _ports(command, environment, api)
    overrides: dict[str, Any] = {
        "host": command.get("host", "0.0.0.0"),  # noqa: S104 - as Seldon's command
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": command.get("metrics_port", environment.metrics_port),
        "workers": workers,
        "access_log": bool(command.get("access_log", environment.access_log)),
        "log_level": _log_level(command, environment),
        "limits.keep_alive_s": float(max(command.get("keepalive", environment.keepalive), 1)),
        "executor.threads": threads,
        "grpc.threads": threads,
        "max_requests": command.get("max_requests", environment.max_requests),
        "max_requests_jitter": command.get("max_requests_jitter", environment.max_requests_jitter),
        "state_store": command.get("state_store", None),
        "allow_pickle": command.get("allow_pickle", None),
        **annotations.settings(),
        **dict(_assignment(text) for text in command.options.get("assignments") or ()),
    }
    settings = load_settings(overrides=overrides, function=DEFAULTS)
    options = MicroserviceOptions(
        component=component,
        parameters=typed,
        unit=asdict(environment.identity),
        threads=threads,
        grpc=serves_grpc and grpc_workers > 0,
        metrics_path=environment.metrics_path,
        metrics_in_response=environment.metrics_in_response,
        count_feedback=environment.executor_enabled,
        passthrough=environment.passthrough,
        metadata=environment.metadata,
        flask=dict(environment.flask),
        state_store=_state_store(command, environment),
    )
    return options, settings


def _check_parameters(parameters: list[Any], place: str) -> None:
    try:
        typed_parameters(parameters)
    except SeldonMicroserviceException as exc:
        raise SettingsError(f"{place}: {exc}") from exc


def _service_type(name: str) -> None:
    if name and name not in SERVICE_TYPES:
        raise SettingsError(f"service type {name!r}: {closest(name, SERVICE_TYPES)}")


def _api(words: tuple[str, ...]) -> str:
    """The interface that an old command line names."""
    if not words:
        return ""
    if len(words) > 1 or words[0].upper() not in _APIS:
        raise UnknownArgumentsError(
            f"unexpected {' '.join(words)!r}: behind the component's name there is nothing, or REST or GRPC as in old "
            "command lines"
        )
    return words[0].upper()


def _ports(command: MicroserviceCommand, environment: SeldonEnvironment, api: str) -> tuple[int, int, bool]:
    """The ports of REST and gRPC, and whether gRPC is served.

    Old command lines served one interface, on ``PREDICTIVE_UNIT_SERVICE_PORT`` or 5000. What they asked for is where
    they asked for it; gRPC beside REST only where its port is given too.
    """
    http: int | None = command.get("http_port", environment.http_port)
    grpc: int | None = command.get("grpc_port", environment.grpc_port)
    old = environment.service_port or _GRPC_PORT
    if api == "REST":
        return (old if http is None else http), grpc or 0, grpc is not None
    if api == "GRPC":
        return (_HTTP_PORT if http is None else http), (old if grpc is None else grpc), True
    return (_HTTP_PORT if http is None else http), (_GRPC_PORT if grpc is None else grpc), True


def _log_level(command: MicroserviceCommand, environment: SeldonEnvironment) -> str:
    name = environment.log_level or command.get("log_level", "INFO")
    if name.upper() not in _LEVELS:
        raise SettingsError(f"log level {name!r}: {closest(name.upper(), _LEVELS)}")
    return "debug" if command.get("debug", environment.debug) else str(name).lower()


def _state_store(command: MicroserviceCommand, environment: SeldonEnvironment) -> str:
    """Where the state is kept when nobody says it; ``off`` for nowhere."""
    return environment.redis if command.get("persistence", environment.persistence) else OFF


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingsError(f"--set takes NAME=VALUE, not {text!r}")
    return name, value


def _tell(command: MicroserviceCommand, environment: SeldonEnvironment) -> None:
    """Say what was asked for and is not done."""
    if command.get("tracing", environment.tracing):
        logger.warning("tracing is asked for, and this server has none: requests are not traced")
    if environment.api_type and environment.api_type.upper() not in _APIS:
        logger.warning("there is no API_TYPE %r; REST and gRPC are served", environment.api_type)


def _keep_on(number: int, frame: FrameType | None) -> None:
    """What SIGHUP does where it cannot replace a worker: by itself it would end the process, and requests with it."""
    logger.warning("SIGHUP: there is one process alone, and nothing to replace it with; --workers 2 can be replaced")


def _write_pid(file: Path) -> None:
    try:
        file.write_text(f"{os.getpid()}\n")
    except OSError as exc:
        raise SettingsError(f"--pidfile {file}: {exc}") from exc
    atexit.register(lambda: file.unlink(missing_ok=True))
