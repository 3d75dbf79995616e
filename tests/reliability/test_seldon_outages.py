"""A component behind the real command while Redis, its workers and itself are ended: nobody else notices."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from own_redis import OwnRedis
from seldon_command import Microservice

from servegraph.serving.seldon.proto import prediction_pb2, prediction_pb2_grpc

COUNTING = """
class Counting:
    push_frequency = 0.2

    def __init__(self):
        self.seen = 0

    def predict(self, X, names, meta=None):
        self.seen += 1
        return X

    def tags(self):
        return {"seen": self.seen}

    def get_state(self):
        return {"seen": self.seen}

    def set_state(self, state):
        self.seen = state["seen"]
"""
BODY = json.dumps({"data": {"ndarray": [[1.0, 2.0]]}}).encode()
GONE = ("Connection refused", "failed to connect", "Socket closed before settings", "GOAWAY received")


class Client(threading.Thread):
    """Predicts in a closed loop; counts what was answered, and what was lost on the way."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop = port, stop
        self.right = 0
        self.lost: list[str] = []
        self.refused = 0
        self.unheard = 0


class RestClient(Client):
    """On a kept connection; one that is to be closed is opened again."""

    def run(self) -> None:
        while not self.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            with contextlib.closing(connection):
                try:
                    connection.connect()
                except ConnectionError:
                    self.refused += 1
                    self.stop.wait(0.01)
                    continue
                before = self.right
                try:
                    while not self.stop.is_set() and self._ask(connection):
                        pass
                except ConnectionResetError as exc:
                    if self.right > before:
                        self.lost.append(repr(exc))
                    self.unheard += self.right == before  # perhaps only the kernel had taken the connection
                except (OSError, http.client.HTTPException) as exc:
                    self.lost.append(repr(exc))

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        """One prediction; whether the connection stays."""
        connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
        with connection.getresponse() as answer:
            raw = answer.read()
            if answer.status == 200 and json.loads(raw)["data"]["ndarray"] == [[1.0, 2.0]]:
                self.right += 1
            else:
                self.lost.append(f"{answer.status} {raw[:200]!r}")
            return not answer.will_close


class GrpcClient(Client):
    """On a channel of its own, which makes new connections by itself."""

    def run(self) -> None:
        data = prediction_pb2.DefaultData(tensor=prediction_pb2.Tensor(shape=[1, 2], values=[1.0, 2.0]))
        message = prediction_pb2.SeldonMessage(data=data)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            model = prediction_pb2_grpc.ModelStub(channel)
            while not self.stop.is_set():
                call = model.Predict.future(message, timeout=30)
                if call.code() is grpc.StatusCode.OK:
                    self.right += call.result().data.tensor.values == [1.0, 2.0]
                elif any(word in call.details() for word in GONE):
                    self.refused += 1
                    self.stop.wait(0.01)
                else:
                    self.lost.append(f"{call.code()} {call.details()}")


@contextlib.contextmanager
def load(server: Microservice, rest: int = 4, rpc: int = 2) -> Iterator[list[Client]]:
    """Clients of both interfaces that predict all the time in the ``with`` block."""
    stop = threading.Event()
    clients: list[Client] = [RestClient(server.port, stop) for _ in range(rest)]
    clients += [GrpcClient(server.grpc_port, stop) for _ in range(rpc)]
    for client in clients:
        client.start()
    try:
        wait_until_each_has(clients, 20)
        yield clients
    finally:
        stop.set()
        for client in clients:
            client.join(40)


def wait_until_each_has(clients: Sequence[Client], answers: int) -> None:
    """Wait until each client has got so many more answers."""
    goals = [client.right + answers for client in clients]
    turn = threading.Event()
    for _ in range(3000):
        if all(client.right >= goal for client, goal in zip(clients, goals, strict=True)):
            return
        turn.wait(0.01)
    raise AssertionError([(client.right, client.lost[:2]) for client in clients])


@pytest.fixture
def redis(tmp_path: Path, free_port: int) -> Iterator[OwnRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = OwnRedis(folder, free_port)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_redis_killed_under_load_fails_no_prediction_and_the_state_is_there_after_a_restart(
    redis: OwnRedis, tmp_path: Path
) -> None:
    environment = {
        "PERSISTENCE": "1", "REDIS_SERVICE_HOST": "127.0.0.1", "REDIS_SERVICE_PORT": str(redis.port),
        "PREDICTIVE_UNIT_ID": "counting", "SELDON_DEPLOYMENT_ID": "d", "PREDICTOR_ID": "p",
    }  # fmt: skip
    with (
        Microservice(tmp_path, "counting.Counting", code=COUNTING, environment=environment) as server,
        load(server) as clients,
    ):
        for outage in (1, 2):
            redis.kill()
            server.wait_for("cannot save it, will try again", outage)
            wait_until_each_has(clients, 50)
            redis.start()
            server.wait_for("saved again after", outage)
            wait_until_each_has(clients, 50)
    assert [(client.lost, client.unheard, client.refused) for client in clients] == [([], 0, 0)] * len(clients)
    counted = sum(client.right for client in clients)
    with Microservice(tmp_path, "counting.Counting", environment=environment) as server:
        answer = json.loads(server.ask("/predict", {"data": {"ndarray": [[1]]}}).body)
    assert answer["meta"]["tags"] == {"seen": counted + 1}


@pytest.mark.slow
def test_killed_workers_fail_only_the_predictions_that_they_worked_on(tmp_path: Path) -> None:
    with Microservice(tmp_path, "counting.Counting", "--workers", "2", code=COUNTING) as server:
        server.wait_for("ready: 2 worker")
        with load(server) as clients:
            for kills in (1, 2):
                os.kill(server.workers()[0], signal.SIGKILL)
                wait_until_each_has(clients, 50)
                server.wait_for("ready: 2 worker", kills + 1)
        assert server.ask("/predict", {"data": {"ndarray": [[1]]}}).status == 200
    for client in clients:
        assert len(client.lost) + client.unheard <= 2, client.lost
    assert sum(client.refused for client in clients if isinstance(client, RestClient)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ended_server_finishes_what_it_has_taken_and_exits_with_0(tmp_path: Path, workers: str) -> None:
    options = ("--workers", workers, "--set", "timeouts.drain_delay_s=1")
    with Microservice(tmp_path, "counting.Counting", *options, code=COUNTING) as server, load(server) as clients:
        assert server.stop() == 0
    assert [client.lost for client in clients] == [[]] * len(clients)
