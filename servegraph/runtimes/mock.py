"""`MockServer`: a function in this process, for notebooks and tests."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from servegraph.errors import GraphError, RequestFailedError, ServegraphError
from servegraph.graph.engine import NoResult, Outcome
from servegraph.graph.events import Event, Response, Trigger
from servegraph.runtimes.server import GraphServer


class MockServer(GraphServer):
    """Runs a function's graph in this process; made by `ServingFunction.to_mock_server`.

    A graph that never has to wait runs by a plain call in the caller's thread, so that debuggers, prints and
    tracebacks are where one expects them. Any other graph runs on an event loop in a thread of the server's own;
    that works inside a notebook's running loop, and never keeps the interpreter from ending.

    Use it as a context manager, or call `close`.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _closed = False
    _starting = threading.Lock()

    def test(
        self,
        path: str = "/",
        body: Any = None,
        method: str = "",
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        silent: bool = False,
        get_body: bool = True,
        event_id: str | None = None,
        trigger: Trigger | None = None,
        offset: int | None = None,
        time: datetime | None = None,
    ) -> Any:
        """Send one request and return the answer's body, as a Python value.

        Args:
            path: the request's path.
            body: the request's body; Python values go in as they are, text and bytes are read as JSON.
            method: POST where there is a body and GET where there is none, unless given.
            headers: the request's header fields.
            content_type: the body's media type.
            silent: return the `Response` of a failed request instead of raising.
            get_body: return the answer's body; ``False`` returns a `Response` with status and headers.
            event_id: the request's id; drawn at random when not given.
            trigger: what brought the event in.
            offset: the event's position in its stream.
            time: when the event happened.

        Raises:
            RequestFailedError: the status is 300 or above; the exception from user code is its cause.
        """
        event = Event(
            body,
            content_type,
            headers,
            method or ("GET" if body is None else "POST"),
            path,
            event_id,
            trigger,
            offset or 0,
            time,
        )
        return self.run(event, get_body=get_body, silent=silent)

    def run(self, event: Event, get_body: bool = False, silent: bool = False) -> Any:
        """Run one event; its answer's body, or a `Response` where ``get_body`` is false."""
        if self._closed:
            raise GraphError("the mock server is closed: make another one with to_mock_server()")
        try:
            if self.plan.plain and event.deadline is None:
                outcome = self.data_plane.run_plain(event)
            else:
                outcome = self._on_loop(self.data_plane.run_in_loop(event))
        except ServegraphError as exc:
            reply = self.data_plane.failure(exc, event, log=silent)
            if silent:
                return Response(dict(reply.headers or {}), reply.value, reply.content_type, reply.status)
            # Where in our own code it passed is no help to who looks for the fault in theirs.
            failure = exc.with_traceback(None) if exc.__cause__ is not None else exc
            raise RequestFailedError(reply.status, reply.value, f"failed ({reply.status}): {exc}") from failure
        return self._answer(outcome, get_body, silent)

    async def run_async(self, event: Event) -> Any:
        """Run one event on the running event loop; its answer's body. Raises what the graph raises."""
        outcome = await self.data_plane.run_in_loop(event)
        if isinstance(outcome, NoResult):
            return None
        value = outcome.body
        return value.body if isinstance(value, Response) else value

    def wait_for_completion(self) -> None:
        """Wait until work behind answers has ended and what was recorded is written. For every topology."""
        if self._loop is not None:
            self._on_loop(self.data_plane.engine.wait_for_background())
        self.flush()

    def set_error_stream(self, uri: str) -> None:
        """Send the records of failed steps to this stream from now on."""
        from servegraph.runtimes.outputs import ErrorSink

        sink = ErrorSink(uri)
        self.context.error_sink = sink.put
        self._closers.append(sink.close)

    def close(self) -> None:
        """Wait for what is under way, write what was recorded, and release everything."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            loop = self._loop
            self._on_loop(self.adrain())
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(5.0)
            if not loop.is_running():
                loop.close()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, outcome: Outcome, get_body: bool, silent: bool) -> Any:
        if isinstance(outcome, NoResult):
            return None if get_body else Response({"x-no-result": outcome.reason}, None, None, 204)
        value = outcome.body
        if value.__class__ is not Response:
            return value if get_body else Response(None, value, None, 200)
        if value.status_code >= 300 and not silent:
            raise RequestFailedError(value.status_code, value.body)
        return value.body if get_body and not silent else value

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine on the server's own event loop."""
        try:
            loop = self._own_loop()
        except BaseException:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except (KeyboardInterrupt, concurrent.futures.CancelledError):
            future.cancel()
            raise

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="servegraph-mock", daemon=True)
                self._thread.start()
                self._started = asyncio.run_coroutine_threadsafe(self.astart(), loop)
                self._loop = loop
        self._started.result()  # whoever comes first, all wait for it
        return self._loop
