"""`serve`: a function over HTTP from this process, in a script or behind a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from servegraph.errors import ServegraphError, SettingsError
from servegraph.runtimes.asgi_server import AsgiServer
from servegraph.runtimes.banner import describe
from servegraph.runtimes.edges import Edges
from servegraph.runtimes.listening import HTTP, Listen, Listeners, listeners_for
from servegraph.runtimes.local import LocalApplication, make_application
from servegraph.runtimes.source import being_loaded
from servegraph.runtimes.worker_protocol import edges_of
from servegraph.settings import ServerSettings, load_settings

if TYPE_CHECKING:
    from servegraph.runtimes.function import ServingFunction

_START_S = 10.0


class RunningServer:
    """A function that is being served from a thread of this process; stops with ``stop()`` or its ``with`` block."""

    def __init__(
        self, function: ServingFunction, settings: ServerSettings, caller: Mapping[str, Any] | None = None
    ) -> None:
        self.function = function
        self.settings = settings
        self._listeners = Listeners({HTTP: Listen(settings.host, settings.http_port)})
        self._listeners.open()
        host, port = self._listeners.address(HTTP)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - for a URL that works here
        self.url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        try:
            self.application: LocalApplication = make_application(function, settings, function.namespaces(None, caller))
            edges = edges_of(self.application)
            further = listeners_for(settings, edges)
            self._edges = Edges(edges, further)
            self._listeners.open(further)
        except BaseException:
            self._listeners.close()
            raise
        self.addresses: dict[str, tuple[str, int]] = self._listeners.addresses()
        """Address and port of each listener: ``http``, and ``grpc`` and ``metrics`` where there are such."""
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="servegraph-server", daemon=True)

    def start(self) -> Self:
        """Load the models and answer requests; returns when the server is ready for them.

        Raises:
            ModelLoadError: a model could not be loaded.
        """
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        self.function.url = self.url
        return self

    def wait(self) -> None:
        """Serve until the server is stopped."""
        self._thread.join()

    def stop(self) -> None:
        """Finish what is being answered, write what was recorded, and stop."""
        if self.function.url == self.url:
            self.function.url = None
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.ident is not None:
            self._thread.join(self.settings.timeouts.drain_timeout_s + _START_S)
        if self._thread.is_alive():
            raise ServegraphError("the server did not stop in time: a request is still being answered")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<servegraph {self.function.name} at {self.url}>"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits for the start
            self._failure = exc
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        application = self.application
        server = AsgiServer(application, self.settings.limits)
        try:
            await application.startup()
            await server.listen(self._listeners.take(HTTP))
            await self._edges.start({name: self._listeners.take(name) for name in self.addresses if name != HTTP})
        except BaseException:
            server.stop_accepting()
            await self._edges.stop(0.0)
            self._listeners.close()
            await application.aclose()
            raise
        self._ready.set()
        tick = asyncio.ensure_future(self._tick(server))
        await self._stopping.wait()
        application.begin_drain()
        self._edges.begin_drain()
        server.stop_accepting()
        grace_s = self.settings.timeouts.drain_timeout_s
        stopped = asyncio.ensure_future(self._edges.stop(grace_s))
        if not await server.finish(grace_s):
            application.server.data_plane.engine.cancel_background()
        await stopped
        tick.cancel()
        await application.aclose()

    @staticmethod
    async def _tick(server: AsgiServer) -> None:
        while True:
            await server.tick()
            await asyncio.sleep(1.0)


def serve(function: ServingFunction, caller: Mapping[str, Any], settings: Mapping[str, Any], block: bool | None) -> Any:
    """Serve a function from this process; see `ServingFunction.serve`."""
    loading = being_loaded()
    if loading is not None:
        raise ServegraphError(
            f"{loading} calls fn.serve() while it is being loaded: the command serves the function itself; put the "
            "call under  if __name__ == '__main__':"
        )
    resolved = load_settings(overrides=settings, function=function.spec.settings)
    if resolved.workers > 1:
        raise SettingsError(
            "fn.serve() serves from this process with one worker; for several, put the function into a file and run "
            f"'servegraph serve FILE.py --workers {resolved.workers}'"
        )
    server = RunningServer(function, resolved, caller).start()
    if block is None:
        block = not _in_notebook()
    if not block:
        return server
    sys.stderr.write(describe(server.application.server, server.url))
    sys.stderr.flush()
    with _terminating():
        try:
            server.wait()
        except KeyboardInterrupt:
            server.stop()
    return None


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM is as Ctrl-C meanwhile: what is being answered is finished, and what was recorded is written."""
    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_notebook() -> bool:
    """Whether this code runs in an interactive session, where blocking would be no help."""
    return "ipykernel" in sys.modules or hasattr(sys, "ps1")
