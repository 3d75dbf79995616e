"""What Seldon's operator and images tell a component by environment variables, read and set in one place."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import SettingsError
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.parameters import read_parameters

logger = logging.getLogger("servegraph.serving.seldon")

_TRUE: Final = ("1", "true", "t")
_FLASK: Final = (
    "FLASK_DEBUG", "FLASK_EXPLAIN_TEMPLATE_LOADING", "FLASK_JSONIFY_PRETTYPRINT_REGULAR", "FLASK_JSON_AS_ASCII",
    "FLASK_JSON_SORT_KEYS", "FLASK_PROPAGATE_EXCEPTIONS", "FLASK_PRESERVE_CONTEXT_ON_EXCEPTION",
    "FLASK_SESSION_COOKIE_HTTPONLY", "FLASK_SESSION_COOKIE_SECURE", "FLASK_SESSION_REFRESH_EACH_REQUEST",
    "FLASK_TEMPLATES_AUTO_RELOAD", "FLASK_TESTING", "FLASK_TRAP_HTTP_EXCEPTIONS", "FLASK_TRAP_BAD_REQUEST_ERRORS",
    "FLASK_USE_X_SENDFILE",
)  # fmt: skip
S2I_FILE: Final = Path(".s2i") / "environment"


def is_true(text: str) -> bool:
    """Whether a variable's value counts as true: ``1``, ``true`` or ``t`` in any case."""
    return text.strip().lower() in _TRUE


@dataclass(frozen=True, slots=True)
class SeldonEnvironment:
    """The variables of one process, read and checked."""

    identity: UnitIdentity = field(default_factory=UnitIdentity)
    parameters: tuple[Any, ...] = ()
    """``PREDICTIVE_UNIT_PARAMETERS``: the parameters of the component's class."""
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int = 6000
    service_port: int | None = None
    """``PREDICTIVE_UNIT_SERVICE_PORT``, which images before 1.5 listen on."""
    metrics_path: str = "/metrics"
    """``PREDICTIVE_UNIT_METRICS_ENDPOINT``."""
    metrics_in_response: bool = True
    """``INCLUDE_METRICS_IN_CLIENT_RESPONSE``."""
    passthrough: bool = False
    """``PAYLOAD_PASSTHROUGH``: ``/predict`` hands the undecoded body to ``predict_raw``."""
    metadata: str = ""
    """``MODEL_METADATA``: YAML or JSON over what the component says of itself."""
    log_level: str = ""
    """``SELDON_LOG_LEVEL``."""
    debug: bool = False
    tracing: bool = False
    workers: int = 1
    threads: int = 1
    max_requests: int = 0
    max_requests_jitter: int = 0
    keepalive: int = 2
    single_threaded: bool = False
    access_log: bool = False
    grpc_threads: int = 1
    grpc_workers: int = 1
    executor_enabled: bool = True
    """``SELDON_EXECUTOR_ENABLED``: whether feedback is counted here."""
    redis: str = "redis://localhost:6379"
    """``REDIS_SERVICE_HOST`` and ``REDIS_SERVICE_PORT``: the address of Redis."""
    model_name: str = ""
    service_type: str = ""
    api_type: str = ""
    persistence: bool = False
    flask: Mapping[str, bool] = field(default_factory=dict)
    """Fields of Flask's configuration (``FLASK_JSON_SORT_KEYS`` is ``JSON_SORT_KEYS``)."""


def read_environment(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> SeldonEnvironment:
    """What the environment says.

    Args:
        environ: the variables; those of this process when not given.
        folder: where ``.s2i/environment`` is looked for, whose values stand in for variables that are not set.

    Raises:
        SettingsError: a variable has a value that it cannot have.
    """
    env = dict(os.environ if environ is None else environ)
    for name, value in s2i_environment((folder or Path()) / S2I_FILE).items():
        env.setdefault(name, value)
    return SeldonEnvironment(
        identity=UnitIdentity(
            env.get("PREDICTIVE_UNIT_ID", ""),
            env.get("PREDICTIVE_UNIT_IMAGE", ""),
            env.get("PREDICTOR_ID", ""),
            _version(env.get("PREDICTOR_LABELS", "")),
            env.get("SELDON_DEPLOYMENT_ID", ""),
        ),
        parameters=tuple(read_parameters(env.get("PREDICTIVE_UNIT_PARAMETERS", ""), "PREDICTIVE_UNIT_PARAMETERS")),
        http_port=_port(env, "PREDICTIVE_UNIT_HTTP_SERVICE_PORT"),
        grpc_port=_port(env, "PREDICTIVE_UNIT_GRPC_SERVICE_PORT"),
        service_port=_port(env, "PREDICTIVE_UNIT_SERVICE_PORT"),
        metrics_port=_whole(env, "PREDICTIVE_UNIT_METRICS_SERVICE_PORT", 6000),
        metrics_path=env.get("PREDICTIVE_UNIT_METRICS_ENDPOINT") or "/metrics",
        metrics_in_response=env.get("INCLUDE_METRICS_IN_CLIENT_RESPONSE", "true").strip().lower() == "true",
        passthrough=is_true(env.get("PAYLOAD_PASSTHROUGH", "")),
        metadata=env.get("MODEL_METADATA", ""),
        log_level=env.get("SELDON_LOG_LEVEL", ""),
        debug=is_true(env.get("SELDON_DEBUG", "")),
        tracing=bool(_whole(env, "TRACING", 0)),
        workers=_whole(env, "GUNICORN_WORKERS", 1),
        threads=_whole(env, "GUNICORN_THREADS", 1),
        max_requests=_whole(env, "GUNICORN_MAX_REQUESTS", 0),
        max_requests_jitter=_whole(env, "GUNICORN_MAX_REQUESTS_JITTER", 0),
        keepalive=_whole(env, "GUNICORN_KEEPALIVE", 2),
        single_threaded=bool(_whole(env, "FLASK_SINGLE_THREADED", 0)),
        access_log=is_true(env.get("GUNICORN_ACCESS_LOG", "")),
        grpc_threads=_whole(env, "GRPC_THREADS", 1),
        grpc_workers=_whole(env, "GRPC_WORKERS", 1),
        executor_enabled=is_true(env.get("SELDON_EXECUTOR_ENABLED", "true")),
        redis=redis_address(env),
        model_name=env.get("MODEL_NAME", ""),
        service_type=env.get("SERVICE_TYPE", ""),
        api_type=env.get("API_TYPE", ""),
        persistence=bool(_whole(env, "PERSISTENCE", 0)),
        flask={name.removeprefix("FLASK_"): is_true(env[name]) for name in _FLASK if name in env},
    )


def redis_address(environ: Mapping[str, str] | None = None) -> str:
    """The address of Redis that Seldon's variables give: those of a mapping, or of this process.

    Raises:
        SettingsError: the port is no number.
    """
    env = os.environ if environ is None else environ
    return f"redis://{env.get('REDIS_SERVICE_HOST') or 'localhost'}:{_whole(env, 'REDIS_SERVICE_PORT', 6379)}"


def kept_in(environ: Mapping[str, str]) -> str:
    """What the variables of a container say of its state: ``on``, ``off``, an address, or nothing.

    Raises:
        SettingsError: ``PERSISTENCE`` or the port is no number.
    """
    if not environ.get("PERSISTENCE", "").strip():
        return ""
    if not _whole(environ, "PERSISTENCE", 0):
        return "off"
    return redis_address(environ) if environ.get("REDIS_SERVICE_HOST") else "on"


def s2i_environment(file: Path) -> dict[str, str]:
    """The variables of an ``.s2i/environment`` file; none where there is no such file.

    Raises:
        SettingsError: a line is no ``NAME=VALUE``.
    """
    try:
        text = file.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError(f"{file}, line {number}: write NAME=VALUE, not {line[:80]!r}")
        found[name.strip()] = value.strip().strip("'\"")
    return found


def not_set(names: Iterable[str]) -> list[str]:
    """Those of the variables that this process has not."""
    return [name for name in names if name not in os.environ]


# -- variables of nodes, which were written for containers of their own ------------------------------------------------


@dataclass(slots=True)
class _Variable:
    """A variable that nodes give values."""

    before: str | None
    """What it was without them."""
    values: dict[int, tuple[str, str]] = field(default_factory=dict)
    """The name and the value of each node that gives one, by a number of its own."""
    told: bool = False


_setting = threading.RLock()
_variables: dict[str, _Variable] = {}


class NodeEnvironment:
    """The environment variables of one node of a tree, in a process that has one environment for all of them.

    Args:
        node: its name, for messages.
        variables: its variables.
        own: names that are different for every node by their nature; nobody is told of those.
    """

    def __init__(self, node: str, variables: Mapping[str, str], own: Iterable[str] = ()) -> None:
        self.node = node
        self.variables = dict(variables)
        self._own = frozenset(own)
        self._put_back = weakref.finalize(self, _forget, id(self), tuple(self.variables))

    @contextmanager
    def given(self) -> Iterator[None]:
        """Have its variables in the environment: one node at a time.

        Afterwards those stay that no other node gives another value. The others are put back to what they were
        without any node, and a warning names them.
        """
        if not self.variables:
            yield
            return
        with _setting:
            for name, value in self.variables.items():
                variable = _variables.setdefault(name, _Variable(os.environ.get(name)))
                variable.values[id(self)] = (self.node, value)
                os.environ[name] = value
            try:
                yield
            except BaseException:
                self.put_back()
                raise
            for name in self.variables:
                self._settle(name, _variables[name])

    def put_back(self) -> None:
        """Take its variables out of the environment, unless another node has them too."""
        self._put_back()

    def _settle(self, name: str, variable: _Variable) -> None:
        _, value = variable.values[id(self)]
        other = next((node for node, given in variable.values.values() if given != value), None)
        if other is None:
            return
        _restore(name, variable.before)
        if not variable.told and name not in self._own:
            variable.told = True
            logger.warning(
                "the environment variable %s has one value in node %r and another in node %r: each of them has its own "
                "while it is imported, made and loaded; later %s. Read it in the constructor, or make it a parameter",
                name, other, self.node, "it is not set" if variable.before is None else "it is that of the server",
            )  # fmt: skip


def _forget(number: int, names: Iterable[str]) -> None:
    with _setting:
        for name in names:
            variable = _variables.get(name)
            given = None if variable is None else variable.values.pop(number, None)
            if variable is None or given is None:
                continue
            left = {value for _, value in variable.values.values()}
            if os.environ.get(name) == given[1]:  # else somebody has set it since
                _restore(name, left.pop() if len(left) == 1 else variable.before)
            if not variable.values:
                del _variables[name]


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"the environment variable {name} must be a whole number, not {text!r}") from None


def _port(env: Mapping[str, str], name: str) -> int | None:
    return _whole(env, name, 0) if env.get(name, "").strip() else None


def _version(labels: str) -> str:
    """The label ``version`` of the predictor."""
    if not labels:
        return ""
    try:
        value = jsoncodec.loads(labels)
    except jsoncodec.JSONDecodeError as exc:
        raise SettingsError(f"PREDICTOR_LABELS is no JSON: {exc}") from exc
    return str(value.get("version", "")) if isinstance(value, dict) else ""
