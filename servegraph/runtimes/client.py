"""Calling a function over HTTP, with nothing but the standard library."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from servegraph import jsoncodec
from servegraph.errors import DeadlineError, RemoteError, RequestError, RequestFailedError
from servegraph.graph.media import parse_media_type

_PATH_SAFE = "/?&=%:@!$'()*+,;~-._[]"
_CHUNK = 65536


def invoke(
    url: str,
    path: str = "/",
    body: Any = None,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Any:
    """Send one request and return the answer's body, decoded by its media type.

    JSON becomes Python values, text becomes ``str``, no content ``None``, anything else stays ``bytes``.
    Certificates are verified. Redirects are not followed: they are answers with a status of 300 or above.

    Args:
        url: where the function is, such as ``http://127.0.0.1:8080``.
        path: the path below it, with the query if there is one.
        body: bytes and text are sent as they are; any other value as JSON.
        method: POST where there is a body and GET where there is none, unless given.
        headers: header fields of the request.
        timeout_s: seconds the whole call may take.

    Raises:
        RequestFailedError: the answer's status is 300 or above.
        RemoteError: there is no answer, or none that can be read.
        DeadlineError: the time is up.
        RequestError: the URL, the method or a header field cannot be sent.
    """
    target = _split(url)
    place = f"{target.scheme}://{target.netloc}"
    deadline = time.monotonic() + timeout_s
    fields = dict(headers or {})
    payload = _payload(body, fields)
    connection = _connection(target, timeout_s)
    try:
        connection.request(
            (method or ("GET" if body is None else "POST")).upper(), _path(target, path), payload, fields
        )
        answer = _wait(connection, deadline)
        raw = _read(answer, connection, deadline)
    except TimeoutError:
        raise DeadlineError(f"{place} did not answer within {timeout_s:g} s") from None
    except http.client.InvalidURL as exc:
        raise RequestError(f"{path!r} cannot be sent to {place}: {exc}") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise RemoteError(f"{place} gave no answer: {exc or type(exc).__name__}") from exc
    except ValueError as exc:  # a header field or method that HTTP cannot hold
        raise RequestError(f"the request to {place} cannot be sent: {exc}") from exc
    finally:
        connection.close()
    return _result(answer, raw)


def _split(url: str) -> SplitResult:
    try:
        target = urlsplit(url)
        known = target.scheme in ("http", "https") and bool(target.hostname) and (target.port or 0) >= 0
    except ValueError as exc:
        raise RequestError(f"the URL cannot be read: {exc}") from exc
    if target.username or target.password:
        raise RequestError("the URL holds a user name or password: send them in a header field instead")
    if not known:
        raise RequestError(f"{url!r} is no URL of a function: write http://host:port or https://host")
    if target.query or target.fragment:
        raise RequestError(f"{url!r}: the query belongs to the path of the call")
    return target


def _path(target: SplitResult, path: str) -> str:
    return quote(f"{target.path.rstrip('/')}/{path.lstrip('/')}", safe=_PATH_SAFE)


def _payload(body: Any, fields: dict[str, str]) -> bytes | None:
    """The bytes to send; the header of JSON is added where the caller gave none."""
    if body is None:
        return None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    try:
        payload = jsoncodec.dumps(body)
    except (TypeError, ValueError) as exc:
        raise RequestError(f"the body cannot be written as JSON: {exc}") from exc
    if not any(name.lower() == "content-type" for name in fields):
        fields["Content-Type"] = "application/json"
    return payload


def _connection(target: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    assert target.hostname is not None
    if target.scheme == "https":
        return http.client.HTTPSConnection(
            target.hostname, target.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(target.hostname, target.port, timeout=timeout_s)


def _wait(connection: http.client.HTTPConnection, deadline: float) -> http.client.HTTPResponse:
    _set_timeout(connection, deadline)
    return connection.getresponse()


def _read(answer: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float) -> bytes:
    """The whole body; what trickles in does not get more time than the call has."""
    parts: list[bytes] = []
    while True:
        _set_timeout(connection, deadline)
        part = answer.read1(_CHUNK)
        if not part:
            if answer.length:  # the connection ended before what Content-Length promised
                raise http.client.IncompleteRead(b"".join(parts), answer.length)
            return b"".join(parts)
        parts.append(part)


def _set_timeout(connection: http.client.HTTPConnection, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:  # gone once the server has closed its side
        connection.sock.settimeout(left)


def _result(answer: http.client.HTTPResponse, raw: bytes) -> Any:
    media = parse_media_type(answer.headers.get("Content-Type") or "")
    value: Any = raw
    unreadable: Exception | None = None
    try:
        if not raw:
            value = None
        elif media.is_json:
            value = jsoncodec.loads(raw)
        elif media.type == "text":
            value = media.decode(raw)
    except (ValueError, RequestError) as exc:  # not what its media type says
        unreadable = exc
    if answer.status >= 300:
        raise RequestFailedError(answer.status, value, f"failed ({answer.status}): {_reason(answer, value)}")
    if unreadable is not None:
        raise RemoteError(f"the answer is not readable as {media.essence}: {unreadable}") from unreadable
    return value


def _reason(answer: http.client.HTTPResponse, value: Any) -> Any:
    if 300 <= answer.status < 400:
        return f"redirected to {answer.headers.get('Location', 'nowhere')}"
    if isinstance(value, dict):
        return value.get("detail") or value.get("error") or value
    return answer.reason if value is None else value
