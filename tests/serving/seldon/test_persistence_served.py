"""A bandit behind the real command with two workers and a real Redis that is killed while requests are answered."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_redis import OwnRedis
from served_command import COMMAND

from servegraph.serving.seldon.bandits import EpsilonGreedy
from servegraph.serving.seldon.persistence import Persistence

NAMES = {"PREDICTIVE_UNIT_ID": "eg", "SELDON_DEPLOYMENT_ID": "dep", "PREDICTOR_ID": "main"}
CLIENTS = 4
FEEDBACKS = 10_000


@pytest.fixture
def redis(tmp_path: Path, free_port: int) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path, free_port)
    server.start()
    yield server
    server.kill()


class Bandit:
    """``servegraph microservice`` with an epsilon-greedy router of two branches."""

    def __init__(self, redis: OwnRedis) -> None:
        parameters = json.dumps([{"name": "n_branches", "value": "2", "type": "INT"}])
        options = ["--workers", "2", "--http-port", "0", "--metrics-port", "0", "--grpc-workers", "0"]
        where = {"REDIS_SERVICE_HOST": "127.0.0.1", "REDIS_SERVICE_PORT": str(redis.port)}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in stop
        target = ["microservice", "servegraph.serving.seldon.bandits.EpsilonGreedy", "--persistence", "1"]
        self._process = subprocess.Popen(
            [*COMMAND, *target, "--host", "127.0.0.1", "--parameters", parameters, *options],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **NAMES, **where},
        )
        self.port = 0

    def __enter__(self) -> Bandit:
        try:
            self.wait_for(r"ready: 2 worker")
        except BaseException:
            self.stop()
            raise
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log())
        assert found is not None
        self.port = int(found[1])
        return self

    def __exit__(self, *raised: object) -> None:
        assert self.stop() == 0 or any(raised)

    def log(self) -> str:
        # Opened anew: to seek in the file that the server writes to would make it write over what is there.
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_text(errors="replace")

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 60
        while re.search(pattern, self.log()) is None:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        finally:
            self._process.kill()
            self._log.close()


def ask(connection: http.client.HTTPConnection, path: str, body: Any) -> tuple[int, Any]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def converse(port: int, rounds: int, failures: list[Any]) -> None:
    """Ask for routes, and reward the first branch every second time that it is its turn."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    request = {"data": {"ndarray": [[1, 2]]}}
    for i in range(rounds):
        feedback = {"request": request, "response": {"meta": {"routing": {"eg": i % 2}}}, "reward": float(i % 4 == 0)}
        for path, body in (("/route", request), ("/send-feedback", feedback)):
            status, answer = ask(connection, path, body)
            if status != 200:
                failures.append((status, answer))
    connection.close()


@pytest.mark.slow
def test_redis_killed_under_load_of_two_workers_fails_no_request_and_every_feedback_is_counted(redis: OwnRedis) -> None:
    failures: list[Any] = []
    with Bandit(redis) as bandit:
        arguments = (bandit.port, FEEDBACKS // CLIENTS, failures)
        clients = [threading.Thread(target=converse, args=arguments) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        redis.kill()
        bandit.wait_for("cannot save it, will try again")
        redis.start()
        for client in clients:
            client.join()
    assert failures == []

    learnt = EpsilonGreedy(2)
    Persistence(learnt, redis.uri, "persistence_dep_main_eg").restore()
    assert learnt.branch_tries == [FEEDBACKS / 2, FEEDBACKS / 2]
    assert learnt.branch_success == [FEEDBACKS / 4, 0]

    feedback = {"request": {"data": {"ndarray": [[1, 2]]}}, "response": {"meta": {"routing": {"eg": 1}}}, "reward": 1}
    with Bandit(redis) as again:
        connection = http.client.HTTPConnection("127.0.0.1", again.port, timeout=60)
        status, answer = ask(connection, "/send-feedback", feedback)
        connection.close()
    assert status == 200
    told = {(metric["key"], metric["tags"]["branch"]): metric["value"] for metric in answer["meta"]["metrics"]}
    assert told["bandit_branch_tries", "1"] == FEEDBACKS / 2 + 1
    assert told["bandit_branch_success", "0"] == FEEDBACKS / 4
