from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from edged_app import METHODS, add_descriptors, echo
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from supervised_server import wait_until

from servegraph.errors import MissingExtraError, OverloadedError, ServegraphError, SettingsError, StepError
from servegraph.runtimes.grpc_context import GrpcContext
from servegraph.runtimes.grpc_edge import GrpcEdge, GrpcMethod, GrpcOptions
from servegraph.runtimes.listening import Listen, Listeners
from servegraph.settings import load_settings

CODE = grpc.StatusCode
HEALTH = health_pb2.HealthCheckResponse


class Served:
    """An edge on a loop of its own, and a connection to it."""

    def __init__(
        self, methods: Mapping[str, GrpcMethod], options: GrpcOptions | None = None, host: str = "127.0.0.1", **kw: Any
    ) -> None:
        self.edge = GrpcEdge(methods, options, **kw)
        self.listeners = Listeners({"grpc": Listen(host, 0, reserve=True)})
        self.listeners.open()
        host, port = self.listeners.address("grpc")
        self.address = f"[{host}]:{port}" if ":" in host else f"{host.replace('0.0.0.0', '127.0.0.1')}:{port}"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.sock = self.listeners.take("grpc")
        self.run(self.edge.start(self.sock))
        self.channel = self.connect()

    def connect(self, options: tuple[tuple[str, Any], ...] = ()) -> grpc.Channel:
        return grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1), *options])

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def call(self, method: str, request: bytes = b"", timeout: float | None = 10.0, **kw: Any) -> bytes:
        answer: bytes = self.channel.unary_unary(method)(request, timeout=timeout, **kw)
        return answer

    def failure(self, method: str, request: bytes = b"", **kw: Any) -> Any:
        with pytest.raises(grpc.RpcError) as failed:
            self.call(method, request, **kw)
        return failed.value

    def health(self, service: str = "") -> int:
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        return int(HEALTH.FromString(check(health_pb2.HealthCheckRequest(service=service).SerializeToString())).status)

    def close(self, grace_s: float = 5.0) -> bool:
        return bool(self.run(self.edge.stop(grace_s)))

    def end(self) -> None:
        self.channel.close()
        self.sock.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@contextmanager
def serving(
    methods: Mapping[str, GrpcMethod] | GrpcMethod, options: GrpcOptions | None = None, **kw: Any
) -> Iterator[Served]:
    served = Served(methods if isinstance(methods, Mapping) else {"/s.S/M": methods}, options, **kw)
    try:
        yield served
        served.close()
    finally:
        served.end()


@pytest.fixture(scope="module")
def echoing() -> Iterator[Served]:
    add_descriptors()
    with serving(METHODS) as served:
        yield served


def raising(exc: BaseException) -> Callable[[bytes, GrpcContext], bytes]:
    def method(request: bytes, context: GrpcContext) -> bytes:
        raise exc

    return method


def is_refused(served: Served) -> bool:
    """Whether a new connection is not taken."""
    with served.connect() as late:
        code = late.unary_unary("/s.S/M").future(b"", timeout=1.0).exception().code()
    return bool(code is CODE.UNAVAILABLE)


class Gate:
    """A method that waits, and tells when calls are inside it."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, request: bytes, context: GrpcContext) -> bytes:
        self.inside.release()
        self.open.wait(20)
        return b"open"


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [b"", b"\x00\xff", b"x" * (4 * 1024**2 - 64)], ids=["empty", "bytes", "large"])
def test_call_gets_the_bytes_of_its_method(echoing: Served, message: bytes) -> None:
    assert echoing.call("/test.Echo/Echo", message) == message


def test_context_tells_metadata_deadline_peer_and_id() -> None:
    seen: list[GrpcContext] = []

    def method(request: bytes, context: GrpcContext) -> bytes:
        seen.append(context)
        context.set_trailing("colour", "red")
        context.set_trailing("shape-bin", b"\xff")
        return b""

    with serving(method) as served:
        sent = (("x-request-id", "r1"), ("user", "me"), ("data-bin", b"\x00\x01"))
        _, call = served.channel.unary_unary("/s.S/M").with_call(b"", timeout=5, metadata=sent)
        trailing = dict(call.trailing_metadata())
        served.call("/s.S/M", timeout=None, metadata=(("x-request-id", "x" * 200),))
    first, second = seen
    assert first.method == "/s.S/M"
    assert (first.metadata["user"], first.metadata["data-bin"]) == ("me", b"\x00\x01")
    assert first.peer.startswith("ipv4:127.0.0.1:")
    assert first.request_id == "r1"
    assert trailing == {"request-id": "r1", "colour": "red", "shape-bin": b"\xff"}
    assert first.deadline is not None
    remaining = first.time_remaining()
    assert remaining is not None
    assert 0 <= remaining <= 5
    assert second.deadline is not None  # the most that the options allow
    assert len(second.request_id) == 32


def test_context_without_any_deadline_has_none() -> None:
    seen: list[float | None] = []

    def method(request: bytes, context: GrpcContext) -> bytes:
        seen.append(context.time_remaining())
        return b""

    with serving(method, GrpcOptions(request_s=None)) as served:
        served.call("/s.S/M", timeout=None)
    assert seen == [None]


@pytest.mark.parametrize(
    ("key", "value"),
    [("Upper", "x"), ("", "x"), ("a", b"x"), ("a-bin", "x"), ("a", "é"), ("a", "x\n"), ("grpc-x", "x")],
)
def test_set_trailing_with_what_grpc_cannot_carry_is_refused(key: str, value: str | bytes) -> None:
    seen: list[BaseException] = []

    def method(request: bytes, context: GrpcContext) -> bytes:
        try:
            context.set_trailing(key, value)
        except ServegraphError as exc:
            seen.append(exc)
        return b""

    with serving(method) as served:
        served.call("/s.S/M")
    assert len(seen) == 1


def test_run_gives_the_result_of_a_coroutine_on_the_loop_of_the_edge() -> None:
    async def work() -> bytes:
        return threading.current_thread().name.encode()

    with serving(lambda request, context: context.run(work())) as served:
        assert served.call("/s.S/M") == served.thread.name.encode()


def test_run_is_cancelled_when_the_caller_is_gone() -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> bytes:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    with serving(lambda request, context: context.run(work())) as served:
        call = served.channel.unary_unary("/s.S/M").future(b"")
        assert started.wait(10)
        call.cancel()
        assert cancelled.wait(10)


def test_observer_is_told_of_each_call_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str]] = []

    def observe(context: GrpcContext, code: str, seconds: float) -> None:
        assert seconds >= 0
        seen.append((context.method, code))
        raise RuntimeError("observer")

    with serving(METHODS, observe=observe) as served:
        assert served.call("/test.Echo/Echo", b"x") == b"x"
        served.failure("/test.Other/Fail", b"y")
    assert seen == [("/test.Echo/Echo", "OK"), ("/test.Other/Fail", "NOT_FOUND")]
    assert caplog.text.count("the observer of gRPC calls failed") == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost"])
def test_edge_listens_at_any_kind_of_address(host: str) -> None:
    with serving(echo, host=host) as served:
        assert served.call("/s.S/M", b"x") == b"x"


# -- failures --------------------------------------------------------------------------------------------------------


def test_error_of_the_caller_is_answered_with_its_code_message_and_reason(echoing: Served) -> None:
    failed = echoing.failure("/test.Other/Fail", b"thing", metadata=(("x-request-id", "r2"),))
    assert (failed.code(), failed.details()) == (CODE.NOT_FOUND, "there is no thing")
    assert dict(failed.trailing_metadata()) == {"request-id": "r2", "reason": "NOT_FOUND"}


def test_fault_of_a_method_is_answered_with_its_type_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serving(raising(KeyError("secret"))) as served:
        failed = served.failure("/s.S/M", metadata=(("x-request-id", "r3"),))
    assert failed.code() is CODE.INTERNAL
    assert failed.details() == "KeyError; the server's log has the details"
    (record,) = caplog.records
    assert record.getMessage() == "gRPC call /s.S/M r3 failed"
    assert "KeyError: 'secret'" in caplog.text


@pytest.mark.parametrize("exc", [SystemExit(1), StopIteration(), GeneratorExit()], ids=repr)
@pytest.mark.usefixtures("caplog")
def test_method_that_raises_what_is_no_exception_is_still_answered(exc: BaseException) -> None:
    with serving(raising(exc)) as served:
        assert served.failure("/s.S/M").code() is CODE.INTERNAL


def test_method_that_gives_no_bytes_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    wrong: Any = "text"
    with serving(lambda request, context: wrong) as served:
        assert served.failure("/s.S/M").code() is CODE.INTERNAL
    assert "gave str instead of bytes" in caplog.text


def test_overload_told_by_a_method_says_when_to_come_again() -> None:
    with serving(raising(OverloadedError("full", retry_after=7))) as served:
        failed = served.failure("/s.S/M")
    assert failed.code() is CODE.RESOURCE_EXHAUSTED
    assert dict(failed.trailing_metadata())["retry-after"] == "7"


def test_step_error_is_logged_with_what_the_step_raised(caplog: pytest.LogCaptureFixture) -> None:
    error = StepError("step 'a' failed", step="a")
    error.__cause__ = ValueError("inner")
    with serving(raising(error)) as served:
        failed = served.failure("/s.S/M")
    assert failed.details() == "step 'a' failed with ValueError; the server's log has the details"
    assert "ValueError: inner" in caplog.text


def test_unknown_method_is_answered_with_those_there_are(echoing: Served) -> None:
    failed = echoing.failure("/test.Echo/Ecko")
    assert failed.code() is CODE.UNIMPLEMENTED
    assert "did you mean '/test.Echo/Echo'? valid: /test.Echo/Echo, " in failed.details()
    assert len(echoing.failure("/" + "x" * 5000 + "/y").details()) < 1100


def test_too_large_message_is_refused() -> None:
    with serving(echo, GrpcOptions(max_message_bytes=1000)) as served:
        failed = served.failure("/s.S/M", b"x" * 1001)
        assert failed.code() is CODE.RESOURCE_EXHAUSTED
        assert "1001 vs. 1000" in failed.details()
        assert served.call("/s.S/M", b"x" * 1000) == b"x" * 1000


def test_call_without_a_message_is_refused(echoing: Served) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        echoing.channel.stream_unary("/test.Echo/Echo")(iter(()), timeout=10)
    assert failed.value.code() is CODE.INVALID_ARGUMENT


def test_caller_that_never_sends_its_message_is_cut_off_and_holds_up_nobody() -> None:
    never = threading.Event()

    def silence() -> Iterator[bytes]:
        never.wait(20)
        yield b""

    with serving(echo, GrpcOptions(threads=1, body_timeout_s=0.5)) as served:
        slow = [served.channel.stream_unary("/s.S/M").future(silence()) for _ in range(5)]
        assert served.call("/s.S/M", b"x") == b"x"
        for call in slow:
            assert call.exception(timeout=10).code() is CODE.CANCELLED
        never.set()


def test_deadline_of_the_caller_ends_a_call_whose_turn_never_came() -> None:
    gate = Gate()
    with serving(gate, GrpcOptions(threads=1)) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.call, "/s.S/M")
        assert gate.inside.acquire(timeout=10)
        assert served.failure("/s.S/M", timeout=0.3).code() is CODE.DEADLINE_EXCEEDED
        wait_until(lambda: served.edge.in_flight() == 1)
        gate.open.set()
        assert first.result() == b"open"
        assert not gate.inside.acquire(blocking=False)


def test_deadline_of_the_server_ends_a_call_that_waits_for_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with serving(gate, GrpcOptions(threads=1, request_s=0.3)) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.call, "/s.S/M")
        assert gate.inside.acquire(timeout=10)
        failed = served.failure("/s.S/M")
        assert (failed.code(), "had to wait" in failed.details()) == (CODE.DEADLINE_EXCEEDED, True)
        wait_until(lambda: served.edge.stuck_calls(0.0) == 1)
        assert served.edge.stuck_calls(60.0) == 0
        gate.open.set()
        assert first.result() == b"open"
    logged = [record for record in caplog.records if "had to wait" in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in logged] == [("WARNING", None)]


def test_calls_beyond_the_limit_are_refused_but_health_is_not() -> None:
    gate = Gate()
    with serving(gate, GrpcOptions(threads=1, max_concurrent=2)) as served, ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(served.call, "/s.S/M") for _ in range(2)]
        wait_until(lambda: served.edge.in_flight() == 2)
        failed = served.failure("/s.S/M")
        assert failed.code() is CODE.RESOURCE_EXHAUSTED
        assert dict(failed.trailing_metadata()) == {"reason": "OVERLOADED", "retry-after": "1"}
        assert served.health() == HEALTH.SERVING
        gate.open.set()
        assert [future.result() for future in pending] == [b"open"] * 2
        wait_until(lambda: served.edge.in_flight() == 0)
        assert served.call("/s.S/M") == b"open"


# -- the services of gRPC itself ---------------------------------------------------------------------------------------


def test_health_is_that_of_the_application_for_each_service_and_the_whole() -> None:
    ready = threading.Event()
    with serving(METHODS, ready=ready.is_set) as served:
        assert [served.health(s) for s in ("", "test.Echo", "test.Other")] == [HEALTH.NOT_SERVING] * 3
        ready.set()
        assert [served.health(s) for s in ("", "test.Echo", "test.Other")] == [HEALTH.SERVING] * 3
        with pytest.raises(grpc.RpcError) as failed:
            served.health("test.Eco")
        assert (failed.value.code(), "did you mean 'test.Echo'?" in failed.value.details()) == (CODE.NOT_FOUND, True)


def test_health_watch_tells_each_change_and_does_not_hold_up_the_end() -> None:
    ready = threading.Event()
    with serving(METHODS, ready=ready.is_set) as served:
        request = health_pb2.HealthCheckRequest(service="test.Echo").SerializeToString()
        watch = served.channel.unary_stream("/grpc.health.v1.Health/Watch", response_deserializer=HEALTH.FromString)
        seen = watch(request)
        assert next(seen).status == HEALTH.NOT_SERVING
        ready.set()
        assert next(seen).status == HEALTH.SERVING
        others = [watch(request) for _ in range(10)]  # more than there are threads for it
        assert {next(other).status for other in others} == {HEALTH.SERVING}
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(next, seen)
            assert served.run(served.edge.stop(60.0)) is True
            assert last.result().status == HEALTH.NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(seen)


def test_reflection_lists_services_and_gives_their_files(echoing: Served) -> None:
    reflect = echoing.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="test.Echo"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such"),
    ]
    listed, file, missing = reflect(iter(asked), timeout=10)
    assert [service.name for service in listed.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "test.Echo",
        "test.Other",
    ]
    (data,) = file.file_descriptor_response.file_descriptor_proto
    assert descriptor_pb2.FileDescriptorProto.FromString(data).service[0].method[0].name == "Echo"
    assert missing.error_response.error_code == CODE.NOT_FOUND.value[0]


# -- the end -----------------------------------------------------------------------------------------------------------


def test_stop_finishes_calls_and_refuses_further_ones() -> None:
    gate = Gate()
    with serving(gate) as served, ThreadPoolExecutor(2) as pool:
        pending = pool.submit(served.call, "/s.S/M")
        assert gate.inside.acquire(timeout=10)
        stopping = pool.submit(served.run, served.edge.stop(30.0))
        wait_until(partial(is_refused, served))
        gate.open.set()
        assert (stopping.result(), pending.result()) == (True, b"open")


def test_stop_cuts_off_calls_that_take_too_long_and_says_which(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with serving(gate) as served, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(served.failure, "/s.S/M", metadata=(("x-request-id", "r4"),))
        assert gate.inside.acquire(timeout=10)
        with caplog.at_level(logging.ERROR):
            assert served.run(served.edge.stop(0.1)) is False
        assert pending.result().code() in (CODE.UNAVAILABLE, CODE.CANCELLED)
        assert caplog.messages == ["cut off at the end of the drain: /s.S/M r4"]
        gate.open.set()


def test_edge_that_was_not_started_can_be_stopped() -> None:
    assert asyncio.run(GrpcEdge(METHODS).stop(1.0)) is True


def test_hung_method_does_not_keep_the_interpreter_from_ending() -> None:
    program = """
import asyncio, sys, threading
sys.path.insert(0, sys.argv[1])
import test_grpc_edge
entered = threading.Event()
def hang(request, context):
    entered.set()
    threading.Event().wait()
served = test_grpc_edge.Served({"/s.S/M": hang})
call = served.channel.unary_unary("/s.S/M").future(b"")
entered.wait()
assert served.close(0.1) is False
served.end()
print("end")
"""
    line = [sys.executable, "-c", program, str(Path(__file__).parent)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


# -- options -----------------------------------------------------------------------------------------------------------


def test_edge_without_grpcio_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtraError, match=r"gRPC needs .*pip install 'servegraph\[grpc\]'"):
        GrpcEdge(METHODS)


def test_module_of_the_edge_does_not_import_grpcio() -> None:
    program = "import sys, servegraph.runtimes.grpc_edge; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_options_are_those_of_the_settings() -> None:
    overrides = {
        "grpc": {"threads": 3, "max_message_bytes": "1MiB", "max_concurrent": 5},
        "timeouts.request_s": 7,
        "limits.body_timeout_s": 9,
    }
    options = GrpcOptions.of(load_settings(environ={}, overrides=overrides))
    assert options == GrpcOptions(
        threads=3, max_message_bytes=1024**2, max_concurrent=5, request_s=7.0, body_timeout_s=9.0
    )


@pytest.mark.parametrize("name", ["", "Method", "s.S/M", "/s.S", "/s.S/", "//M", "/s.S/M/x"])
def test_method_with_another_kind_of_name_is_refused(name: str) -> None:
    with pytest.raises(ServegraphError, match="no name of a gRPC method: write"):
        GrpcEdge({name: echo})


def test_certificate_without_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="both a certificate and its key"):
        GrpcEdge(METHODS, GrpcOptions(tls_certificate=Path("cert.pem")))


def test_certificate_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    edge = GrpcEdge(METHODS, GrpcOptions(tls_certificate=missing, tls_key=missing))
    listeners = Listeners({"grpc": Listen("127.0.0.1", 0, reserve=True)})
    listeners.open()

    async def start() -> None:
        with listeners.take("grpc") as sock:
            try:
                await edge.start(sock)
            finally:
                await edge.stop(0.0)

    with pytest.raises(SettingsError, match=r"cannot read the certificate .*missing\.pem"):
        asyncio.run(start())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program: apt-get install openssl")
def test_edge_with_a_certificate_speaks_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    line += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*line, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    with serving(echo, GrpcOptions(tls_certificate=certificate, tls_key=key), host="localhost") as served:
        port = served.address.rpartition(":")[2]
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
            assert channel.unary_unary("/s.S/M")(b"x", timeout=10) == b"x"
        assert served.failure("/s.S/M", timeout=5).code() in (CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED)
