"""``http(s)://...``: records as POSTs of JSON."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from servegraph.errors import StreamError
from servegraph.importing import import_extra
from servegraph.streams.base import Encoded, OutputStream, PushError, Record, positive

if TYPE_CHECKING:
    import httpx

# Answers that are about the content: sending the same again cannot help.
_CONTENT_REFUSED = frozenset({400, 413, 415, 422})
_TARGET_SINCE = (1, 0, 6)  # httpcore's "target" request extension


class HttpStream(OutputStream):
    """POSTs over pooled connections: one record is a JSON object, several are an array.

    Records with different headers go in separate requests, in order; so does a record of bytes, which is the
    body as it is. User and password of the address are sent as basic authentication. Redirects are not followed.

    Args:
        uri: the address.
        batch: False sends every record in a request of its own.
        headers: sent with every request.
        timeout: seconds for each of connect, write and read.
        ca_file: certificates to trust in place of the system's; TLS is always verified.
    """

    def __init__(
        self,
        uri: str,
        *,
        batch: bool = True,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        ca_file: str | None = None,
    ) -> None:
        super().__init__(uri)
        self._httpx: Any = import_extra("httpx", feature=f"the stream {self.uri}", extra="http")
        self._batch = batch
        self._headers = dict(headers or {})
        self._timeout_s = positive(timeout, "timeout", uri)
        self._ca_file = ca_file
        self._url, self._auth = self._split(uri)
        self._extensions = self._hide_query()
        self._client: httpx.Client | None = None

    def _split(self, uri: str) -> tuple[httpx.URL, tuple[str, str] | None]:
        try:
            url: httpx.URL = self._httpx.URL(uri)
        except (self._httpx.InvalidURL, ValueError) as exc:
            raise StreamError(f"{self.uri} is not a URL") from exc
        if not url.host or url.fragment:
            raise StreamError(f"{self.uri} must have a host and no fragment")
        user, _, password = url.userinfo.decode("ascii").partition(":")
        auth = (unquote(user), unquote(password)) if user or password else None
        return url.copy_with(userinfo=b""), auth

    def _hide_query(self) -> dict[str, Any]:
        """Move the query out of the URL, which httpx writes to its log; it may hold a token."""
        if not self._url.query:
            return {}
        httpcore: Any = import_extra("httpcore", feature=f"the stream {self.uri}", extra="http")
        if tuple(int(part) for part in httpcore.__version__.split(".")[:3]) < _TARGET_SINCE:
            raise StreamError(f"{self.uri}: an address with a query needs httpcore 1.0.6 or newer")
        target = self._url.raw_path
        self._url = self._url.copy_with(query=None)
        return {"target": target}

    def _opened(self) -> httpx.Client:
        with self._lock:
            self._check_open()
            if self._client is None:
                verify = True if self._ca_file is None else self._trusting(self._ca_file)
                self._client = self._httpx.Client(
                    auth=self._auth, headers=self._headers, timeout=self._timeout_s, verify=verify
                )
            return self._client

    def _trusting(self, ca_file: str) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=ca_file)
        except OSError as exc:
            raise StreamError(f"{self.uri}: ca_file {ca_file!r} cannot be used: {exc}") from exc

    def _write(self, batch: Sequence[Encoded]) -> None:
        done = 0
        for group in self._requests(batch):
            rest = [record for record, _ in batch[done + len(group) :]]
            self._post(group, rest)
            done += len(group)

    def _requests(self, batch: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
        """The runs of neighbouring records that one request can carry."""
        start = 0
        for end in range(1, len(batch) + 1):
            if end == len(batch) or not self._together(batch[start][0], batch[end][0]):
                yield batch[start:end]
                start = end

    def _together(self, one: Record, other: Record) -> bool:
        return self._batch and not one.is_bytes and not other.is_bytes and (one.headers or {}) == (other.headers or {})

    def _post(self, group: Sequence[Encoded], rest: Sequence[Record]) -> None:
        """Send one request; ``rest`` is what has not been tried and goes into the error."""
        records = [record for record, _ in group]
        body = group[0][1] if len(group) == 1 else b"[" + b",".join(payload for _, payload in group) + b"]"
        try:
            response = self._opened().post(
                self._url, content=body, headers=self._request_headers(records[0]), extensions=self._extensions
            )
        except self._httpx.HTTPError as exc:
            message = f"{self.uri}: {type(exc).__name__}: {exc}"
            raise PushError(message, undelivered=[*records, *rest]) from exc
        except UnicodeEncodeError as exc:
            message = f"{self.uri}: a header holds characters that HTTP cannot carry"
            raise PushError(message, refused=records, undelivered=rest) from exc
        if response.is_success:
            return
        message = f"{self.uri} answered {response.status_code} {response.reason_phrase}"
        if response.status_code not in _CONTENT_REFUSED:
            raise PushError(message, undelivered=[*records, *rest])
        if len(records) == 1:
            raise PushError(message, refused=records, undelivered=rest)
        raise PushError(message, undelivered=[*records, *rest], retryable=False)

    def _request_headers(self, record: Record) -> dict[str, str]:
        headers = {name.lower(): value for name, value in (record.headers or {}).items()}
        if "content-type" not in {name.lower() for name in self._headers}:
            headers.setdefault("content-type", "application/octet-stream" if record.is_bytes else "application/json")
        return headers

    def _release(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _forget(self) -> None:
        self._client = None
