"""The application of `supervised_app` with further edges: gRPC methods and a second HTTP port."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from google.protobuf import descriptor_pb2, descriptor_pool
from supervised_app import TinyApplication
from supervised_app import build as build_tiny

from servegraph.errors import NotFoundError
from servegraph.runtimes.edges import AsgiEdge
from servegraph.runtimes.grpc_context import GrpcContext
from servegraph.runtimes.grpc_edge import GrpcEdge, GrpcMethod, GrpcOptions
from servegraph.runtimes.worker_protocol import Edge, Receive, Scope, Send, Target, WorkerInfo
from servegraph.settings import ServerSettings


class EdgedApplication(TinyApplication):
    edges: Mapping[str, Edge]


def echo(request: bytes, context: GrpcContext) -> bytes:
    return request


def who(request: bytes, context: GrpcContext) -> bytes:
    return str(os.getpid()).encode()


def sleep(request: bytes, context: GrpcContext) -> bytes:
    time.sleep(float(request))
    return b"slept"


def hang(request: bytes, context: GrpcContext) -> bytes:
    threading.Event().wait()
    return b""


def fail(request: bytes, context: GrpcContext) -> bytes:
    raise NotFoundError(f"there is no {request.decode()}")


METHODS: Mapping[str, GrpcMethod] = {
    "/test.Echo/Echo": echo,
    "/test.Echo/Who": who,
    "/test.Echo/Sleep": sleep,
    "/test.Echo/Hang": hang,
    "/test.Other/Fail": fail,
}


def add_descriptors() -> None:
    """Put a file with the service ``test.Echo`` into protobuf's default pool, for reflection."""
    file = descriptor_pb2.FileDescriptorProto(name="servegraph_test_echo.proto", package="test", syntax="proto3")
    file.message_type.add(name="Text").field.add(name="text", number=1, type=9, label=1)
    service = file.service.add(name="Echo")
    service.method.add(name="Echo", input_type=".test.Text", output_type=".test.Text")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


async def show_metrics(scope: Scope, receive: Receive, send: Send) -> None:
    body = f"worker {os.getpid()}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def build(target: Target, settings: ServerSettings, info: WorkerInfo) -> EdgedApplication:
    tiny = build_tiny(target, settings, info)
    application = EdgedApplication(tiny.target, info)
    add_descriptors()
    options = GrpcOptions.of(settings)
    application.edges = {
        "grpc": GrpcEdge(METHODS, options, ready=lambda: application.ready),
        "metrics": AsgiEdge(show_metrics, settings.limits),
    }
    return application
