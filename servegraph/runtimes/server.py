"""`GraphServer`: a function made ready to run: its graph compiled, its models loaded, its streams open.

Every runtime runs the same object: the mock server and the batch runner in this process, the local server in each
worker, the Nuclio handler in each of its processes.
"""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from servegraph.errors import GraphError, ModelNotReadyError
from servegraph.graph.calls import InlineLimits, Offloader
from servegraph.graph.compile import Compiler
from servegraph.graph.context import GraphContext, Observer
from servegraph.graph.resolve import Namespace, accepts, resolve_callable, takes_any
from servegraph.runtimes.outputs import ErrorSink, QueueWriter
from servegraph.serving.dataplane import DataPlane, DataPlaneOptions
from servegraph.serving.v2 import V2ModelServer

if TYPE_CHECKING:
    from servegraph.runtimes.function import ServingFunction

logger = logging.getLogger("servegraph")


class GraphServer:
    """A function ready to run. Made by `ServingFunction`'s runtimes; `load` before the first event, `close` at the end.

    Args:
        function: the function; it is read, not changed.
        namespaces: where class and function names are looked up before they are imported.
        context: what user code is handed.
        options: how requests are read and answers written.
        threads: how many threads run synchronous steps.
        limits: when synchronous code may run on the event loop.
        observer: told of each model's operations; for metrics.
        track: whether predictions are recorded, when the function asks for it.
    """

    def __init__(
        self,
        function: ServingFunction,
        namespaces: Sequence[Namespace],
        context: GraphContext,
        *,
        options: DataPlaneOptions | None = None,
        threads: int = 8,
        limits: InlineLimits | None = None,
        observer: Observer | None = None,
        track: bool = True,
    ) -> None:
        spec = function.spec
        if spec.graph is None:
            raise GraphError(f"function {function.name!r} has no graph: call set_topology(...) or add_model(...)")
        self.function = function
        self.context = context
        self.graph = graph_copy(spec.graph)
        self.offloader = Offloader(threads)
        self._closers: list[Callable[[], None]] = [self.offloader.close]
        context.server = self
        context.root = self.graph
        context.load_mode = spec.load_mode or "sync"
        if spec.load_timeout_s is not None:
            context.load_timeout_s = spec.load_timeout_s
        context.observer = observer
        context.stream.hostname = socket.gethostname()
        context.stream_opener = QueueWriter
        if spec.error_stream:
            sink = ErrorSink(spec.error_stream)
            context.error_sink = sink.put
            self._closers.append(sink.close)
        if track and spec.tracking is not None and spec.tracking.enabled:
            self._track(function)
        self._initialise(namespaces)
        self.plan = Compiler(self.graph, context, namespaces, limits).compile()
        direct = self.plan.direct
        plane: type[DataPlane] = DataPlane if direct is None else getattr(direct.target, "data_plane", DataPlane)
        self.data_plane = plane(self.plan, context, self.offloader, options)
        self.models = {k: v for k, v in self.plan.objects.items() if isinstance(v, V2ModelServer)}

    def _track(self, function: ServingFunction) -> None:
        from servegraph.monitoring.tracking import TrackingRecorder

        assert function.spec.tracking is not None
        recorder = TrackingRecorder(function.spec.tracking, self.context)
        self.context.recorder = recorder
        self.context.stream.enabled = True
        self.context.stream.stream_uri = recorder.uri
        self._closers.append(recorder.close)
        self.recorder: Any = recorder

    recorder: Any = None
    """The tracking recorder, when predictions are recorded."""
    loaded = False
    """Whether `load` has ended."""

    def _initialise(self, namespaces: Sequence[Namespace]) -> None:
        initializer = self.function.spec.graph_initializer
        if initializer is not None:
            resolve_callable(initializer, namespaces)(self)

    # -- life -------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the models: before this returns (``load_mode`` sync), or behind it (async).

        Raises:
            ModelLoadError: a model could not be loaded (sync only).
        """
        # Routers last: their routes are loaded by then.
        ordered = sorted(self.plan.objects.items(), key=lambda item: hasattr(item[1], "routes"))
        for _, target in ordered:
            post_init = getattr(target, "post_init", None)
            if callable(post_init):
                post_init(**({"mode": "sync"} if accepts(post_init, "mode") or takes_any(post_init) else {}))
        self.loaded = True

    @property
    def ready(self) -> bool:
        """Whether every model is loaded."""
        return all(m.ready for m in self.models.values())

    def not_ready(self) -> list[str]:
        """The models that are not loaded."""
        return [k for k, m in self.models.items() if not m.ready]

    def check_ready(self) -> None:
        """Raise `ModelNotReadyError` when a model is not loaded."""
        waiting = self.not_ready()
        if waiting:
            raise ModelNotReadyError(f"not ready: {', '.join(waiting)}")

    async def astart(self) -> None:
        """Prepare what belongs to the running event loop."""
        for target in self.plan.objects.values():
            start = getattr(target, "astart", None)
            if start is not None and inspect.iscoroutinefunction(start):
                await start()

    async def adrain(self) -> None:
        """Wait for work that goes on behind answers, then release what belongs to the running event loop."""
        await self.data_plane.engine.wait_for_background()
        for target in self.plan.objects.values():
            stop = getattr(target, "aclose", None)
            if stop is not None and inspect.iscoroutinefunction(stop):
                await stop()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until what was recorded so far is in its stream; whether it is."""
        return self.recorder is None or bool(self.recorder.flush(timeout_s))

    def close(self) -> None:
        """Close models, streams and threads; what was recorded is written first."""
        for target in _ours(self.plan.objects.values()):
            target.close()
        while self._closers:
            self._closers.pop()()


def graph_copy(graph: Any) -> Any:
    """A graph of its own for one server; the steps' code and arguments are shared."""
    import copy

    memo: dict[int, Any] = {}
    for step in _all_steps(graph):
        for value in (step.class_name, step.handler, *step.class_args.values()):
            memo[id(value)] = value
    return copy.deepcopy(graph, memo)


def _all_steps(graph: Any) -> Iterable[Any]:
    waiting = [graph] if hasattr(graph, "routes") else list(graph.steps.values())
    while waiting:
        step = waiting.pop()
        yield step
        waiting.extend(getattr(step, "routes", {}).values())


def _ours(objects: Iterable[Any]) -> Iterable[Any]:
    """The objects whose ``close`` takes nothing, and is meant for this."""
    for target in objects:
        close = getattr(target, "close", None)
        if callable(close) and not inspect.iscoroutinefunction(close) and not inspect.signature(close).parameters:
            yield target
