"""Cross-origin requests from browsers (the Fetch standard's CORS protocol). Off unless origins are allowed."""

from __future__ import annotations

from servegraph.runtimes.http_request import HttpRequest
from servegraph.serving.dataplane import Reply
from servegraph.settings import CorsSettings

Pairs = list[tuple[bytes, bytes]]


class Cors:
    """Answers preflight requests and adds the headers that let a browser show an answer to a page."""

    def __init__(self, settings: CorsSettings) -> None:
        self._any = "*" in settings.allow_origins
        self._origins = {o.encode("ascii") for o in settings.allow_origins}
        self._methods = ", ".join(settings.allow_methods)
        self._headers = ", ".join(settings.allow_headers)
        self._max_age = str(int(settings.max_age_s))

    def is_preflight(self, request: HttpRequest) -> bool:
        """Whether a browser asks beforehand whether it may send a request."""
        return request.method == "OPTIONS" and _header(request, b"access-control-request-method") is not None

    def preflight(self, request: HttpRequest) -> Reply:
        """The answer to a preflight request; without permissions for origins that are not allowed."""
        if not self._allowed(request):
            return Reply(403, b"", None, {"vary": "origin"})
        headers = {
            "access-control-allow-methods": self._methods,
            "access-control-allow-headers": self._headers,
            "access-control-max-age": self._max_age,
        }
        return Reply(204, b"", None, headers)

    def headers(self, request: HttpRequest) -> Pairs:
        """What to add to an answer: the origin that may see it, if it may."""
        origin = _header(request, b"origin")
        if origin is None or not self._allowed(request):
            return [] if self._any else [(b"vary", b"origin")]
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]

    def _allowed(self, request: HttpRequest) -> bool:
        return self._any or _header(request, b"origin") in self._origins


def _header(request: HttpRequest, name: bytes) -> bytes | None:
    return next((v for k, v in request.headers if k == name), None)
