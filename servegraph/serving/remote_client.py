"""One pooled HTTP client for a remote step: tries, deadlines, retries where they are safe, what a status means."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from servegraph import jsoncodec
from servegraph.errors import (
    DeadlineError,
    GraphError,
    NotFoundError,
    PayloadTooLargeError,
    RemoteError,
    RequestError,
    UnprocessableError,
    UnsupportedMediaTypeError,
)
from servegraph.graph.media import parse_media_type
from servegraph.importing import import_extra
from servegraph.serving.remote_options import IDEMPOTENT, RemoteOptions

if TYPE_CHECKING:
    import httpx

_KEEPALIVE_S: Final = 4.0  # below the five seconds after which common servers close an idle connection
_CLIENT_ERRORS: Final[Mapping[int, type[RequestError]]] = {
    400: RequestError,
    404: NotFoundError,
    409: RequestError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaTypeError,
    422: UnprocessableError,
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One call to make."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    deadline: float | None
    """When the caller's time is up, on the clock of ``time.monotonic()``."""
    pass_client_errors: bool


@dataclass(frozen=True, slots=True)
class Incoming:
    """An answer with a status below 300."""

    status: int
    content_type: str
    content: bytes


class _RetryableError(Exception):
    """A try that failed and may be repeated."""

    def __init__(self, failure: RemoteError | DeadlineError, after_s: float | None = None) -> None:
        super().__init__()
        self.failure = failure
        self.after_s = after_s


class RemoteClient:
    """Makes the calls of one step.

    Args:
        name: the step's name, for messages.
        options: how calls are made.
    """

    def __init__(self, name: str, options: RemoteOptions) -> None:
        self.name = name
        self.options = options
        self._httpx: ModuleType = import_extra("httpx", feature="A remote step", extra="http")
        self._trust = True if options.verify is None else _trust(options.verify, name)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(options.max_in_flight)

    async def start(self) -> None:
        """Make the connection pool, on the running event loop."""
        self._on_this_loop()

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def send(self, call: Outgoing) -> Incoming:
        """The answer to a call, repeated where that is safe and there is time.

        Raises:
            RemoteError: there was no answer, or its status is 300 or above.
            DeadlineError: it did not come in time.
            RequestError: the remote refused the request, and the call passes that on.
        """
        client = self._on_this_loop()
        async with self._slots:
            for attempt in range(self.options.retries + 1):
                try:
                    return await self._once(client, call)
                except _RetryableError as retry:
                    pause = self._pause(attempt, retry.after_s)
                    if attempt == self.options.retries or _left(call) <= pause:
                        raise retry.failure from retry.__cause__
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _once(self, client: httpx.AsyncClient, call: Outgoing) -> Incoming:
        budget = min(_left(call), self.options.timeout_s or float("inf"))
        if budget <= 0:
            raise DeadlineError(f"the request's time was up before step {self.name!r} called", step=self.name)
        headers = dict(call.headers)
        if budget != float("inf"):
            headers["X-Request-Timeout-Ms"] = str(max(1, int(budget * 1000)))
        h = self._httpx
        safe = self.options.idempotent or call.method in IDEMPOTENT
        try:
            async with asyncio.timeout(None if budget == float("inf") else budget):
                request = client.build_request(call.method, call.url, headers=headers, content=call.content)
                response = await client.send(request, stream=True)
                try:
                    return await self._read(response, call, safe)
                finally:
                    await response.aclose()
        except (h.ConnectError, h.ConnectTimeout, h.PoolTimeout) as exc:
            raise _RetryableError(self._failure("could not be reached")) from exc  # nothing was sent
        except TimeoutError as exc:
            failure = DeadlineError(f"step {self.name!r}: no answer within {budget:.3g} s", step=self.name)
            if safe and _left(call) > 0:
                raise _RetryableError(failure) from exc
            raise failure from exc
        except h.LocalProtocolError as exc:
            raise UnprocessableError(f"step {self.name!r}: the call cannot be written as HTTP", step=self.name) from exc
        except h.InvalidURL as exc:
            raise UnprocessableError(f"step {self.name!r}: the URL cannot be read", step=self.name) from exc
        except h.DecodingError as exc:
            raise self._failure("answered with a body that cannot be decoded") from exc
        except h.TransportError as exc:
            failure_ = self._failure("broke off the connection")
            if safe:
                raise _RetryableError(failure_) from exc
            raise failure_ from exc

    async def _read(self, response: httpx.Response, call: Outgoing, safe: bool) -> Incoming:
        status = response.status_code
        if status >= 300:
            raise self._refused(response, call, safe)
        limit = self.options.max_response_bytes
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise self._failure(f"announced {announced} bytes; {limit} are the most")
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes(65_536):
            size += len(chunk)
            if size > limit:
                raise self._failure(f"answered with more than {limit} bytes")
            chunks.append(chunk)
        return Incoming(status, response.headers.get("content-type", ""), b"".join(chunks))

    def _refused(self, response: httpx.Response, call: Outgoing, safe: bool) -> Exception:
        """What an answer with a status of 300 or above means. Its body is not passed on."""
        status = response.status_code
        if status < 400:
            return self._failure(f"answered with status {status}: redirects are not followed")
        failure = self._failure(f"answered with status {status}")
        after = _retry_after(response.headers.get("retry-after"))
        if status in (429, 503) and (after is not None or (safe and status == 503)):
            return _RetryableError(failure, after)  # it says that it did not do it
        if status >= 500:
            return _RetryableError(failure) if safe else failure
        kind = _CLIENT_ERRORS.get(status) if call.pass_client_errors else None
        if kind is not None:
            return kind(f"the remote service behind {self.name!r} refused the request with status {status}")
        return failure

    def _failure(self, what: str) -> RemoteError:
        return RemoteError(f"step {self.name!r}: the remote service {what}", step=self.name)

    def _pause(self, attempt: int, after_s: float | None) -> float:
        options = self.options
        backoff = min(options.backoff_factor * 2.0**attempt, options.backoff_max_s)
        # Not all at the same moment, where many calls failed at once.
        backoff *= random.uniform(0.5, 1.0)
        return backoff if after_s is None else max(backoff, min(after_s, options.backoff_max_s))

    def _on_this_loop(self) -> httpx.AsyncClient:
        """The client of the running loop; connections belong to one loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._new_client(), loop
            self._slots = asyncio.Semaphore(self.options.max_in_flight)
        return self._client

    def _new_client(self) -> httpx.AsyncClient:
        h = self._httpx
        most = self.options.max_in_flight
        client: httpx.AsyncClient = h.AsyncClient(
            verify=self._trust,
            limits=h.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=_KEEPALIVE_S),
            timeout=None,
            follow_redirects=False,
            trust_env=False,
        )
        return client


def decoded(answer: Incoming, return_json: bool, name: str) -> Any:
    """The value in an answer: JSON where it says so, or where JSON is asked for; else the bytes.

    Raises:
        RemoteError: it should be JSON, and is not.
    """
    if not return_json and not parse_media_type(answer.content_type).is_json:
        return answer.content
    if not answer.content:
        return None
    try:
        return jsoncodec.loads(answer.content)
    except jsoncodec.JSONDecodeError as exc:
        raise RemoteError(f"step {name!r}: the remote service answered with no valid JSON", step=name) from exc


def _trust(file: str, name: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as exc:
        raise GraphError(f"step {name!r}: verify={file!r} cannot be read: {exc}") from exc


def _left(call: Outgoing) -> float:
    return float("inf") if call.deadline is None else call.deadline - time.monotonic()


def _retry_after(value: str | None) -> float | None:
    """The seconds in a Retry-After field: a number, or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
