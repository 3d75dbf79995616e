"""Calls of model servers in other processes, over HTTP, and what their failures are to a client of ours."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from servegraph import jsoncodec
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException

if TYPE_CHECKING:
    import httpx

_CALLERS_FAULT = frozenset({400, 404, 413, 415, 422})
_LONGEST_SHOWN = 500


class JsonServer:
    """A model server that takes and gives JSON.

    Args:
        endpoint: its URL, with or without a path.
        timeout_s: seconds for one call.
    """

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        self.endpoint = endpoint.rstrip("/") if "://" in endpoint else f"http://{endpoint.rstrip('/')}"
        self.timeout_s = timeout_s
        self._client: httpx.Client | None = None
        self._opening = threading.Lock()

    def call(self, path: str, body: Any = None) -> Any:
        """What it answers to a POST of the body, or to a GET where there is none.

        Raises:
            SeldonMicroserviceException: with the status 400 when it blames the request, 504 when it takes too long,
                502 when it cannot be reached, fails, or answers with something else than JSON.
        """
        httpx = import_extra("httpx", feature="calling another model server", extra="http")
        where = f"the model server at {self.endpoint}"
        content = None if body is None else jsoncodec.dumps(body)
        try:
            answer = self._open().request(
                "GET" if content is None else "POST",
                f"{self.endpoint}{path}",
                content=content,
                headers={"content-type": "application/json"},
            )
        except httpx.TimeoutException as exc:
            raise SeldonMicroserviceException(f"{where} took over {self.timeout_s:g} s", 504, reason=INTERNAL) from exc
        except httpx.HTTPError as exc:
            raise SeldonMicroserviceException(f"{where} cannot be reached: {exc}", 502, reason=INTERNAL) from exc
        try:
            parsed = jsoncodec.loads(answer.content) if answer.content else None
        except ValueError as exc:
            raise SeldonMicroserviceException(
                f"{where} answered {answer.status_code} with something else than JSON", 502, reason=INTERNAL
            ) from exc
        if answer.status_code >= 300:
            said = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
            info = f"{where} answered {answer.status_code}: {str(said)[:_LONGEST_SHOWN]}"
            if answer.status_code in _CALLERS_FAULT:
                raise SeldonMicroserviceException(info)
            raise SeldonMicroserviceException(info, 502, reason=INTERNAL)
        return parsed

    def close(self) -> None:
        """Give up its connections; the next call opens new ones."""
        with self._opening:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _open(self) -> httpx.Client:
        # Made by the first call: a constructor may run in a process that is forked later.
        with self._opening:
            if self._client is None:
                httpx = import_extra("httpx", feature="calling another model server", extra="http")
                self._client = httpx.Client(timeout=self.timeout_s, trust_env=False)
            return self._client
