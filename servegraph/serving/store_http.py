"""Models behind ``http`` and ``https``, with the standard library alone.

A host's name is resolved once, what it resolves to is checked, and the connection goes to exactly that address.
Proxies are not used.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import functools
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from servegraph.errors import ModelLoadError
from servegraph.serving.store_cache import ModelCache
from servegraph.serving.store_options import FetchOptions, host_is_listed
from servegraph.serving.store_paths import display_uri, safe_relative

_CHUNK = 256 * 1024
_MAX_REDIRECTS = 5
_NOT_THERE = frozenset({403, 404, 410})  # stores that may not be listed answer 403 for what is not there
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclasses.dataclass(frozen=True)
class HttpLocation:
    """A file behind a URL, or a folder, whose URL ends in ``/``; what a folder holds is not known."""

    url: str
    options: FetchOptions
    cache: ModelCache

    @property
    def shown(self) -> str:
        """The URL for messages."""
        return display_uri(self.url)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def is_folder(self) -> bool:
        """Whether the URL ends in ``/``."""
        return urlsplit(self.url).path.endswith("/")

    def entries(self) -> list[str] | None:
        """Not known."""
        return None

    def child(self, name: str, where: str) -> HttpLocation:
        """Something in this folder."""
        path = urlsplit(self.url).path + quote(safe_relative(name, where))
        return dataclasses.replace(self, url=urlsplit(self.url)._replace(path=path).geturl())

    def parent(self) -> HttpLocation | None:
        """The folder of this file; none where a query may be a signature that is good for this file only."""
        parts = urlsplit(self.url)
        if parts.query:
            return None
        return dataclasses.replace(self, url=parts._replace(path=parts.path.rpartition("/")[0] + "/").geturl())

    def read_small(self, limit: int) -> bytes | None:
        """The first ``limit`` + 1 bytes; ``None`` when there is no such file."""
        try:
            with _get(self.url, self.options) as answer:
                return b"".join(answer.chunks(enough=limit + 1))[: limit + 1]
        except _StatusError as exc:
            if exc.http_status in _NOT_THERE:
                return None
            raise

    def local(self) -> Path:
        """The local copy of the file, fetched unless the cache has what the server says it has."""
        name = safe_relative(self.name or "model", self.shown)
        if "/" in name or self.is_folder():
            raise ModelLoadError(f"{self.shown}: a folder cannot be fetched over HTTP; name a file or an archive")
        with self.cache.lock(self.url) as shelf, _get(self.url, self.options) as answer:
            version = answer.version()
            found = shelf.find(version, name) if version is not None else None
            return found or shelf.publish(version, name, answer.save)


def checked_url(url: str) -> str:
    """The URL, if it is one.

    Raises:
        ModelLoadError: it is not of the form ``https://host/path``.
    """
    _checked(url)
    return url


class _StatusError(ModelLoadError):
    """The server answered with an error status."""

    def __init__(self, shown: str, http_status: int, reason: str) -> None:
        super().__init__(f"{shown}: the server answered {http_status} {reason}".rstrip())
        self.http_status = http_status


class _Answer:
    """An answer with status 200, whose body is still to be read."""

    def __init__(
        self, response: http.client.HTTPResponse, shown: str, options: FetchOptions, deadline: _Deadline
    ) -> None:
        self._response = response
        self._shown = shown
        self._options = options
        self._deadline = deadline

    def version(self) -> str | None:
        """What changes when the file does, if the server tells."""
        headers = self._response.headers
        told = [headers.get(name, "") for name in ("ETag", "Last-Modified")]
        return "\n".join([*told, headers.get("Content-Length", "")]) if any(told) else None

    def chunks(self, enough: int | None = None) -> Iterator[bytes]:
        """The body; it has to be as long as announced, unless ``enough`` of it was read before."""
        announced, received = self._response.length, 0
        while enough is None or received < enough:
            # What is there: a slow sender is not waited for until a large buffer is full.
            chunk = self._response.read1(_CHUNK)
            if not chunk:
                break
            received += len(chunk)
            yield chunk
        else:
            return
        # A body without an announced length ends as well when the deadline closes the connection.
        if self._deadline.passed or (announced is not None and received < announced):
            raise ModelLoadError(f"{self._shown}: the download ended after {received} of {announced} bytes")

    def save(self, path: Path) -> None:
        """Write the body to a new file."""
        most, announced, written = self._options.max_bytes, self._response.length, 0
        if announced is not None and announced > most:
            raise ModelLoadError(f"{self._shown}: {announced} bytes are more than the {most} that are allowed")
        with path.open("xb") as file:
            for chunk in self.chunks():
                written += len(chunk)
                if written > most:
                    raise ModelLoadError(f"{self._shown}: it is larger than the {most} bytes that are allowed")
                file.write(chunk)


@contextlib.contextmanager
def _get(url: str, options: FetchOptions) -> Iterator[_Answer]:
    """The answer to a GET with status 200, after redirects within the same host."""
    shown = display_uri(url)
    with _Deadline(shown, options) as deadline:
        for _ in range(_MAX_REDIRECTS + 1):
            parts = _checked(url)
            with contextlib.closing(_connect(parts, options, deadline)) as connection:
                target = (quote(parts.path, safe="/%:@!$&'()*+,;=~-._") or "/") + ("?" + parts.query) * bool(
                    parts.query
                )
                connection.request("GET", target, headers=_headers(parts, options))
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308):
                    url = _redirected(url, answer.headers.get("Location", ""))
                    continue
                if answer.status != 200:
                    raise _StatusError(shown, answer.status, answer.reason)
                encoding = answer.headers.get("Content-Encoding", "identity").lower()
                if encoding != "identity" and not parts.path.lower().endswith((".gz", ".tgz")):
                    raise ModelLoadError(f"{shown}: the server sent it {encoding}-encoded, which was not asked for")
                yield _Answer(answer, shown, options, deadline)
                return
        raise ModelLoadError(f"{shown}: more than {_MAX_REDIRECTS} redirects")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme.lower() in _PORTS and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError as exc:
        raise ModelLoadError(f"{display_uri(url)}: not a URL: {exc}") from exc
    if not usable or re.search(r"[\x00-\x20\x7f]", parts.query):
        raise ModelLoadError(f"{display_uri(url)}: not a URL of the form https://host/path")
    return parts._replace(scheme=parts.scheme.lower(), fragment="")


def _headers(parts: SplitResult, options: FetchOptions) -> dict[str, str]:
    headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "servegraph", "Connection": "close"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
    return {**headers, **options.headers}


def _redirected(url: str, location: str) -> str:
    """Where a redirect leads, if that is the same server: another could be anything, and would be sent our headers."""
    old, new = _checked(url), _checked(urljoin(url, location))
    same_port = _port(old) == _port(new)
    upgrade = (old.scheme, new.scheme) == ("http", "https") and (same_port or _port(new) == _PORTS["https"])
    if old.hostname != new.hostname or not ((old.scheme == new.scheme and same_port) or upgrade):
        raise ModelLoadError(
            f"{display_uri(url)}: it is redirected to {display_uri(new.geturl())}, another server: "
            "give that URI, if the model is there"
        )
    return new._replace(netloc=new.netloc if "@" in new.netloc else _with_user(old, new)).geturl()


def _with_user(old: SplitResult, new: SplitResult) -> str:
    user, at, _ = old.netloc.rpartition("@")
    return f"{user}{at}{new.netloc}"


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def _connect(parts: SplitResult, options: FetchOptions, deadline: _Deadline) -> http.client.HTTPConnection:
    """A connection to an address that was checked."""
    host, port = parts.hostname or "", _port(parts)
    if parts.scheme not in options.schemes:
        raise ModelLoadError(f"{display_uri(parts.geturl())}: models may not come by {parts.scheme}")
    last: OSError | None = None
    for address in _addresses(host, port, options):
        try:
            sock = socket.create_connection((address, port), timeout=min(options.stall_s, options.timeout_s))
        except OSError as exc:
            last = exc
            continue
        deadline.watch(sock)
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(host, port)
            connection.sock = sock
            return connection
        try:
            context = _tls(options.ca_file)
            secured = context.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
        deadline.watch(secured)
        connection = http.client.HTTPSConnection(host, port, context=context)
        connection.sock = secured
        return connection
    raise last or OSError(f"{host} has no address")


@functools.lru_cache(maxsize=8)
def _tls(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def _addresses(host: str, port: int, options: FetchOptions) -> list[str]:
    """The addresses of a host that may be connected to.

    Raises:
        ModelLoadError: the host is not listed, or one of its addresses is not public.
    """
    if options.hosts is not None and not host_is_listed(host, options.hosts):
        raise ModelLoadError(
            f"models may not be fetched from {host!r}; allowed hosts: {', '.join(options.hosts) or 'none'}"
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise ModelLoadError(f"{host!r} is not the name of a host") from exc
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    if options.hosts is None:
        for address in addresses:
            if not is_public(address):
                raise ModelLoadError(
                    f"{host!r} has the address {address}, which is not a public one: list the host, if it is trusted "
                    f"(FetchOptions(hosts=[{host!r}]), or the parameter model_hosts)"
                )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is on the public internet, also when it is wrapped into an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class _Deadline:
    """Ends a download that takes too long, however slowly its bytes come, and explains what the network raises."""

    def __init__(self, shown: str, options: FetchOptions) -> None:
        self._shown = shown
        self._options = options
        self._sock: socket.socket | None = None
        self._passed = False
        self._timer = threading.Timer(options.timeout_s, self._end)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        """Whether the download was ended."""
        return self._passed

    def watch(self, sock: socket.socket) -> None:
        """The connection that is ended."""
        self._sock = sock

    def _end(self) -> None:
        self._passed = True
        if self._sock is not None:
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        self._timer.join()
        if self._passed and isinstance(exc, (OSError, http.client.HTTPException, ModelLoadError)):
            raise ModelLoadError(f"{self._shown}: it took longer than {self._options.timeout_s:g} s") from exc
        if isinstance(exc, TimeoutError):
            raise ModelLoadError(f"{self._shown}: nothing was received for {self._options.stall_s:g} s") from exc
        if isinstance(exc, ssl.SSLError):
            raise ModelLoadError(f"{self._shown}: TLS: {exc.reason or exc}") from exc
        if isinstance(exc, OSError) and not _is_local(exc):
            raise ModelLoadError(f"{self._shown}: it cannot be reached: {exc.strerror or exc}") from exc
        if isinstance(exc, (http.client.HTTPException, ValueError)):
            raise ModelLoadError(f"{self._shown}: the answer cannot be read: {type(exc).__name__}: {exc}") from exc


def _is_local(exc: OSError) -> bool:
    """Whether writing the copy failed, and not the network."""
    return exc.filename is not None or exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
