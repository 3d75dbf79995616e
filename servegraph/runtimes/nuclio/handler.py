"""What runs inside of Nuclio's worker: the footer of an exported module calls `init_context` and `handle`.

The graph is built and its models are loaded once per process, in `init_context`; a worker is not ready before. Every
event is answered with Nuclio's own ``Response`` and a text or bytes in it: the wrapper reads anything else in its
own way. No exception leaves `handle`, as the wrapper would send its traceback to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import ServegraphError, SpecError, UnavailableError
from servegraph.graph.calls import InlineLimits
from servegraph.graph.events import Event
from servegraph.monitoring.metrics import MetricsRegistry
from servegraph.runtimes.control import Control
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.nuclio.events import check_size, deadline, is_http, to_event
from servegraph.runtimes.nuclio.logs import send_logs
from servegraph.runtimes.server import GraphServer
from servegraph.runtimes.serving_spec import SECRETS_VARIABLE, SPEC_FILE, SPEC_VARIABLE, function_from_text
from servegraph.serving.dataplane import PROBLEM, DataPlaneOptions, Reply
from servegraph.serving.limits import JsonLimits
from servegraph.settings import ServerSettings, environment, load_settings

logger = logging.getLogger("servegraph.nuclio")

_OWN_PATHS: Final = ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/limits", "/openapi.json", "/docs")
_FLUSH_S: Final = 5.0


def init_context(context: Any, namespace: dict[str, Any]) -> None:
    """Build the graph and load its models.

    Args:
        context: Nuclio's context.
        namespace: the globals of the module with the function's code: where names of the graph are looked up.

    Raises:
        SpecError: there is no spec in the environment, or it cannot be read.
        GraphError: the graph does not fit together.
        ModelLoadError: a model could not be loaded (with ``load_mode`` sync).
    """
    worker = NuclioWorker(read_function(), context, namespace)
    worker.load()
    context.user_data.servegraph = worker


async def handle(context: Any, event: Any) -> Any:
    """Nuclio's ``Response`` to an event; for a batch a list of them."""
    worker: NuclioWorker | None = getattr(context.user_data, "servegraph", None)
    if worker is None:
        logger.error("init_context did not run before the first event")
        return _response(context, _internal_error())
    if isinstance(event, list):  # a trigger with batches
        answers = await asyncio.gather(*(worker.answer(each) for each in event))
        for answer, each in zip(answers, event, strict=True):
            answer.event_id = each.id  # an answer without it reaches nobody
        return answers
    return await worker.answer(event)


def read_function() -> ServingFunction:
    """The function in the environment, or in the file that is mounted in its place, with its secrets.

    Raises:
        SpecError: there is none, or it cannot be read.
        SettingsError: the environment lacks a secret.
    """
    variables = environment()
    text = variables.get(SPEC_VARIABLE)
    if not text:
        file = Path(SPEC_FILE)
        if not file.is_file():
            raise SpecError(f"the environment has no {SPEC_VARIABLE}: deploy what servegraph exported")
        text = file.read_text("utf-8")
    function = function_from_text(text, is_json=True)
    names = variables.get(SECRETS_VARIABLE)
    if names:
        function.with_secrets("env", names)
    return function


class NuclioWorker:
    """One process of Nuclio's that serves a function.

    Args:
        function: the function.
        context: Nuclio's context.
        namespace: the globals of the module with the function's code.
    """

    def __init__(self, function: ServingFunction, context: Any, namespace: dict[str, Any]) -> None:
        self._nuclio = context
        self.settings: ServerSettings = load_settings(function=function.spec.settings)
        self._stop_logs = send_logs(context.logger, self.settings.log_level)
        own = function.new_context(worker_id=_number(context.worker_id))
        own.platform = context.platform
        own.trigger = str(getattr(context.trigger, "kind", "") or "")
        own.load_timeout_s = self.settings.timeouts.load_s
        executor, errors = self.settings.executor, self.settings.errors
        self.server = GraphServer(
            function,
            [namespace],
            own,
            options=DataPlaneOptions(
                default_content_type=function.spec.default_content_type,
                json_limits=JsonLimits(self.settings.limits.json_depth, self.settings.limits.json_elements),
                refuse_nan=self.settings.nan == "error",
                show_traceback=errors.traceback,
                mlrun_status_codes=errors.mlrun_status_codes,
            ),
            threads=executor.threads,
            limits=InlineLimits(executor.inline, executor.inline_below_ms / 1000, executor.slow_above_ms / 1000),
        )
        self._control = Control(self.server, self.settings, MetricsRegistry(None, 0))
        self._started: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        context.platform.set_termination_callback(self._callback(self.terminate))
        context.platform.set_drain_callback(self._callback(self.drain))

    def load(self) -> None:
        """Load the models: before this returns with ``load_mode`` sync, behind it with async."""
        # The event loop runs in this thread already; on another one a model may use a loop of its own to load.
        with ThreadPoolExecutor(1, "servegraph-load") as thread:
            thread.submit(self.server.load).result()

    # -- events -----------------------------------------------------------------------------------------------------

    async def answer(self, given: Any) -> Any:
        """Nuclio's ``Response`` to one event. Never raises."""
        event = Event()
        try:
            event = to_event(given)
            reply = await self._reply(given, event)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the wrapper would send the traceback
            reply = self._failure(exc, event)
        try:
            return _response(self._nuclio, reply, event.id)
        except Exception:
            logger.exception("request %s: the answer cannot be sent", event.id)
            return _response(self._nuclio, _internal_error(), event.id)

    async def _reply(self, given: Any, event: Event) -> Reply:
        if is_http(given):
            if event.path in _OWN_PATHS:
                return await self._control.answer(event.method or "GET", event.path, {})
            if self._control.draining:
                raise UnavailableError("the worker is stopping")
            event.deadline = deadline(event, self.settings)
            check_size(given, event, self.settings)
        await self._start()
        return await self.server.data_plane.handle(event)

    def _failure(self, exc: BaseException, event: Event) -> Reply:
        if isinstance(exc, ServegraphError):
            return self.server.data_plane.failure(exc, event)
        logger.error("request %s failed", event.id, exc_info=exc)
        return _internal_error(event.id)

    async def _start(self) -> None:
        """Prepare what belongs to the event loop, before the first event."""
        if self._started is None:
            self._started = asyncio.ensure_future(self.server.astart())
        if not self._started.done():
            await asyncio.shield(self._started)
        self._started.result()

    # -- the end ----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait for work behind answers and write what was recorded; events may come again."""
        await self.server.data_plane.engine.wait_for_background()
        await asyncio.to_thread(self.server.flush, _FLUSH_S)

    async def terminate(self) -> None:
        """Take no more requests, wait for work behind answers, write what was recorded, release everything."""
        if self._control.draining:
            return
        self._control.draining = True
        await self.server.adrain()
        await asyncio.to_thread(self.server.close)
        self._stop_logs()

    def _callback(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], asyncio.Future[None]]:
        """A callback for the platform: some versions of the wrapper await what it gives, some do not."""

        def start() -> asyncio.Future[None]:
            task = asyncio.ensure_future(_logged(work))
            task.get_loop().call_soon_threadsafe(lambda: None)  # a loop that sleeps through the signal wakes up
            self._tasks.add(task)  # the loop alone would let it be collected
            task.add_done_callback(self._tasks.discard)
            return task

        return start


async def _logged(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:
        logger.exception("the worker could not finish its work")
        raise


def _number(worker_id: Any) -> int:
    """Nuclio's worker id, which is a text."""
    with contextlib.suppress(TypeError, ValueError):
        return int(worker_id)
    return 0


def _internal_error(request_id: str = "") -> Reply:
    problem = {"type": "about:blank", "title": "Internal Server Error", "status": 500, "request_id": request_id}
    return Reply(500, jsoncodec.dumps(problem), PROBLEM)


def _response(context: Any, reply: Reply, request_id: str = "") -> Any:
    """Nuclio's ``Response``: text where the body is text, else bytes; header values are texts, or they get lost."""
    content_type = reply.content_type or "text/plain"
    body: str | bytes = reply.body
    if "json" in content_type or content_type.startswith("text/plain; charset=utf-8"):
        body = reply.body.decode("utf-8", "surrogateescape")
        if not _is_clean(body):
            body = reply.body
    headers = {_line(k): _line(v) for k, v in (reply.headers or {}).items()}
    if request_id:
        headers.setdefault("x-request-id", request_id)
    return context.Response(headers=headers, body=body, content_type=_line(content_type), status_code=int(reply.status))


def _is_clean(text: str) -> bool:
    """Whether a text can be written as UTF-8 again."""
    return text.isascii() or not any("\udc80" <= c <= "\udcff" for c in text)


def _line(value: Any) -> str:
    """A header's name or value on one line."""
    return str(value).replace("\r", " ").replace("\n", " ")
