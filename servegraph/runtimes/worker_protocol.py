"""What supervisor, worker and application say to each other.

The supervisor starts a worker with one `Start` message and may send `Drain`; the worker answers with a
`Heartbeat` every second and, where the application cannot be built, one `Failure`. Messages are lines of JSON
with the version of this form; nothing is ever pickled. The application itself is any `Application`.
"""

from __future__ import annotations

import enum
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

from servegraph import jsoncodec
from servegraph.errors import ServegraphError
from servegraph.settings import ServerSettings

VERSION = 2

DUMP_SIGNAL = signal.SIGUSR2
"""Makes a worker write what each of its threads does to standard error."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Target: TypeAlias = str | dict[str, Any]
"""What to build the application from: a path or reference, or plain data. The factory knows what it means."""


class Edge(Protocol):
    """A further way into an application beside its HTTP one: gRPC, or a second HTTP port.

    The event loop of the worker calls all of these; an edge may work on threads of its own.
    """

    async def start(self, sock: socket.socket) -> None:
        """Take requests at the address of this socket.

        It listens already and is shared with the other workers, or it only reserves the address with
        ``SO_REUSEPORT``, where its `Listen` says so. It belongs to the caller, who closes it after `stop`.
        """

    def begin_drain(self) -> None:
        """Say not ready from now on; go on answering."""

    async def stop(self, grace_s: float) -> bool:
        """Accept nothing more, give what is in flight this long, cut off the rest; whether nothing had to be.

        Called once, also when the edge was not started.
        """

    def in_flight(self) -> int:
        """How many requests are being worked on."""

    def stuck_calls(self, grace_s: float) -> int:
        """How many calls still run this long after their deadline."""


class Application(Protocol):
    """What a worker serves: an ASGI callable with the steps of its life.

    One that counts the requests it has answered does so in an attribute ``answered``; see `answered_by`.
    One that offers further edges has them in an attribute ``edges``, by the names of their listeners; see `edges_of`.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

    async def startup(self) -> None:
        """Load the models; requests may arrive meanwhile. Raising means that the worker cannot serve."""

    def begin_drain(self) -> None:
        """Say not ready from now on and ask clients to close their connections; go on answering."""

    def in_flight(self) -> int:
        """How many requests are being worked on."""

    def stuck_calls(self) -> int:
        """How many model calls still run ``hang_grace_s`` after their deadline."""

    async def aclose(self) -> None:
        """Hand over what is left to write and release everything; no request comes any more."""


def answered_by(application: Application) -> int:
    """How many HTTP requests an application has answered; 0 for one that does not count."""
    answered: int = getattr(application, "answered", 0)
    return answered


def edges_of(application: Application) -> Mapping[str, Edge]:
    """The edges that an application offers beside its HTTP one, by name; most offer none."""
    edges: Mapping[str, Edge] = getattr(application, "edges", {})
    return edges


class WorkerState(enum.StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What an application may know of the worker it runs in."""

    slot: int
    """Number of the worker, from 0; its replacement has the same."""
    workers: int
    """How many workers the server has."""
    starts: int
    """How many times a worker of this slot was started, this one included."""
    host: str
    """Address the server listens on."""
    port: int
    """TCP port the server listens on; never 0."""
    metrics_directory: str
    """Folder that the metrics of all workers share, for `servegraph.monitoring.metrics.MetricsRegistry`."""
    supervisor_pid: int
    """Process id of the supervisor."""
    ports: dict[str, int] = field(default_factory=dict)
    """TCP port of each listener, by name: ``http`` and those of further edges."""


ApplicationFactory: TypeAlias = Callable[[Target, ServerSettings, WorkerInfo], Application]


@dataclass(frozen=True, slots=True)
class Start:
    """Supervisor to worker: what to build and where to listen."""

    factory: str
    """``module:attr`` of an `ApplicationFactory`."""
    target: Target
    """Handed to the factory."""
    settings: dict[str, Any]
    """`ServerSettings.to_dict`."""
    info: dict[str, Any]
    """The fields of `WorkerInfo`."""
    listen_fds: dict[str, int]
    """The socket of each listener, by name: ``http`` and those of further edges."""
    channel_fd: int
    """The socket to the supervisor; its end means that the supervisor is gone."""
    listen_early: bool
    """Whether to take requests while models load, to answer 503 and health checks, or when they are loaded."""
    search_path: list[str]
    """Where the supervisor finds modules (``sys.path``)."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Supervisor to worker: finish what is admitted, then exit, so that a new worker can take over."""

    delay_s: float
    """Seconds to go on taking new requests."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Worker to supervisor: the event loop turns."""

    count: int
    """Heartbeats so far."""
    in_flight: int
    """Requests being worked on."""
    stuck: int
    """Model calls that have outlived their deadline by ``hang_grace_s``."""
    state: str
    """A `WorkerState`."""
    worn: bool = False
    """Whether it has answered as many requests as a worker is to answer."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Worker to supervisor: the application cannot be built or started."""

    message: str
    """Why, for people."""


Message: TypeAlias = Start | Drain | Heartbeat | Failure
_KINDS: dict[str, type[Message]] = {
    "start": Start,
    "drain": Drain,
    "heartbeat": Heartbeat,
    "failure": Failure,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    """The line of JSON that carries a message."""
    return jsoncodec.dumps({"version": VERSION, "kind": _NAMES[type(message)], **asdict(message)}) + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line.

    Raises:
        ServegraphError: it is not a message, or one of another version.
    """
    try:
        data = jsoncodec.loads(line)
        version, kind = data.pop("version"), data.pop("kind")
        if version != VERSION:
            raise ServegraphError(f"a process of another servegraph sent message version {version}, not {VERSION}")
        return _KINDS[kind](**data)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ServegraphError(f"not a message between supervisor and worker: {line[:200]!r}") from exc


class Lines:
    """Cuts the bytes that a socket gives into whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines
