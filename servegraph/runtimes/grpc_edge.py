"""The gRPC edge: a table of methods, from bytes to bytes, behind a grpcio server.

Methods know nothing of grpcio, and grpcio nothing of their messages. A call runs like this: it is admitted or refused,
its message is read on a thread, a call slot is waited for, the method answers, and what it raises becomes a status.
Beside the methods the server has health checks and reflection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from servegraph.errors import (
    DeadlineError,
    OverloadedError,
    ServegraphError,
    SettingsError,
    StepError,
    clipped,
    closest,
    from_users_line,
)
from servegraph.graph.permits import Permits
from servegraph.graph.threads import ThreadPool
from servegraph.importing import import_extra
from servegraph.runtimes.grpc_context import GrpcContext, ServicerContext
from servegraph.runtimes.grpc_leftovers import Leftovers, forget_frames
from servegraph.runtimes.grpc_services import Health, Reflection
from servegraph.runtimes.grpc_status import Failure, ToldFailure, failure_of
from servegraph.settings import ServerSettings

logger = logging.getLogger("servegraph.grpc")

GrpcMethod: TypeAlias = Callable[[bytes, GrpcContext], bytes]
"""From the bytes of a message to those of the answer; runs on a thread."""
GrpcObserver: TypeAlias = Callable[[GrpcContext, str, float], None]
"""Told of each call that was read: its context, the name of its status code, and how many seconds it took."""

_TICK_S: Final = 0.25
_POLL_S: Final = 0.02
_CUT_OFF_S: Final = 0.5
_SETTLE_S: Final = 0.05
_SPARE_THREADS: Final = 32
"""Threads beyond those that run methods: so many clients may be slow to send without holding up the others."""
_MOST_BYTES: Final = 2**31 - 1
"""The largest message that grpcio can be told of, and that protobuf has."""
_STREAMS: Final = 2000
"""Calls that one connection may have open: more than are taken at once, since calls that are over may still count."""


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """How a gRPC edge works."""

    threads: int = 8
    """How many methods run at once."""
    max_message_bytes: int = 4 * 1024**2
    """Largest message that is read."""
    max_concurrent: int = 1000
    """How many calls may run or wait; further ones are refused with RESOURCE_EXHAUSTED."""
    request_s: float | None = 30.0
    """How long a call may take at most; ``None`` leaves it to the caller alone."""
    body_timeout_s: float = 30.0
    """Seconds a caller has to send its message; then the call is cancelled."""
    keepalive_s: float = 60.0
    """Seconds without traffic after which a connection is tested."""
    max_connection_age_s: float = 600.0
    """Seconds after which a client is asked to connect anew, so that connections spread over the workers again."""
    tls_certificate: Path | None = None
    """File with the certificate chain (PEM); without one the server speaks plain text."""
    tls_key: Path | None = None
    """File with the private key (PEM) of the certificate."""

    @classmethod
    def of(cls, settings: ServerSettings) -> GrpcOptions:
        """The options that the settings of a server ask for."""
        grpc = settings.grpc
        return cls(
            threads=grpc.threads,
            max_message_bytes=grpc.max_message_bytes,
            max_concurrent=grpc.max_concurrent,
            request_s=settings.timeouts.request_s,
            body_timeout_s=settings.limits.body_timeout_s,
        )

    def channel_arguments(self) -> list[tuple[str, int]]:
        """What grpcio's server is given."""
        return [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", min(self.max_message_bytes, _MOST_BYTES)),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_connection_age_ms", int(self.max_connection_age_s * 1000)),
        ]


class GrpcEdge:
    """Serves a table of gRPC methods, with health checks and reflection; an `Edge`.

    Args:
        methods: what answers each method, by its full name: ``/package.Service/Method``.
        options: how the edge works.
        ready: whether the application can answer, for health checks; called from several threads.
        observe: told of each call, for metrics and logs.

    Raises:
        MissingExtraError: grpcio or one of its companions is not installed.
        ServegraphError: a method's name is not of that form.
        SettingsError: there is a certificate without its key, or a key without its certificate.
    """

    def __init__(
        self,
        methods: Mapping[str, GrpcMethod],
        options: GrpcOptions | None = None,
        *,
        ready: Callable[[], bool] = lambda: True,
        observe: GrpcObserver | None = None,
    ) -> None:
        self._grpc = import_extra("grpc", feature="gRPC", extra="grpc")
        self._options = options or GrpcOptions()
        if (self._options.tls_certificate is None) is not (self._options.tls_key is None):
            raise SettingsError("TLS for gRPC needs both a certificate and its key")
        self._observe = observe
        self._services = sorted({_service(name) for name in methods})
        self._health = Health(self._services, ready, self._first)
        self._reflection = Reflection(self._services)
        handler = self._grpc.stream_unary_rpc_method_handler
        self._own = {**self._health.handlers(), **self._reflection.handlers()}
        self._methods = {name: handler(self._behaviour(name, method)) for name, method in methods.items()}
        self._threads = _CallThreads(self._options.threads + _SPARE_THREADS)
        self._slots = Permits(self._options.threads)
        self._reading: dict[ServicerContext, float] = {}
        self._running: dict[GrpcContext, None] = {}
        self._leftovers = Leftovers()
        self._answers_may_leave = threading.Event()
        self._answers_may_leave.set()
        self._open = 0
        self._lock = threading.Lock()
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop
        self._ticking: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self, sock: socket.socket) -> None:
        """Take calls at the address that a socket reserves.

        Raises:
            SettingsError: grpcio cannot listen there, or a file of the certificate cannot be read.
        """
        self._loop = asyncio.get_running_loop()
        host, port = sock.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        server = self._grpc.server(self._threads, handlers=(self,), options=self._options.channel_arguments())
        try:
            bound = self._add_port(server, address)
        except RuntimeError as exc:
            raise SettingsError(f"gRPC cannot listen on {address}: {exc}") from exc
        if bound != port:
            raise SettingsError(f"gRPC cannot listen on {address}")
        self._threads.start()
        server.start()
        self._server = server
        self._ticking = asyncio.create_task(self._tick(), name="grpc")

    def _add_port(self, server: Any, address: str) -> int:
        options = self._options
        if options.tls_certificate is None or options.tls_key is None:
            return int(server.add_insecure_port(address))
        try:
            pair = (options.tls_key.read_bytes(), options.tls_certificate.read_bytes())
        except OSError as exc:
            raise SettingsError(f"cannot read the certificate of the gRPC edge: {exc}") from exc
        return int(server.add_secure_port(address, self._grpc.ssl_server_credentials([pair])))

    def begin_drain(self) -> None:
        """Have health checks answer NOT_SERVING from now on."""
        self._health.begin_drain()

    async def stop(self, grace_s: float) -> bool:
        """Take no more calls and finish those that there are; whether none had to be cut off."""
        clean = True
        server, self._server = self._server, None
        if server is not None and self._ticking is not None:
            self.begin_drain()
            deadline = self._loop.time() + grace_s
            stopped = await self._close(server, grace_s)
            await self._until(lambda: not self.in_flight(), deadline)
            clean = not self.in_flight()
            for context in list(self._running):
                logger.error("cut off at the end of the drain: %s %s", context.method, context.request_id)
            last = self._loop.time() + _CUT_OFF_S
            await self._until(self._health.has_told, last)
            server.stop(0)  # what is open still only watches the health
            await self._until(stopped.is_set, last)
            self._ticking.cancel()
        self._threads.close()
        self._health.close()
        self._reflection.close()
        return clean

    async def _close(self, server: Any, grace_s: float) -> threading.Event:
        """Have grpcio take no more calls; the event is set when it has none.

        From that moment on it cancels calls that are still on their way. So answers wait for a moment: a client that
        waits for one sends no call, and is told to go elsewhere before it gets it.
        """
        pause = min(_SETTLE_S, grace_s / 4)
        self._answers_may_leave.clear()
        try:
            await asyncio.sleep(pause)
            stopped: threading.Event = server.stop(grace_s)
            await asyncio.sleep(pause)
        finally:
            self._answers_may_leave.set()
        return stopped

    async def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition() and self._loop.time() < deadline:
            await asyncio.sleep(_POLL_S)

    def in_flight(self) -> int:
        """How many calls are being worked on, those included whose answer is still on its way."""
        return max(self._threads.admitted, self._open)

    def stuck_calls(self, grace_s: float) -> int:
        """How many methods still run this long after the deadline of their call."""
        limit = time.monotonic() - grace_s
        return sum(context.deadline is not None and context.deadline < limit for context in list(self._running))

    async def _tick(self) -> None:
        """Four times a second: tell of changed health, end calls whose message does not come, forget what is over."""
        while True:
            self._health.refresh()
            self._leftovers.sweep(self._open)
            limit = time.monotonic() - self._options.body_timeout_s
            for servicer, since in list(self._reading.items()):
                if since < limit:
                    servicer.cancel()
            await asyncio.sleep(_TICK_S)

    # -- calls ------------------------------------------------------------------------------------------------------

    def service(self, details: Any) -> Any:
        """The handler of a call, by the full name of its method; grpcio asks for it."""
        name = details.method
        handler = self._methods.get(name)
        if handler is None:
            return self._own.get(name) or self._health.refusal(self._unknown(name))
        if self._threads.admitted >= self._options.max_concurrent:
            busy = OverloadedError("the server has as many calls in flight as it takes")
            return self._health.refusal(failure_of(busy))
        return handler

    def _unknown(self, name: str) -> Failure:
        details = f"there is no method {clipped(name)!r}; {closest(name, self._methods)}"
        return Failure("UNIMPLEMENTED", details[:1000], "UNIMPLEMENTED", is_fault=False)

    def _behaviour(self, name: str, method: GrpcMethod) -> Callable[[Iterator[bytes], ServicerContext], bytes]:
        def answer(requests: Iterator[bytes], servicer: ServicerContext) -> bytes:
            self._count_open(servicer)
            request = self._first(requests, servicer)
            start = time.perf_counter()
            context = GrpcContext(name, servicer, self._loop, self._options.request_s)
            self._leftovers.add(context)
            failure: Failure | None = None
            reply = b""
            try:
                reply = self._call(method, request, context)
            except BaseException as exc:  # noqa: BLE001 - a call that nobody answers would keep its caller waiting
                failure = failure_of(exc)
                if failure.is_fault:
                    _log(context, exc)
                forget_frames(exc)
            self._leftovers.sweep(self._open)
            self._tell(context, "OK" if failure is None else failure.code, time.perf_counter() - start)
            if not self._answers_may_leave.is_set():
                self._answers_may_leave.wait(_CUT_OFF_S)
            if failure is not None:
                servicer.set_trailing_metadata((*context.trailing(), *failure.trailing()))
                servicer.abort(self._grpc.StatusCode[failure.code], failure.details)
            servicer.set_trailing_metadata(context.trailing())
            return reply

        return answer

    def _call(self, method: GrpcMethod, request: bytes, context: GrpcContext) -> bytes:
        if not self._slots.acquire(context.time_remaining()):
            raise DeadlineError(f"{context.method} had to wait for other calls until its time was up")
        self._running[context] = None
        try:
            context.check()
            reply = method(request, context)
        finally:
            del self._running[context]
            self._slots.release()
        if not isinstance(reply, bytes):
            raise TypeError(f"the method {context.method} gave {type(reply).__name__} instead of bytes")
        return reply

    def _tell(self, context: GrpcContext, code: str, seconds: float) -> None:
        if self._observe is None:
            return
        try:
            self._observe(context, code, seconds)
        except Exception:
            logger.exception("the observer of gRPC calls failed")

    def _first(self, requests: Iterator[bytes], servicer: ServicerContext) -> bytes:
        """The message of a call that has one; grpcio's own error when its caller goes away or sends too much."""
        self._reading[servicer] = time.monotonic()
        try:
            for request in requests:
                return request
        finally:
            del self._reading[servicer]
        servicer.abort(self._grpc.StatusCode.INVALID_ARGUMENT, "the call has no message; this method takes one")
        raise AssertionError("abort raises")

    def _count_open(self, servicer: ServicerContext) -> None:
        """Count a call until its answer has left, which is after its thread is free again."""
        with self._lock:
            self._open += 1
        if not servicer.add_callback(self._has_ended):
            self._has_ended()

    def _has_ended(self) -> None:
        with self._lock:
            self._open -= 1


class _CallThreads:
    """The threads of the calls, and how many calls they have; what grpcio uses of a `concurrent.futures` executor."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPool(threads, "servegraph-grpc")
        self._lock = threading.Lock()
        self.admitted = 0
        """Calls that run or wait."""

    def start(self) -> None:
        """Have a thread from now on: grpcio serves no more once a call has found none."""
        self._pool.submit(int)

    def submit(self, function: Callable[..., Any], *args: Any) -> _Call:
        """Run a call on a thread."""
        call = _Call(function, args, self._has_left)
        with self._lock:
            self.admitted += 1
        try:
            self._pool.put(call)
        except RuntimeError:
            self._has_left(call)
            raise
        return call

    def _has_left(self, call: _Call) -> None:
        with self._lock:
            self.admitted -= 1

    def close(self) -> None:
        """Take no more calls; those that run are not waited for."""
        self._pool.close()


class _Call:
    """A call of grpcio's on its way through the threads, with what grpcio uses of a future."""

    __slots__ = ("_args", "_callbacks", "_function", "_is_over")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], callback: Callable[[_Call], None]) -> None:
        self._function = function
        self._args = args
        self._callbacks: deque[Callable[[_Call], object]] = deque((callback,))
        self._is_over = False

    def run(self) -> None:
        try:
            self._function(*self._args)
        except BaseException:
            logger.exception("a gRPC call has failed outside of its method")
        finally:
            self.cancel()

    def cancel(self) -> None:
        self._is_over = True
        self._call_back()

    def add_done_callback(self, callback: Callable[[_Call], object]) -> None:
        """Call something once the call has left its thread."""
        self._callbacks.append(callback)
        if self._is_over:
            self._call_back()

    def _call_back(self) -> None:
        # Each is taken by one thread only, also where two are here at the same time.
        while True:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            callback(self)


def _log(context: GrpcContext, exc: BaseException) -> None:
    if isinstance(exc, DeadlineError):  # no place in the code is to blame
        logger.warning("gRPC call %s %s: %s", context.method, context.request_id, exc)
        return
    cause = exc.__cause__ if isinstance(exc, (StepError, ToldFailure)) and exc.__cause__ is not None else exc
    logger.error("gRPC call %s %s failed", context.method, context.request_id, exc_info=from_users_line(cause))


def _service(method: str) -> str:
    slash, service, name = ([*method.split("/"), "", ""])[:3]
    if slash or not service or not name or method.count("/") != 2:
        raise ServegraphError(f"{method!r} is no name of a gRPC method: write '/package.Service/Method'")
    return service
