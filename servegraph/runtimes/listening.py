"""Opens the socket that the server listens on."""

from __future__ import annotations

import errno
import socket

from servegraph.errors import SettingsError

_BACKLOG = 2048


def open_listener(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any free port.

    Raises:
        SettingsError: the port is taken, or host or port cannot be used; the message says what to do.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as exc:
        raise SettingsError(f"cannot listen on {where}: {host!r} is no name or address known here ({exc})") from exc
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise SettingsError(f"cannot listen on {where}: {_advice(exc)}") from exc
    listener.setblocking(False)
    return listener


def _advice(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return (
            "another program listens there; stop it, or take another port with --http-port or "
            "SERVEGRAPH_HTTP_PORT (0 takes any free one)"
        )
    if exc.errno == errno.EACCES:
        return "ports below 1024 need privileges; take another one with --http-port or SERVEGRAPH_HTTP_PORT"
    if exc.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; 127.0.0.1 and 0.0.0.0 always work"
    return str(exc)
