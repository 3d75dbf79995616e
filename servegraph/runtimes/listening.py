"""Opens the sockets that the server listens on."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from servegraph.errors import SettingsError
from servegraph.settings import ENV_PREFIX, ServerSettings

HTTP = "http"
GRPC = "grpc"
METRICS = "metrics"
_BACKLOG = 2048
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 6


@dataclass(frozen=True, slots=True)
class Listen:
    """Where one listener of a server is.

    The setting with its port is named after it: ``grpc`` has ``grpc_port``, and ``--grpc-port`` on command lines.
    """

    host: str
    """Name or address to listen on."""
    port: int
    """TCP port; 0 takes any free one."""
    reserve: bool = False
    """Whether to hold the address only, so that each worker can listen there with a socket of its own."""


def listeners_for(settings: ServerSettings, offered: Collection[str]) -> dict[str, Listen]:
    """The listeners beside HTTP that a server needs, by name: those that are not off, for what is offered.

    Args:
        settings: the settings of the server.
        offered: names of the edges that the application offers.
    """
    ports = {GRPC: settings.grpc_port, METRICS: settings.metrics_port}
    # gRPC opens its sockets itself.
    return {
        name: Listen(settings.host, port, reserve=name == GRPC)
        for name, port in ports.items()
        if port is not None and name in offered
    }


class Listeners:
    """The sockets of all listeners of a server, which belong to it until they are closed."""

    def __init__(self, listens: Mapping[str, Listen]) -> None:
        self._listens = dict(listens)
        self._sockets: dict[str, socket.socket] = {}

    def open(self, further: Mapping[str, Listen] | None = None) -> None:
        """Open what is not open yet.

        Args:
            further: listeners to add to those there are.

        Raises:
            SettingsError: a port is taken or cannot be used; the message names the listener. None is open then.
        """
        self._listens.update(further or {})
        try:
            for name, listen in self._listens.items():
                if name not in self._sockets:
                    self._sockets[name] = _open(name, listen)
        except BaseException:
            self.close()
            raise

    def address(self, name: str) -> tuple[str, int]:
        """Address and port of an open listener."""
        host, port = self._sockets[name].getsockname()[:2]
        return host, port

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Address and port of each open listener."""
        return {name: self.address(name) for name in self._sockets}

    def fds(self) -> dict[str, int]:
        """The file descriptors of the open sockets."""
        return {name: sock.fileno() for name, sock in self._sockets.items()}

    def take(self, name: str) -> socket.socket:
        """An open socket, which is the caller's from now on."""
        return self._sockets.pop(name)

    def hear_no_more(self) -> None:
        """Have the kernel pass over new connections, while those that it has taken already can be accepted.

        Without it there are always some between the last accept and the close, and they are reset with the requests
        that are on them. Clients that are passed over try again, and learn that nobody listens. Only on Linux.
        """
        if not sys.platform.startswith("linux"):
            return
        # A filter of one instruction: keep no byte of any packet.
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(nothing))
        for sock in self._sockets.values():
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """Listen no more, here and in all processes that have the sockets."""
        for sock in self._sockets.values():
            # Unlike close, this ends the listening in other processes too, also in hung ones.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._sockets.clear()


def _open(name: str, listen: Listen) -> socket.socket:
    where = f"{listen.host}:{listen.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as exc:
        raise SettingsError(
            f"{_cannot(name, where)}: {listen.host!r} is no name or address known here ({exc})"
        ) from exc
    opened = _reserved if listen.reserve else _listening
    try:
        sock = opened(family, kind, protocol, address)
    except OSError as exc:
        raise SettingsError(f"{_cannot(name, where)}: {_advice(name, exc)}") from exc
    sock.setblocking(False)
    return sock


def _listening(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    sock = _bound(family, kind, protocol, address, socket.SO_REUSEADDR)
    try:
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _reserved(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    """A socket that holds an address which workers can listen on too.

    Sockets that all ask for SO_REUSEPORT may have one address, also those of two servers. So the address is tried
    without it first.
    """
    if address[1] != 0:
        _bound(family, kind, protocol, address, socket.SO_REUSEADDR).close()
    try:
        # Without SO_REUSEADDR, so that the next server finds the address taken before a worker listens.
        return _bound(family, kind, protocol, address, socket.SO_REUSEPORT)
    except OSError:  # connections of an earlier server are not forgotten yet
        return _bound(family, kind, protocol, address, socket.SO_REUSEPORT, socket.SO_REUSEADDR)


def _bound(family: int, kind: int, protocol: int, address: Any, *options: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot(name: str, where: str) -> str:
    return f"cannot listen on {where}" + ("" if name == HTTP else f" for {name}")


def _advice(name: str, exc: OSError) -> str:
    flag, variable = f"--{name}-port", f"{ENV_PREFIX}{name.upper()}_PORT"
    if exc.errno == errno.EADDRINUSE:
        return (
            f"another program listens there; stop it, or take another port with {flag} or "
            f"{variable} (0 takes any free one)"
        )
    if exc.errno == errno.EACCES:
        return f"ports below 1024 need privileges; take another one with {flag} or {variable}"
    if exc.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; 127.0.0.1 and 0.0.0.0 always work"
    return str(exc)
