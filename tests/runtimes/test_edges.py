from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from supervised_server import SupervisedServer, is_gone, wait_until

import servegraph
from servegraph.errors import SettingsError
from servegraph.runtimes.edges import AsgiEdge, Edges
from servegraph.runtimes.listening import Listen, Listeners, listeners_for
from servegraph.settings import load_settings

BOTH = {"grpc": 0, "metrics": 0}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
RESPONSE = health_pb2.HealthCheckResponse.FromString


def serve(listeners: dict[str, int] | None = None, **settings: Any) -> SupervisedServer:
    return SupervisedServer(factory="edged_app:build", listeners=BOTH if listeners is None else listeners, **settings)


@contextmanager
def channel(server: SupervisedServer) -> Iterator[grpc.Channel]:
    """A connection of its own: channels to one address share their connection otherwise."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}", options=options) as opened:
        yield opened


def call(server: SupervisedServer, method: str, request: bytes = b"", timeout: float = 10.0) -> bytes:
    with channel(server) as opened:
        answer: bytes = opened.unary_unary(f"/test.Echo/{method}")(request, timeout=timeout, wait_for_ready=True)
        return answer


def comes_from(server: SupervisedServer, pid: bytes) -> bool:
    return call(server, "Who") == pid


def test_server_with_further_listeners_answers_on_all_of_them_in_every_worker() -> None:
    with serve(workers=2) as server:
        server.wait_ready(2)
        assert len(set(server.ports.values())) == 3
        assert call(server, "Echo", b"\x00\xff") == b"\x00\xff"
        pids = {str(pid).encode() for pid in server.children()}
        for pid in pids:  # the kernel spreads connections over the workers
            wait_until(partial(comes_from, server, pid))
        assert server.get("/who")[0] == 200
        status, body = server.get("/any", listener="metrics")
        assert (status, body.split()[1] in pids) == (200, True)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_server_on_sigterm_finishes_grpc_calls_and_takes_no_more() -> None:
    with serve(workers=2) as server, ThreadPoolExecutor(5) as pool, channel(server) as opened:
        server.wait_ready(2)
        watching = opened.unary_stream("/grpc.health.v1.Health/Watch", response_deserializer=RESPONSE)(b"")
        assert next(watching).status == SERVING
        last = pool.submit(next, watching)
        pending = [pool.submit(call, server, "Sleep", b"1.5") for _ in range(4)]
        time.sleep(0.5)  # the calls are on their way: nothing tells when the last has arrived
        server.signal(signal.SIGTERM)
        assert [future.result() for future in pending] == [b"slept"] * 4
        assert last.result().status == NOT_SERVING
        assert server.wait_exit() == 0
        with pytest.raises(grpc.RpcError) as failed, channel(server) as late:
            late.unary_unary("/test.Echo/Echo")(b"", timeout=5)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_server_whose_grpc_method_hangs_still_ends_with_one_and_leaves_nothing() -> None:
    with serve(timeouts={"drain_timeout_s": 0.5}) as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready()
        pending = pool.submit(call, server, "Hang", b"")
        time.sleep(0.3)  # the call is on its way
        (pid,) = server.children()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 1
        failed = pending.exception()
        assert isinstance(failed, grpc.RpcError)
        assert "cut off at the end of the drain: /test.Echo/Hang" in server.log()
        assert is_gone(pid)


def test_server_during_drain_delay_still_takes_grpc_calls_but_is_not_serving() -> None:
    with serve(timeouts={"drain_delay_s": 30.0}) as server, channel(server) as opened:
        server.wait_ready()
        check = opened.unary_unary("/grpc.health.v1.Health/Check", response_deserializer=RESPONSE)
        assert check(b"").status == SERVING
        server.signal(signal.SIGINT)  # another signal than the one that ends it at once
        wait_until(lambda: check(b"").status == NOT_SERVING)
        assert opened.unary_unary("/test.Echo/Echo")(b"x") == b"x"


def test_worker_that_is_killed_is_replaced_while_grpc_goes_on() -> None:
    with serve(workers=2) as server:
        server.wait_ready(2)
        before = set(server.children())
        victim = int(call(server, "Who"))
        os.kill(victim, signal.SIGKILL)
        for _ in range(20):
            assert int(call(server, "Who")) != victim
        server.wait_ready(2, times=2)
        (new,) = set(server.children()) - before
        wait_until(lambda: int(call(server, "Who")) == new)
        assert server.get("/", listener="metrics")[0] == 200


@pytest.mark.slow
def test_worker_whose_grpc_method_outlives_its_deadline_is_replaced() -> None:
    with serve(timeouts={"request_s": 0.3, "hang_grace_s": 0.3}) as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready()
        pending = pool.submit(call, server, "Hang", b"")
        server.wait_ready(times=2)
        assert pending.exception() is not None
        assert "1 model call(s) are stuck" in server.log()
        assert call(server, "Echo", b"x") == b"x"


@pytest.mark.slow
def test_server_on_sighup_renews_workers_with_their_further_listeners() -> None:
    with serve(workers=2) as server:
        server.wait_ready(2)
        before = set(server.children())
        server.signal(signal.SIGHUP)
        while before & set(server.children()):
            assert call(server, "Echo", b"x") == b"x"
            assert server.get("/", listener="metrics")[0] == 200
        server.wait_ready(2, times=2)
        assert "ERROR" not in server.log()


def test_server_writes_no_messages_of_grpc_itself() -> None:
    with serve() as server:
        server.wait_ready()
        call(server, "Echo", b"x")
        server.signal(signal.SIGTERM)
        server.wait_exit()
        lines = [line for line in server.log().splitlines() if " servegraph." not in line]
        assert lines == []


@pytest.mark.parametrize("name", ["grpc", "metrics"])
def test_server_with_taken_port_names_the_listener_before_anything_is_loaded(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serve({**BOTH, name: port}) as server:
            assert server.wait_exit() == 2
            assert f"cannot listen on 127.0.0.1:{port} for {name}: another program listens" in server.first_line
            assert f"--{name}-port or SERVEGRAPH_{name.upper()}_PORT" in server.first_line
            assert server.log() == ""


def test_server_with_the_grpc_port_of_another_server_is_refused() -> None:
    with serve() as first:
        first.wait_ready()
        with serve({"grpc": first.ports["grpc"]}) as second:
            assert second.wait_exit() == 2
            assert "another program listens there" in second.first_line


def test_server_that_starts_again_at_once_gets_its_grpc_port_back() -> None:
    with serve() as first:
        first.wait_ready()
        assert call(first, "Echo", b"x") == b"x"
    with serve({"grpc": first.ports["grpc"]}) as second:
        second.wait_ready()
        assert call(second, "Echo", b"x") == b"x"


def test_server_with_a_listener_that_no_edge_is_for_says_which_edges_there_are() -> None:
    with serve({"metric": 0}) as server:
        assert server.wait_exit() == 1
        assert "no such edge: did you mean 'metrics'? valid: grpc, metrics" in server.log()


def test_reserved_address_is_taken_for_others_before_a_worker_listens() -> None:
    first = Listeners({"grpc": Listen("127.0.0.1", 0, reserve=True)})
    first.open()
    _, port = first.address("grpc")
    for reserve in (True, False):
        with pytest.raises(SettingsError, match="for grpc: another program"):
            Listeners({"http": Listen("127.0.0.1", 0), "grpc": Listen("127.0.0.1", port, reserve)}).open()
    first.close()
    again = Listeners({"grpc": Listen("127.0.0.1", port, reserve=True)})
    again.open()
    again.close()


def test_listeners_for_gives_those_that_are_offered_and_not_off() -> None:
    settings = load_settings(environ={}, overrides={"host": "::1", "grpc_port": 5000, "metrics_port": "6000"})
    assert listeners_for(settings, ["grpc", "metrics", "else"]) == {
        "grpc": Listen("::1", 5000, reserve=True),
        "metrics": Listen("::1", 6000),
    }
    assert listeners_for(settings, ["metrics"]) == {"metrics": Listen("::1", 6000)}
    assert listeners_for(load_settings(environ={}, overrides={"grpc_port": "off"}), ["grpc", "metrics"]) == {}


def test_function_served_from_this_process_has_its_metrics_on_a_port_of_their_own() -> None:
    fn = servegraph.new_function("f")
    fn.set_topology("flow").to(handler=len, name="n").respond()
    with fn.serve(http_port=0, metrics_port=0, block=False) as running:
        assert set(running.addresses) == {"http", "metrics"}
        _, port = running.addresses["metrics"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"servegraph_request_duration_seconds" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404") as failed:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2")
        failed.value.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()


async def never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request comes")


def test_edges_that_were_not_started_can_be_stopped() -> None:
    async def stop() -> None:
        edges = Edges({"a": AsgiEdge(never)}, ["a"])
        edges.begin_drain()
        assert await edges.stop(0.1)
        assert (edges.in_flight(), edges.stuck_calls(1.0)) == (0, 0)

    asyncio.run(stop())
