"""The command that ends, or replaces its workers: who waits for an answer gets it, and nothing stays behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from raw_http import Answer
from seldon_command import Microservice
from seldon_load import GrpcClient, load, wait_until_each_has

from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc

pytestmark = pytest.mark.slow

HELD = '''
import os
import threading
import time


class Held:
    """Answers when there is a file ``go``, and says when it has begun."""

    def predict(self, X, names, meta=None):
        print("begun in", os.getpid(), flush=True)
        until = time.monotonic() + 60
        while not os.path.exists("go") and time.monotonic() < until:
            time.sleep(0.01)
        return [os.getpid()]

    def custom_service(self):
        threading.Event().wait()
'''
COUNTED = """
import os


class Counted:
    def predict(self, X, names, meta=None):
        return X

    def metrics(self):
        return [{"type": "COUNTER", "key": "predicted", "value": 1}]

    def load(self):
        print("loaded by", os.getpid(), flush=True)
"""


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= family(int(child))
    return found


def over_rest(server: Microservice) -> tuple[int, list[float]]:
    answer: Answer = server.ask("/predict", {"data": {"ndarray": [1]}})
    return answer.status, json.loads(answer.body)["data"]["ndarray"]


def over_grpc(server: Microservice) -> tuple[int, list[float]]:
    request = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1], values=[1.0])))
    with server.channel() as channel:
        answer = prediction_pb2_grpc.SeldonStub(channel).Predict(request, timeout=60)
    return 200, list(answer.data.tensor.values)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_of_both_interfaces_that_are_in_flight_are_answered_before_the_end(
    tmp_path: Path, pool: ThreadPoolExecutor, workers: int
) -> None:
    options = ("--workers", str(workers), "--threads", "4", "--pidfile", "pid")
    with Microservice(tmp_path, "Held", *options, code=HELD) as server:
        server.wait_for(f"ready: {workers} worker" if workers > 1 else "URL")
        processes = family(server.process.pid)
        assert len(processes) == (1 if workers == 1 else 1 + workers)
        calls: list[Callable[[Microservice], Any]] = [over_rest, over_grpc, over_rest, over_grpc]
        held = [pool.submit(call, server) for call in calls]
        server.wait_for("begun in", 4)
        server.process.send_signal(signal.SIGTERM)
        refused_at(server.port)
        assert not any(call.done() for call in held)
        (tmp_path / "go").touch()
        answers = [call.result(60) for call in held]
        assert server.process.wait(40) == 0
    assert [status for status, _ in answers] == [200] * 4
    assert {int(pid) for _, (pid,) in answers} <= processes
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []
    assert not (tmp_path / "pid").exists()


def refused_at(port: int) -> None:
    """Wait until nobody takes connections at a port."""
    waiting = threading.Event()
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionError:
            return
        waiting.wait(0.02)
    raise AssertionError("connections are still taken")


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_replaced_after_so_many_requests_lose_none_and_no_count(tmp_path: Path, workers: int) -> None:
    options = ("--workers", str(workers), "--max-requests", "200", "--max-requests-jitter", "50")
    with Microservice(tmp_path, "Counted", *options, code=COUNTED) as server:
        with load(server, rest=3, rpc=2) as clients:
            server.wait_for("loaded by", workers + 2)
            wait_until_each_has(clients, 20)
        for client in clients:
            # With one worker there is nobody at the port of gRPC until the next one has loaded.
            refused = client.refused if workers == 1 and isinstance(client, GrpcClient) else 0
            assert (client.lost, client.unheard, client.refused) == ([], 0, refused)
        assert server.total("predicted_total") == sum(client.right for client in clients)


def test_worker_that_has_drained_and_is_told_to_end_again_leaves_with_the_code_of_the_drain() -> None:
    program = (
        "import atexit, os, signal\n"
        "from servegraph.runtimes.worker import leave\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "leave(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
