"""What the local server answers for itself: health, metadata, limits, metrics, OpenAPI and its page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

from servegraph import __version__, jsoncodec
from servegraph.errors import MethodNotAllowedError
from servegraph.graph.events import Event
from servegraph.monitoring.metrics import MetricsRegistry
from servegraph.runtimes.openapi import docs_page, openapi
from servegraph.runtimes.server import GraphServer
from servegraph.runtimes.worker_protocol import Scope
from servegraph.serving.dataplane import Reply
from servegraph.settings import ServerSettings

_DOCS = "/docs"
_METRICS = "/metrics"
METRICS_PATHS: Final = "metrics.paths"
"""The service that names further paths at which the metrics are shown."""
MORE_METRICS: Final = "metrics.more"
"""The service whose functions give metrics in the text format that are shown behind the server's own."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Control:
    """Answers the paths that belong to the server and not to the graph."""

    def __init__(self, server: GraphServer, settings: ServerSettings, registry: MetricsRegistry) -> None:
        self._server = server
        self._settings = settings
        self._registry = registry
        self.draining = False
        self._paths: dict[str, Callable[[], Reply | Awaitable[Reply]]] = {
            "/v2": self._metadata,
            "/v2/": self._metadata,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            # A probe with a slash too many must not be answered by a router, which is always there.
            "/v2/health/live/": self._live,
            "/v2/health/ready/": self._ready,
            "/v2/limits": self._limits,
            _METRICS: self._metrics,
            "/openapi.json": self._openapi,
        }
        services = server.context.services
        self._more_metrics: tuple[Callable[[], bytes], ...] = services.get(MORE_METRICS, ())
        for path in services.get(METRICS_PATHS, ()):
            self._paths[path] = self._metrics

    @property
    def paths(self) -> frozenset[str]:
        """The paths that are the server's own."""
        return frozenset({*self._paths, _DOCS})

    @property
    def metrics_paths(self) -> frozenset[str]:
        """The paths that show the metrics."""
        return frozenset({_METRICS, *self._server.context.services.get(METRICS_PATHS, ())})

    async def answer(self, method: str, path: str, scope: Scope, request_id: str | None = None) -> Reply:
        """The reply for one of the server's own paths."""
        if method not in ("GET", "HEAD"):
            error = MethodNotAllowedError(f"{path} is for GET, not {method}", allow=("GET", "HEAD"))
            event = Event(None, path=path, method=method, event_id=request_id)
            return self._server.data_plane.failure(error, event)
        if path == _DOCS:
            return self._docs(scope)
        reply = self._paths[path]()
        return reply if isinstance(reply, Reply) else await reply

    def _live(self) -> Reply:
        return _json({"live": True})

    def _ready(self) -> Reply:
        waiting = self._server.not_ready()
        if self.draining:
            return _json({"ready": False, "reason": "the server is stopping"}, 503)
        if waiting or not self._server.loaded:
            models = {k: _load_state(self._server.models[k]) for k in waiting}
            return _json({"ready": False, "reason": "models are not loaded", "models": models}, 503)
        return _json({"ready": True})

    def _metadata(self) -> Reply:
        return _json(
            {
                "name": "servegraph",
                "version": __version__,
                "extensions": [],
                "function": self._server.function.uri,
                "models": sorted(m.name for m in self._server.models.values()),
            }
        )

    def _limits(self) -> Reply:
        timeouts = asdict(self._settings.timeouts)
        return _json({"limits": asdict(self._settings.limits), "timeouts": {"request_s": timeouts["request_s"]}})

    def _metrics(self) -> Reply:
        return Reply(200, b"".join([self._registry.render(), *(m() for m in self._more_metrics)]), METRICS_TYPE)

    def _openapi(self) -> Reply:
        return _json(openapi(self._server))

    def _docs(self, scope: Scope) -> Reply:
        headers = {"content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'"}
        return Reply(200, docs_page(self._server, _url(scope)), "text/html; charset=utf-8", headers)


def _url(scope: Scope) -> str:
    """Where the sender of a request reaches the server."""
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "HOST:PORT")
    return f"{scope.get('scheme', 'http')}://{host}"


def _load_state(model: Any) -> dict[str, Any]:
    loader = model.loader
    state: dict[str, Any] = {"state": loader.state.value, "attempts": loader.attempts}
    if loader.error is not None:
        state["error"] = type(loader.error).__name__
    return state


def _json(value: Any, status: int = 200) -> Reply:
    headers = {"retry-after": "1"} if status == 503 else None
    return Reply(status, jsoncodec.dumps(value), "application/json", headers, value)
