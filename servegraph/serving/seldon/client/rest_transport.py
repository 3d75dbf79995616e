"""Calls over HTTP, on connections that are kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from servegraph import jsoncodec
from servegraph.importing import import_extra
from servegraph.serving.seldon.client.answer import Answer
from servegraph.serving.seldon.client.credentials import SeldonChannelCredentials
from servegraph.serving.seldon.client.errors import SeldonClientException
from servegraph.serving.seldon.client.options import ClientOptions
from servegraph.serving.seldon.json_reading import read_json

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("servegraph.seldon.client")

TOKEN_HEADER: Final = "X-Auth-Token"  # noqa: S105 - a name, not a secret
_KEEPALIVE_S: Final = 4.0  # below the five seconds after which common servers close an idle connection
_CONNECT_S: Final = 10.0
_RETRYABLE: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


class RestTransport:
    """Posts JSON; safe to use from several threads.

    Args:
        options: the client's own.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._httpx = import_extra("httpx", feature="SeldonClient with transport='rest'", extra="seldon")
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def post(self, url: str, body: Any, options: ClientOptions, *, form: bool = False) -> Answer:
        """The outcome of one request.

        Args:
            url: where to.
            body: any JSON value.
            options: of this call.
            form: whether the JSON is sent as the field ``json`` of a form, which components of all versions read.

        Raises:
            SeldonClientException: the body has no JSON, or the URL or a header field cannot be sent.
        """
        httpx = self._httpx
        try:
            text = jsoncodec.dumps(body)
        except TypeError as exc:
            raise SeldonClientException(f"the request cannot be written as JSON: {exc}") from exc
        headers = {**(options.headers or {}), **_token(options)}
        content: dict[str, Any] = {"data": {"json": text.decode()}} if form else {"content": text}
        if not form:
            headers.setdefault("Content-Type", "application/json")
        started = time.monotonic()
        try:
            answer = self._exchange(url, content, headers, options.timeout_s)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError, ValueError) as exc:
            raise SeldonClientException(f"the request to {url} cannot be sent: {exc}") from exc
        except httpx.TimeoutException:
            answer = Answer(False, f"no answer within {options.timeout_s:g} s from {url}", retryable=True)
        except httpx.RequestError as exc:
            answer = Answer(False, f"no answer from {url}: {exc or type(exc).__name__}", retryable=True)
        level = logging.INFO if self._options.debug else logging.DEBUG
        logger.log(level, "POST %s: %s in %.3f s", url, answer.msg or "200:OK", time.monotonic() - started)
        return answer

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _exchange(self, url: str, content: Mapping[str, Any], headers: Mapping[str, str], timeout_s: float) -> Answer:
        httpx = self._httpx
        end = time.monotonic() + timeout_s
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S))
        with self._open().stream("POST", url, headers=headers, timeout=timeout, **content) as response:
            parts = []
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > end:  # an answer that trickles in gets no more time than the call has
                    raise httpx.ReadTimeout("the answer came too slowly")
        return _answer(response, b"".join(parts))

    def _open(self) -> httpx.Client:
        client = self._client
        if client is None:
            with self._lock:
                client = self._client
                if client is None:
                    client = self._client = self._made()
        return client

    def _made(self) -> httpx.Client:
        most = self._options.max_connections
        limits = self._httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=_KEEPALIVE_S)
        credentials = self._options.channel_credentials or SeldonChannelCredentials()
        client: httpx.Client = self._httpx.Client(limits=limits, verify=credentials.ssl_context())
        return client


def _token(options: ClientOptions) -> dict[str, str]:
    credentials = options.call_credentials
    return {TOKEN_HEADER: credentials.token} if credentials is not None and credentials.token else {}


def _answer(response: httpx.Response, raw: bytes) -> Answer:
    status = response.status_code
    try:
        body = read_json(raw)
    except jsoncodec.JSONDecodeError:
        body = None
    if status != 200:
        msg = f"{status}:{response.reason_phrase}"
        retry_after_s = _retry_after(response.headers.get("Retry-After"))
        return Answer(False, msg, str(status), body, status in _RETRYABLE, retry_after_s)
    if not isinstance(body, dict):
        return Answer(False, "200:the answer is not a JSON object", "200", body)
    return Answer(True, "", "200", body)


def _retry_after(text: str | None) -> float | None:
    """Seconds that a header field asks to wait; a date in it is not looked at."""
    return float(text) if text is not None and text.isdecimal() else None
