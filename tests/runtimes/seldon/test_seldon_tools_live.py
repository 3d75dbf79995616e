"""Client, contract tester and batch processor against the real command that serves a component."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from servegraph.runtimes.seldon.batch_options import SeldonBatchOptions
from servegraph.runtimes.seldon.batch_processor import process_batch
from servegraph.runtimes.seldon.tester import SeldonTesterOptions, exchanges
from servegraph.serving.seldon.client import SeldonClient
from servegraph.serving.seldon.contract import Contract

pytestmark = pytest.mark.slow

COMPONENT = """
class Half:
    def predict(self, X, names, meta=None):
        if (X == 13).any():
            raise ValueError("no thirteen")
        return X / 2

    def transform_input(self, X, names, meta=None):
        return X

    def aggregate(self, Xs, names):
        return sum(Xs)

    def class_names(self):
        return ["y:0", "y:1"]

    def send_feedback(self, X, names, reward, truth, routing=None):
        return [reward]
"""

CONTRACT = {
    "features": [{"name": "x", "dtype": "FLOAT", "ftype": "continuous", "range": [0, 2], "repeat": 2}],
    "targets": [{"name": "y", "dtype": "FLOAT", "ftype": "continuous", "range": [0, 1], "repeat": 2}],
}


@dataclass
class Running:
    rest: str
    grpc: str

    def address(self, transport: str) -> str:
        return self.grpc if transport == "grpc" else self.rest


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("component")
    (folder / "Half.py").write_text(COMPONENT, encoding="utf-8")
    rest, grpc, metrics = free_ports(3)
    ports = ["--http-port", str(rest), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    line = [sys.executable, "-m", "servegraph.cli.main", "microservice", "Half", "--host", "127.0.0.1", *ports]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)
        try:
            for port in (rest, grpc):
                _wait_for(port, process)
            yield Running(f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
        finally:
            process.terminate()
            process.wait(20)
            log.seek(0)
            sys.stderr.write(log.read())


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "the component did not start"
            assert time.monotonic() < end, "the component does not listen"
            time.sleep(0.05)
        else:
            return


both = pytest.mark.parametrize("transport", ["rest", "grpc"])


@both
@pytest.mark.parametrize("payload_type", ["tensor", "ndarray", "tftensor"])
def test_client_calls_a_component(running: Running, transport: str, payload_type: str) -> None:
    address = running.address(transport)
    with SeldonClient(
        gateway="seldon",
        transport=transport,
        gateway_endpoint=address,
        microservice_endpoint=address,
        payload_type=payload_type,
    ) as client:
        frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
        for result in (client.predict(data=frame), client.microservice(data=frame)):
            assert result.success, result.msg
            np.testing.assert_array_equal(result.array(), [[0.5, 1.5], [1.0, 2.0]])
            assert list(result.frame().columns) == ["y:0", "y:1"]
        total = client.microservice(method="aggregate", datas=[frame, frame])
        np.testing.assert_array_equal(total.array(), [[2.0, 6.0], [4.0, 8.0]])
        prediction = client.predict(data=frame)
        for send in (client.feedback, client.microservice_feedback):
            told = send(prediction.request, prediction.response, reward=0.5)
            assert told.success, told.msg
            assert told.array().tolist() == [0.5]
        failed = client.predict(data=[[13.0, 0.0]])
        assert not failed.success
        assert failed.retryable


@both
@pytest.mark.parametrize("endpoint", ["predict", "send-feedback"])
def test_tester_passes_a_component(running: Running, transport: str, endpoint: str) -> None:
    told = SeldonTesterOptions(
        running.address(transport),
        endpoint=endpoint,
        rows=3,
        requests=5,
        transport=transport,  # type: ignore[arg-type]
        seed=1,
    )
    assert [exchange.findings for exchange in exchanges(Contract.of(CONTRACT), told)] == [[]] * 5


@both
@pytest.mark.parametrize("size", [1, 8])
def test_batch_of_a_component_keeps_its_order(running: Running, tmp_path: Path, transport: str, size: int) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("".join(f"[[{n}, 1]]\n" for n in range(40)), encoding="utf-8")
    summary = process_batch(
        SeldonBatchOptions(
            "half",
            source,
            target,
            gateway_type="seldon",
            host=running.address(transport),
            transport=transport,
            workers=3,
            batch_size=size,
            retries=1,
        )
    )
    assert (summary.rows, summary.failed) == (40, 1)
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    for index, body in enumerate(found):
        assert body["meta"]["tags"]["batch_index"] == index
        if index == 13:
            assert "no thirteen" in body["status"]["reason"]
        else:
            assert body["data"]["ndarray"] == [[index / 2, 0.5]]
