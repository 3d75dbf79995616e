"""Clients that go away while their requests are worked on: the work ends, nothing is kept, no worker is blamed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_http import Served, post, serving

import servegraph
from servegraph.graph.calls import Guard, InlineLimits, Offloader
from servegraph.graph.events import Event


class Watched(servegraph.V2ModelServer):
    begun = 0
    cancelled = 0

    def load(self) -> None:
        pass

    async def predict(self, request: dict[str, Any]) -> list[int]:
        Watched.begun += 1
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            Watched.cancelled += 1
            raise
        return [1]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_clients_that_go_away_have_their_steps_cancelled_and_leave_nothing() -> None:
    fn = servegraph.new_function("clients-gone")
    fn.add_model("watched", class_name=Watched)
    with serving(fn) as server:
        before = open_files()
        clients = [server.connect() for _ in range(200)]
        for client in clients:
            client.sendall(post("/v2/models/watched/infer", {"inputs": [1]}))
        wait_until(lambda: Watched.begun == 200)
        for client in clients:
            client.close()
        wait_until(lambda: Watched.cancelled == 200)
        wait_until(lambda: open_files() <= before)
        metrics = server.ask("/metrics").body.decode()
        assert "servegraph_requests_cancelled_total 200" in metrics


@pytest.mark.parametrize("remaining", [30.0, -0.1, None])
def test_call_that_was_given_up_counts_as_stuck_only_when_its_time_is_up(remaining: float | None) -> None:
    release = threading.Event()
    offloader = Offloader(1)

    async def give_up() -> None:
        event = Event({})
        event.deadline = None if remaining is None else time.monotonic() + remaining
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work(_: Event) -> None:
            loop.call_soon_threadsafe(started.set)
            release.wait()

        call = asyncio.create_task(offloader.call(work, event, Guard("thread", InlineLimits())))
        await started.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    try:
        asyncio.run(give_up())
        time.sleep(0.01)
        assert offloader.stuck(0.0) == (0 if remaining == 30.0 else 1)
    finally:
        release.set()
        offloader.close()


def test_requests_of_clients_that_are_gone_do_not_start() -> None:
    release = threading.Event()
    started: list[int] = []

    class Held(servegraph.V2ModelServer):
        def load(self) -> None:
            pass

        def predict(self, request: dict[str, Any]) -> list[int]:
            started.append(request["inputs"][0])
            release.wait(10)
            return [1]

    fn = servegraph.new_function("clients-gone-queued")
    fn.add_model("held", class_name=Held)
    with serving(fn, executor={"threads": 1}) as server:
        first, *others = [_sent(server, i) for i in range(5)]
        wait_until(lambda: len(started) == 1)
        time.sleep(0.1)
        for client in others:
            client.close()
        wait_until(lambda: "cancelled_total 4" in server.ask("/metrics").body.decode())
        release.set()
        assert b"200 OK" in first.recv(1000)
        first.close()
    assert len(started) == 1


def _sent(server: Served, number: int) -> Any:
    client = server.connect()
    client.sendall(post("/v2/models/held/infer", {"inputs": [number]}))
    return client
