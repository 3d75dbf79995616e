"""Everything about the server that can be set, and the one place that reads the environment.

A setting can be given on the command line, as an environment variable, in a file and in the function; the
first of these that has it wins, and what none of them has keeps its default::

    flag > environment > file > function > default

``limits.body_json_bytes`` is ``SERVEGRAPH_LIMITS__BODY_JSON_BYTES`` in the environment and, in a file::

    limits:
      body_json_bytes: 8MiB

How texts become values is in `servegraph.setting_values`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

from servegraph.errors import SettingsError, closest
from servegraph.setting_values import (
    Count,
    Milliseconds,
    Number,
    OptionalPort,
    Port,
    Positive,
    Seconds,
    Size,
    coerce,
    read_file,
    type_name,
)

ENV_PREFIX = "SERVEGRAPH_"

ENV_FILE = "SERVEGRAPH_SETTINGS"
"""The environment variable that names a settings file."""

OTHER_VARIABLES: Mapping[str, str] = {
    ENV_FILE: "The settings file to read when none is given on the command line.",
    "SERVEGRAPH_MODEL_HOSTS": "Hosts of private networks that packaged servers may fetch models from, over HTTP.",
    "SERVEGRAPH_PVC_ROOT": "The folder that the claim of a pvc:// model is mounted at; /mnt/pvc when not set.",
}
"""Documented ``SERVEGRAPH_*`` variables that are no settings: the loader lets them pass."""

OTHER_PREFIXES: tuple[str, ...] = ("SERVEGRAPH_SECRET_", "SERVEGRAPH_PARAM_")
"""Beginnings of variables that belong to a function (its secrets and parameters) and not to the server."""

# Kubernetes puts variables for each Service into each container: a Service named ``servegraph-…`` would be
# mistaken for settings. ``X_PORT`` can be a setting as well, so that one is told by its value.
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?$")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """How much one request, one connection and one worker may take."""

    body_json_bytes: Size = 8 * 1024**2
    """Largest JSON body; JSON takes up to 29 times its size in memory. Larger ones are answered 413."""
    body_binary_bytes: Size = 64 * 1024**2
    """Largest body of any other media type. Larger ones are answered 413."""
    json_depth: Count = 64
    """How deep arrays and objects of a JSON body may be nested."""
    json_elements: Count = 1_000_000
    """How many values a JSON body may hold."""
    tensor_rank: Count = 8
    """How many dimensions a tensor of a request may have."""
    max_concurrency: Count = 1000
    """Requests in flight per worker; further ones are answered 503 with Retry-After."""
    header_timeout_s: Positive = 10.0
    """Seconds a client has to send the head of a request, then its connection is closed."""
    body_timeout_s: Positive = 30.0
    """Seconds a client has to send the body of a request, then it is answered 408; one that takes less than 1 KiB/s
    of its answers for as long is cut off."""
    keep_alive_s: Positive = 15.0
    """Seconds an idle connection is kept open."""
    request_line_bytes: Size = 8 * 1024
    """Longest request target; longer ones are answered 414."""
    header_block_bytes: Size = 32 * 1024
    """Largest block of header fields; larger ones are answered 431."""
    header_count: Count = 100
    """Most header fields of a request; more are answered 431."""


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """How long things may take."""

    request_s: Positive = 30.0
    """Seconds a request may take: the deadline of requests that name none, and the most that one may ask for."""
    drain_delay_s: Seconds = 0.0
    """Seconds a stopping server still takes new requests, so that load balancers can learn of it."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that requests in flight have to finish when the server stops."""
    hang_s: Positive = 10.0
    """Seconds without a heartbeat after which a worker counts as hung and is replaced."""
    hang_grace_s: Seconds = 10.0
    """Seconds a model call may go on beyond its deadline before its worker counts as hung."""
    load_s: Positive = 300.0
    """Seconds without a heartbeat that a worker may spend on starting and loading models."""


@dataclass(frozen=True, slots=True)
class CorsSettings:
    """Which web pages of other origins may call the server from a browser."""

    allow_origins: tuple[str, ...] = ()
    """Origins such as ``https://example.org``, or ``*`` for all; none turns CORS off."""
    allow_methods: tuple[str, ...] = ("GET", "POST", "OPTIONS")
    """Methods that such pages may use."""
    allow_headers: tuple[str, ...] = ("Content-Type", "Authorization", "X-Request-Id")
    """Request headers that such pages may send."""
    max_age_s: Seconds = 600.0
    """Seconds a browser may remember the answer to a preflight request."""


def _default_threads() -> int:
    return min(32, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Where synchronous model code runs."""

    threads: Count = field(default_factory=_default_threads)
    """Threads per worker that run synchronous steps: by default the CPUs + 4, at most 32."""
    inline: Literal["auto", "always", "never"] = "auto"
    """Whether synchronous steps run on the event loop itself: steps that have shown to be fast, all, or none."""
    inline_below_ms: Milliseconds = 0.5
    """A step counts as fast below this time, in milliseconds."""
    slow_above_ms: Milliseconds = 5.0
    """A step that ran inline and took longer than this, in milliseconds, goes back to the threads."""


@dataclass(frozen=True, slots=True)
class ErrorSettings:
    """What answers to failed requests hold."""

    traceback: bool = False
    """Send the traceback of failed steps to the client. Never on a server that others can reach."""
    mlrun_status_codes: bool = False
    """Answer every failure of a model with 400, as MLRun does."""


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """How much the gRPC edge takes and how it works."""

    threads: Count = field(default_factory=_default_threads)
    """Threads per worker that answer gRPC calls: by default the CPUs + 4, at most 32."""
    max_message_bytes: Size = 4 * 1024**2
    """Largest gRPC message that is read; for larger ones the answer is RESOURCE_EXHAUSTED."""
    max_concurrent: Count = 1000
    """gRPC calls per worker that run or wait for a thread; for further ones the answer is RESOURCE_EXHAUSTED."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All settings of a local server; see `load_settings` for where they come from."""

    host: str = "127.0.0.1"
    """Name or address to listen on; ``0.0.0.0`` is all IPv4 addresses of this machine."""
    http_port: Port = 8080
    """TCP port of the HTTP edge; 0 takes any free one."""
    grpc_port: OptionalPort = 8081
    """TCP port of the gRPC edge, opened where the function offers gRPC; 0 takes any free one, ``off`` opens none."""
    metrics_port: OptionalPort = None
    """A TCP port of its own for ``/metrics``, which the HTTP port has anyway; 0 takes any free one."""
    workers: Count = 1
    """How many worker processes serve requests, each with its own copy of the models."""
    max_requests: Number = 0
    """Replace a worker once it has answered so many HTTP requests, for models that leak memory; 0 is never."""
    max_requests_jitter: Number = 0
    """Up to so many more, at random, so that workers are not replaced all at once."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """The least severe messages that are logged."""
    access_log: bool = False
    """Log one line for each request."""
    reload: bool = False
    """Restart the workers when a watched file changes; for development."""
    nan: Literal["null", "error"] = "null"
    """What NaN and infinity in an answer become: ``null``, or an error."""
    state_store: str | None = None
    """Where Seldon components keep their state: ``redis://host:port/db``, ``file:///folder``, ``on`` or ``off``."""
    allow_pickle: bool | None = None
    """Whether Seldon components may load pickled models and states, where their own parameters do not say it."""
    limits: LimitSettings = field(default_factory=LimitSettings)
    """How much one request, one connection and one worker may take."""
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    """How long things may take."""
    cors: CorsSettings = field(default_factory=CorsSettings)
    """Which web pages of other origins may call the server from a browser."""
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    """Where synchronous model code runs."""
    grpc: GrpcSettings = field(default_factory=GrpcSettings)
    """How much the gRPC edge takes and how it works."""
    errors: ErrorSettings = field(default_factory=ErrorSettings)
    """What answers to failed requests hold."""

    def to_dict(self) -> dict[str, Any]:
        """All settings as a nested dictionary of plain JSON values; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ServerSettings:
        """The settings that a nested dictionary holds; what it leaves out keeps its default.

        Raises:
            SettingsError: a name is unknown or a value is not of its setting's type.
        """
        return _build(dict(_flatten(data, "settings")))


def environment() -> Mapping[str, str]:
    """The environment of this process, for code that looks up secrets and parameters by name."""
    return os.environ


def load_settings(
    *,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    function: Mapping[str, Any] | None = None,
) -> ServerSettings:
    """The settings from flags, environment, file and function, in this order of precedence.

    Args:
        file: a YAML, JSON or TOML file, told by its ending; without it the file that the environment
            variable ``SERVEGRAPH_SETTINGS`` names, if any.
        environ: the environment; that of this process if left out.
        overrides: flags by setting name, nested or dotted (``limits.json_depth``); ``None`` is a flag not given.
        function: settings that the function declares, nested or dotted.

    Raises:
        SettingsError: a name is unknown or a value cannot be read; the message names where it was given.
    """
    environ = os.environ if environ is None else environ
    path = file if file is not None else environ.get(ENV_FILE)
    values: dict[str, Any] = dict(_flatten(function or {}, "function settings"))
    if path is not None:
        values.update(_flatten(read_file(Path(path)), str(path)))
    values.update(_from_environment(environ))
    values.update(_flatten(overrides or {}, "flags", skip_none=True))
    return _build(values)


class SettingRow(NamedTuple):
    """One setting as documentation and ``--help`` show it."""

    name: str
    type: str
    default: Any
    env: str
    doc: str


def describe_settings() -> list[SettingRow]:
    """A row for each setting: dotted name, type in words, default, environment variable, what it does."""
    return [
        SettingRow(
            leaf.name, type_name(leaf.annotation), leaf.default, env_name(leaf.name), _docs(leaf.owner)[leaf.attribute]
        )
        for leaf in _leaves().values()
    ]


def env_name(name: str) -> str:
    """The environment variable of a setting: ``limits.json_depth`` is ``SERVEGRAPH_LIMITS__JSON_DEPTH``."""
    return ENV_PREFIX + name.replace(".", "__").upper()


class _Leaf(NamedTuple):
    name: str
    attribute: str
    owner: type
    annotation: Any
    default: Any


@functools.cache
def _groups() -> dict[str, type]:
    hints = get_type_hints(ServerSettings)
    return {f.name: hints[f.name] for f in fields(ServerSettings) if is_dataclass(hints[f.name])}


@functools.cache
def _leaves() -> dict[str, _Leaf]:
    """Every single setting by its dotted name, in the order of declaration."""
    leaves = [leaf for leaf in _leaves_of(ServerSettings, "") if leaf.attribute not in _groups()]
    for group, owner in _groups().items():
        leaves.extend(_leaves_of(owner, f"{group}."))
    return {leaf.name: leaf for leaf in leaves}


def _leaves_of(owner: Any, prefix: str) -> Iterator[_Leaf]:
    hints = get_type_hints(owner, include_extras=True)
    for each in fields(owner):
        yield _Leaf(prefix + each.name, each.name, owner, hints[each.name], _default(each))


def _default(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


@functools.cache
def _docs(owner: type) -> dict[str, str]:
    """The docstrings under the fields of a class. They are not kept at run time, so the source is read."""
    docs = dict.fromkeys((f.name for f in fields(owner)), "")
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    except OSError:  # installed without sources: the settings work, their descriptions are empty
        return docs
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for declared, below in itertools.pairwise(statements):
        if (
            isinstance(declared, ast.AnnAssign)
            and isinstance(declared.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            docs[declared.target.id] = str(below.value.value)
    return docs


def _flatten(data: Mapping[str, Any], source: str, *, skip_none: bool = False) -> Iterator[tuple[str, Any]]:
    """Checked values by dotted name; ``source`` is where they were given, for messages."""
    for key, value in data.items():
        if skip_none and value is None:
            continue
        if key in _groups():
            if not isinstance(value, Mapping):
                raise SettingsError(f"{source}: {key!r} is a group of settings, so it takes a mapping of them")
            for name, inner in value.items():
                if not (skip_none and inner is None):
                    yield _checked(f"{key}.{name}", inner, source)
        else:
            yield _checked(str(key), value, source)


def _checked(name: str, value: Any, source: str) -> tuple[str, Any]:
    leaf = _leaves().get(name)
    if leaf is None:
        group, dot, last = name.partition(".")
        if dot and group in _groups():
            valid = [known.partition(".")[2] for known in _leaves() if known.startswith(group + dot)]
            raise SettingsError(f"{source}: there is no setting {last!r} in {group!r}: {closest(last, valid)}")
        top = {*_groups(), *(known for known in _leaves() if "." not in known)}
        raise SettingsError(f"{source}: there is no setting {name!r}: {closest(name, top)}")
    try:
        return name, coerce(value, leaf.annotation)
    except ValueError as exc:
        raise SettingsError(f"{source}: {name}: {exc}") from exc


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    known = {env_name(name): leaf for name, leaf in _leaves().items()}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or _is_foreign(variable, text):
            continue
        leaf = known.get(variable)
        if leaf is None:
            raise SettingsError(
                f"environment variable {variable}: there is no such setting: {closest(variable, known)}"
            )
        try:
            yield leaf.name, coerce(text, leaf.annotation)
        except ValueError as exc:
            raise SettingsError(f"environment variable {variable}: {exc}") from exc


def _is_foreign(variable: str, text: str) -> bool:
    if variable in OTHER_VARIABLES or variable.startswith(OTHER_PREFIXES):
        return True
    if variable.endswith("_PORT") and _SERVICE_LINK_VALUE.match(text):
        return True
    return _SERVICE_LINK.search(variable) is not None


def _build(values: Mapping[str, Any]) -> ServerSettings:
    nested: dict[str, dict[str, Any]] = {name: {} for name in _groups()}
    top: dict[str, Any] = {}
    for name, value in values.items():
        group, dot, last = name.partition(".")
        if dot:
            nested[group][last] = value
        else:
            top[name] = value
    return ServerSettings(**top, **{name: owner(**nested[name]) for name, owner in _groups().items()})
