"""A component behind the real command while Redis, its workers and itself are ended: nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_redis import OwnRedis
from seldon_command import COMMAND, Microservice
from seldon_load import RestClient, load, wait_until_each_has

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
    lost = [client.lost for client in clients]
    # Each client has one prediction at a time.
    assert sum(len(client.lost) + client.unheard for client in clients) <= 2 * len(clients), lost
    assert sum(client.refused for client in clients if isinstance(client, RestClient)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ended_server_finishes_what_it_has_taken_and_exits_with_0(tmp_path: Path, workers: str) -> None:
    options = ("--workers", workers, "--set", "timeouts.drain_delay_s=1")
    with Microservice(tmp_path, "counting.Counting", *options, code=COUNTING) as server, load(server) as clients:
        assert server.stop() == 0
    assert [client.lost for client in clients] == [[]] * len(clients)


SLOW = """
import threading

class Slow:
    def load(self):
        print("loading", flush=True)
        threading.Event().wait(600)

    def predict(self, X, names):
        return X
"""


def test_server_that_is_ended_while_its_component_loads_ends(tmp_path: Path) -> None:
    (tmp_path / "Slow.py").write_text(SLOW)
    command = [*COMMAND, "Slow", "--host", "127.0.0.1"]
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    with subprocess.Popen([*command, *ports], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "loading" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
