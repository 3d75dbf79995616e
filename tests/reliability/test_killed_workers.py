"""Workers killed under load: nobody is refused, answers stay right, and what was counted stays counted."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from served_command import Served

CODE = """
import servegraph

class Echo(servegraph.V2ModelServer):
    def load(self):
        pass

    def predict(self, request):
        return request["inputs"]

fn = servegraph.new_function("killed")
fn.add_model("echo", class_name=Echo)
"""
CLIENTS = 6


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Client(threading.Thread):
    def __init__(self, port: int, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.number, self.stop = port, number, stop
        self.right = self.wrong = self.broken = self.refused = 0

    def run(self) -> None:
        while not self.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.closing(connection):
                try:
                    while not self.stop.is_set():
                        self.ask(connection)
                except ConnectionRefusedError:
                    self.refused += 1
                except (ConnectionError, http.client.HTTPException):
                    self.broken += 1

    def ask(self, connection: http.client.HTTPConnection) -> None:
        body = json.dumps({"inputs": [self.number]}).encode()
        connection.request("POST", "/v2/models/echo/infer", body, {"content-type": "application/json"})
        with connection.getresponse() as answer:
            outputs = json.loads(answer.read()).get("outputs")
        if (answer.status, outputs) == (200, [self.number]):
            self.right += 1
        else:
            self.wrong += 1


@pytest.mark.slow
def test_killed_workers_fail_their_own_requests_only_and_lose_no_count(tmp_path: Path) -> None:
    code = tmp_path / "killed.py"
    code.write_text(CODE)
    with Served(code, "--workers", "2") as server:
        stop = threading.Event()
        clients = [Client(server.port, i, stop) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(2):
            time.sleep(0.5)
            os.kill(children(server.process.pid)[0], signal.SIGKILL)
            time.sleep(1.5)
        stop.set()
        for client in clients:
            client.join(15)
        right = sum(client.right for client in clients)
        assert right > 100
        assert sum(client.wrong + client.refused for client in clients) == 0
        assert sum(client.broken for client in clients) <= 2 * CLIENTS
        metrics = server.ask("/metrics")[1]
        counted = re.search(r'servegraph_model_duration_seconds_count\{model="echo",version=""\} (\d+)', metrics)
        assert counted is not None
        # An answer may have been counted and lost with its worker.
        assert right <= int(counted.group(1)) <= right + 2 * CLIENTS
        assert re.search(r"servegraph_workers_lost_total 2\b", metrics)
