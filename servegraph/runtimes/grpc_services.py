"""The services of gRPC itself that the edge offers: health (``grpc.health.v1``) and reflection.

They have threads of their own, so that they answer while all others work, and whatever the server refuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from servegraph.errors import clipped, closest
from servegraph.importing import import_extra
from servegraph.runtimes.grpc_context import ServicerContext
from servegraph.runtimes.grpc_status import Failure

FirstMessage: TypeAlias = Callable[[Iterator[bytes], ServicerContext], bytes]
"""The message of a call that has one; raises when it does not come."""

_HEALTH: Final = "grpc.health.v1.Health"
_REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection"
_HEALTH_THREADS: Final = 4
_REFLECTION_THREADS: Final = 2


def on_threads(pool: ThreadPoolExecutor, behaviour: Any, *, sends_later: bool = False) -> Any:
    """A method's code, marked for grpcio to run it on these threads instead of those of the calls.

    Args:
        pool: the threads.
        behaviour: the code.
        sends_later: whether the code returns at once and sends its messages when there are any.
    """
    behaviour.experimental_thread_pool = pool
    behaviour.experimental_non_blocking = sends_later
    return behaviour


class Health:
    """Tells clients whether the server serves: once for ``Check``, at each change for ``Watch``.

    Args:
        services: names of the services that are asked for; the empty name is the server as a whole.
        ready: whether the application can answer; called from several threads.
        first: reads the message of a call.
    """

    def __init__(self, services: Iterable[str], ready: Callable[[], bool], first: FirstMessage) -> None:
        self._grpc = import_extra("grpc", feature="gRPC", extra="grpc")
        module = import_extra("grpc_health.v1.health", feature="gRPC health checks", extra="grpc")
        self._pb2 = import_extra("grpc_health.v1.health_pb2", feature="gRPC health checks", extra="grpc")
        self._servicer: Any = module.HealthServicer()
        self._services = ["", *services]
        self._ready = ready
        self._first = first
        self._lock = threading.Lock()
        self._told: Any = None
        self._telling: Future[None] | None = None
        self._draining = False
        self._pool = ThreadPoolExecutor(_HEALTH_THREADS, "servegraph-grpc-health")
        self._tell()

    def refresh(self) -> None:
        """Have those that watch told when the server has become ready, or is so no more."""
        # On a thread, because a client that takes no messages would hold up the event loop.
        if self.has_told():
            self._telling = self._pool.submit(self._tell)

    def begin_drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._draining = True
        self._telling = self._pool.submit(self._tell)

    def has_told(self) -> bool:
        """Whether those that watch have been told the last change."""
        return self._telling is None or self._telling.done()

    def _status(self) -> Any:
        statuses = self._pb2.HealthCheckResponse
        return statuses.SERVING if self._ready() and not self._draining else statuses.NOT_SERVING

    def _tell(self) -> None:
        with self._lock:
            status = self._status()
            if status == self._told:
                return
            self._told = status
            for service in self._services:
                self._servicer.set(service, status)

    def close(self) -> None:
        """Give back the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def refusal(self, failure: Failure) -> Any:
        """A handler that refuses a call without reading its message."""

        def refuse(requests: Iterator[bytes], servicer: ServicerContext) -> bytes:
            servicer.set_trailing_metadata(failure.trailing())
            servicer.abort(self._grpc.StatusCode[failure.code], failure.details)
            raise AssertionError("abort raises")

        return self._grpc.stream_unary_rpc_method_handler(on_threads(self._pool, refuse))

    def handlers(self) -> dict[str, Any]:
        """The handlers for grpcio, by full method name."""
        request = self._pb2.HealthCheckRequest.FromString
        response = self._pb2.HealthCheckResponse.SerializeToString

        # Both as if many messages could come: only so can a client be cut off that never sends one.
        def check(requests: Iterator[bytes], servicer: ServicerContext) -> Any:
            service = request(self._first(requests, servicer)).service
            if service not in self._services:
                message = f"there is no service {clipped(service)!r}; {closest(service, self._services)}"
                servicer.abort(self._grpc.StatusCode.NOT_FOUND, message)
            return self._pb2.HealthCheckResponse(status=self._status())

        def watch(requests: Iterator[bytes], servicer: ServicerContext, send: Any) -> None:
            asked = request(self._first(requests, servicer))
            self._tell()
            self._servicer.Watch(asked, servicer, send)

        return {
            f"/{_HEALTH}/Check": self._grpc.stream_unary_rpc_method_handler(
                on_threads(self._pool, check), response_serializer=response
            ),
            f"/{_HEALTH}/Watch": self._grpc.stream_stream_rpc_method_handler(
                on_threads(self._pool, watch, sends_later=True), response_serializer=response
            ),
        }


class Reflection:
    """Tells clients such as ``grpcurl`` which services there are and what their messages look like.

    Args:
        services: names of the services; their files are looked up in protobuf's default pool.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._grpc = import_extra("grpc", feature="gRPC", extra="grpc")
        module = import_extra("grpc_reflection.v1alpha.reflection", feature="gRPC reflection", extra="grpc")
        self._pb2 = import_extra("grpc_reflection.v1alpha.reflection_pb2", feature="gRPC reflection", extra="grpc")
        self._servicer: Any = module.ReflectionServicer([*services, _HEALTH, _REFLECTION])
        self._pool = ThreadPoolExecutor(_REFLECTION_THREADS, "servegraph-grpc-reflection")

    def close(self) -> None:
        """Give back the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def handlers(self) -> dict[str, Any]:
        """The handlers for grpcio, by full method name."""

        def info(requests: Iterator[Any], servicer: ServicerContext) -> Iterator[Any]:
            answers: Iterator[Any] = self._servicer.ServerReflectionInfo(requests, servicer)
            return answers

        return {
            f"/{_REFLECTION}/ServerReflectionInfo": self._grpc.stream_stream_rpc_method_handler(
                on_threads(self._pool, info),
                request_deserializer=self._pb2.ServerReflectionRequest.FromString,
                response_serializer=self._pb2.ServerReflectionResponse.SerializeToString,
            )
        }
