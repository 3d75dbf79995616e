"""The local server's application: one function behind HTTP, as a plain ASGI callable, and `serve`.

The data plane's requests take a short way: read the body, build the event, run the graph, send the reply. A request
whose graph never has to wait is answered without a task, a timer or a queue. Everything else (health, metrics,
documentation) is in ``control.py``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from servegraph.errors import (
    MethodNotAllowedError,
    OverloadedError,
    PayloadTooLargeError,
    ServegraphError,
)
from servegraph.graph.calls import InlineLimits
from servegraph.graph.events import Event, new_id
from servegraph.monitoring.metrics import MetricsRegistry
from servegraph.runtimes.control import Control
from servegraph.runtimes.cors import Cors
from servegraph.runtimes.edges import AsgiEdge, OnlyPaths
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.http_metrics import HttpMetrics, ModelObserver
from servegraph.runtimes.http_protocol import hang_up
from servegraph.runtimes.http_request import (
    HTTP,
    RARE_FIELDS,
    ClientGoneError,
    HttpRequest,
    Resumed,
    read_body,
    whole_answer,
)
from servegraph.runtimes.listening import GRPC, METRICS
from servegraph.runtimes.seldon.deployment_serving import is_deployment, serving_of
from servegraph.runtimes.server import GraphServer
from servegraph.runtimes.worker_protocol import Edge, Receive, Scope, Send, WorkerInfo
from servegraph.serving.dataplane import JSON, DataPlaneOptions, Reply
from servegraph.serving.limits import JsonLimits, parse_json
from servegraph.serving.seldon.pickles import set_pickle_policy
from servegraph.serving.seldon.state_store import STATE_STORE
from servegraph.settings import ServerSettings

METRICS_REGISTRY: Final = "metrics.registry"
"""The service by which steps find the server's metrics."""
access_logger = logging.getLogger("servegraph.access")

_MOST_TARGETS: Final = 1024
_SERVED_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class LocalApplication:
    """Serves one function over ASGI; see `worker_protocol.Application` for the steps of its life."""

    def __init__(
        self, server: GraphServer, settings: ServerSettings, registry: MetricsRegistry, worker: WorkerInfo | None = None
    ) -> None:
        self.server = server
        self.settings = settings
        self._worker = worker
        self.plane = server.data_plane
        self.metrics = HttpMetrics(registry)
        self.control = Control(server, settings, registry)
        self.cors = Cors(settings.cors) if settings.cors.allow_origins else None
        self._limits = settings.limits
        self._timeout_s = settings.timeouts.request_s
        self._access_log = settings.access_log
        self._max = settings.limits.max_concurrency
        self._in_flight = 0
        self._draining = False
        self._own_paths = self.control.paths
        self._short_way = self.cors is None
        self._targets: dict[bytes, str] = {}
        self.answered = 0
        """How many requests were answered."""
        self.edges: dict[str, Edge] = {}
        """What the application offers beside HTTP, by the names of the listeners."""
        if settings.metrics_port is not None:
            self.edges[METRICS] = AsgiEdge(OnlyPaths(self, self.control.metrics_paths), settings.limits)

    # -- life -------------------------------------------------------------------------------------------------------

    async def startup(self) -> None:
        """Load the models; they may take their time on a thread while the loop turns."""
        await self.server.astart()
        await asyncio.get_running_loop().run_in_executor(None, self._load)

    def _load(self) -> None:
        worker = self._worker
        self.server.load()
        if worker is not None and worker.slot == 0 and worker.starts == 1:
            from servegraph.runtimes.banner import banner

            sys.stderr.write(banner(self.server, worker))
            sys.stderr.flush()

    @property
    def ready(self) -> bool:
        """Whether requests can be answered: all models are loaded, and the server is not stopping."""
        return self.server.loaded and self.server.ready and not self._draining

    def begin_drain(self) -> None:
        """Say not ready from now on and ask clients to close their connections."""
        self._draining = True
        self._short_way = False
        self.control.draining = True

    def in_flight(self) -> int:
        """How many requests are being worked on."""
        return self._in_flight

    def stuck_calls(self) -> int:
        """How many model calls still run ``hang_grace_s`` after they were given up."""
        return self.server.offloader.stuck(self.settings.timeouts.hang_grace_s)

    async def aclose(self) -> None:
        """Wait for work behind answers, write what was recorded, release everything."""
        await self.server.adrain()
        await asyncio.get_running_loop().run_in_executor(None, self.server.close)

    # -- requests ---------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _refuse(scope, receive, send)
            return
        start = time.perf_counter()
        request = HttpRequest(scope)
        reply: Reply | None
        if request.path in self._own_paths:
            reply = await self.control.answer(request.method, request.path, scope, request.id)
        elif self.cors is not None and self.cors.is_preflight(request):
            reply = self.cors.preflight(request)
        elif request.method == "OPTIONS":
            # Browsers ask this of servers that do not allow them anything: it must run no graph.
            reply = Reply(204, b"", None, {"allow": ", ".join(_SERVED_METHODS)})
        elif request.method not in _SERVED_METHODS:
            error = MethodNotAllowedError(f"{request.method[:20]} is not served here", allow=_SERVED_METHODS)
            reply = self.plane.failure(error, request.event(b"", None))
        else:
            reply = await self._answer(request, receive)
        if reply is None:  # the client is gone
            self.metrics.cancelled()
            return
        seconds = time.perf_counter() - start
        self.metrics.answered(reply.status, seconds)
        self.answered += 1
        if reply.status == 200 and request.method == "POST":
            self._remember(scope)
        head = self._head(request, reply, seconds)
        await send({"type": "http.response.start", "status": reply.status, "headers": head})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else reply.body})
        if self._access_log:
            _log_access(request.method, request.path, reply, seconds, request.id)

    def answer_now(
        self, target: bytes, fields: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[bytes, bytes, bytes] | None:
        """Answer a request whose model runs on the event loop; see `http_protocol.AnswerNow`.

        Only for targets that were answered before, for JSON, and for heads that ask for nothing else: any other
        request goes the way of `__call__`, which this is a short cut of.
        """
        path = self._targets.get(target)
        if path is None or not self._short_way or not self.plane.engine.is_quick(path):
            return None
        if len(body) > self._limits.body_json_bytes or self._in_flight >= self._max:
            return None
        content_type = None
        for name, value in fields:
            if name == b"content-type":
                if value != b"application/json":
                    return None
                content_type = JSON
            elif name in RARE_FIELDS:
                return None
        start = time.perf_counter()
        request_id = new_id()
        event = Event(body, content_type, fields, "POST", path, request_id, HTTP)
        event.deadline = time.monotonic() + self._timeout_s
        reply = self.plane.handle_now(event)
        if reply is None:  # its body asks for something else; nothing has been called yet
            return None
        try:
            answer = whole_answer(reply, request_id)
        except ServegraphError as exc:
            reply = self.plane.failure(exc, event)
            answer = whole_answer(reply, request_id)
        seconds = time.perf_counter() - start
        self.metrics.answered(reply.status, seconds)
        self.answered += 1
        if self._access_log:
            _log_access("POST", path, reply, seconds, request_id)
        return answer

    def _remember(self, scope: Scope) -> None:
        """Let later requests for this target go the short way."""
        if len(self._targets) < _MOST_TARGETS and not scope["query_string"]:
            self._targets[scope.get("raw_path", b"")] = scope["path"]

    async def _answer(self, request: HttpRequest, receive: Receive) -> Reply | None:
        """The data plane's reply; ``None`` when the client is gone."""
        if self._in_flight >= self._max:
            busy = OverloadedError("the server has as many requests in flight as it takes", retry_after=1)
            return self.plane.failure(busy, request.event(b"", None))
        self._in_flight += 1
        try:
            try:
                deadline = time.monotonic() + request.timeout_s(self._timeout_s)
                limit = request.check(self._limits)
                body = await read_body(receive, limit, self._limits.body_timeout_s)
            except ClientGoneError:
                return None
            except ServegraphError as exc:
                reply = self.plane.failure(exc, request.event(b"", None))
                reply.headers = {**(reply.headers or {}), "connection": "close"}
                hang_up(receive)
                return reply
            request.mark("read")
            event = request.event(body, deadline)
            now = self.plane.handle_now(event)
            if now is None:
                now = await self._wait(self.plane.handle_later(event), receive)
            request.mark("graph")
            return now
        finally:
            self._in_flight -= 1

    async def _wait(self, work: Coroutine[Any, Any, Reply], receive: Receive) -> Reply | None:
        """The reply of a request that may have to wait; it is given up when its client goes away."""
        try:
            waiting = work.send(None)
        except StopIteration as stop:
            reply: Reply = stop.value
            return reply
        task = asyncio.current_task()
        assert task is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        watcher = asyncio.ensure_future(watch())
        try:
            late: Reply = await Resumed(work, waiting)
            return late
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
            return None
        finally:
            watcher.cancel()

    def _head(self, request: HttpRequest, reply: Reply, seconds: float) -> list[tuple[bytes, bytes]]:
        """The header fields of an answer."""
        headers = [(b"x-request-id", request.id.encode("latin-1"))]
        if reply.content_type is not None:
            headers.append((b"content-type", reply.content_type.encode("latin-1")))
        if reply.status != 204:
            headers.append((b"content-length", b"%d" % len(reply.body)))
        if reply.headers:
            headers.extend((str(k).encode("latin-1"), str(v).encode("latin-1")) for k, v in reply.headers.items())
        if self._draining:
            headers.append((b"connection", b"close"))
        if request.rare is not None and request.rare.timing:
            headers.append((b"server-timing", request.rare.server_timing(seconds)))
        if self.cors is not None:
            headers.extend(self.cors.headers(request))
        return headers


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """What is not HTTP: lifespan is acknowledged, websockets are closed."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.close", "code": 1003})


def _log_access(method: str, path: str, reply: Reply, seconds: float, request_id: str) -> None:
    size = len(reply.body)
    access_logger.info(
        "%s %s %d %.2fms %dB id=%s", method, _printable(path), reply.status, seconds * 1000, size, request_id
    )


def _printable(path: str) -> str:
    return path if path.isprintable() and len(path) <= 200 else ascii(path[:200])


def _read_json(body: bytes, limits: JsonLimits, most: int) -> Any:
    """JSON whose media type did not say so, and which was let in as something else."""
    if len(body) > most:
        raise PayloadTooLargeError(f"the body has {len(body)} bytes; the limit for JSON is {most}")
    return parse_json(body, limits)


def metrics_directory(worker: WorkerInfo | None) -> Path | None:
    """The folder that the workers of a server share for their metrics; ``None`` where there is only one process."""
    return Path(worker.metrics_directory) if worker is not None and worker.metrics_directory else None


def make_application(
    function: ServingFunction,
    settings: ServerSettings,
    namespaces: list[Any],
    worker: WorkerInfo | None = None,
    services: Mapping[str, Any] | None = None,
) -> LocalApplication:
    """The application of a function, with its graph compiled and its models not yet loaded.

    Args:
        function: the function.
        settings: all settings of the server.
        namespaces: where class and function names are looked up before they are imported.
        worker: the worker it runs in; ``None`` in a process of the user's own.
        services: what the runtime offers to steps by name; see `GraphContext.services`.
    """
    set_pickle_policy(settings.allow_pickle)
    directory = metrics_directory(worker)
    registry = MetricsRegistry(directory, worker.slot if worker is not None else 0)
    context = function.new_context(worker_id=worker.slot if worker is not None else 0)
    deployment = serving_of(function, directory, worker.slot if worker is not None else 0)
    context.services[METRICS_REGISTRY] = registry
    context.services[STATE_STORE] = settings.state_store or ""
    context.services.update(deployment.services if deployment is not None else {})
    context.services.update(services or {})
    context.load_timeout_s = settings.timeouts.load_s
    context.tensor_rank = settings.limits.tensor_rank
    json_limits = JsonLimits(settings.limits.json_depth, settings.limits.json_elements)
    context.read_json = partial(_read_json, limits=json_limits, most=settings.limits.body_json_bytes)
    executor = settings.executor
    options = DataPlaneOptions(
        default_content_type=function.spec.default_content_type,
        json_limits=json_limits,
        refuse_nan=settings.nan == "error",
        show_traceback=settings.errors.traceback,
        mlrun_status_codes=settings.errors.mlrun_status_codes,
    )
    limits = InlineLimits(executor.inline, executor.inline_below_ms / 1000, executor.slow_above_ms / 1000)
    server = GraphServer(
        function,
        namespaces,
        context,
        options=options,
        threads=executor.threads,
        limits=limits,
        observer=ModelObserver(registry),
    )
    application = LocalApplication(server, settings, registry, worker)
    if deployment is not None:
        deployment.attach(application, settings)
    return application


def offered_edges(function: ServingFunction) -> list[str]:
    """Names of the edges beside HTTP that the application of a function offers, found without making it."""
    has_grpc = is_deployment(function) and importlib.util.find_spec("grpc") is not None
    return [METRICS, GRPC] if has_grpc else [METRICS]


def build_application(target: Any, settings: ServerSettings, worker: WorkerInfo) -> LocalApplication:
    """The application of a worker process: loads the function that ``target`` names."""
    from servegraph.runtimes.source import load_function

    function = load_function(target["function"], target.get("name"), target.get("components"))
    return make_application(function, settings, function.namespaces(), worker)
