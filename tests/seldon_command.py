"""The real ``servegraph microservice`` in a process of its own, with a component from a folder of the test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from raw_http import Answer

COMMAND = [sys.executable, "-m", "servegraph.cli.main", "microservice"]
START_S = 60.0

IDENTITY = '''
class Identity:
    """Gives back what it gets, and never raises anything."""

    def predict(self, X, names, meta=None):
        return X

    def transform_input(self, X, names, meta=None):
        return X

    def transform_output(self, X, names, meta=None):
        return X

    def route(self, X, names):
        return 0

    def aggregate(self, features_list, names_list):
        return features_list[0]

    def send_feedback(self, features, names, reward, truth, routing=None):
        return None

    def health_status(self):
        return "well"
'''
"""A module with a component that has all operations."""


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nothing listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Microservice:
    """A component that is served in the ``with`` block; afterwards it must have ended with exit code 0.

    Args:
        folder: where the command runs, and finds the component's module.
        component: name of the class, as the command takes it.
        options: further options of the command.
        code: text of the module ``component``, written into the folder.
        environment: further variables.
        shell: the command as a Dockerfile has it, run by a shell; the ports are told by Seldon's variables then.
    """

    def __init__(
        self,
        folder: Path,
        component: str,
        *options: str,
        code: str = "",
        environment: Mapping[str, str] | None = None,
        shell: str = "",
    ) -> None:
        if code:
            (folder / f"{component.partition('.')[0]}.py").write_text(code)
        self.port, self.grpc_port, self.metrics_port = free_ports(3)
        ports = ["--http-port", self.port, "--grpc-port", self.grpc_port, "--metrics-port", self.metrics_port]
        command = [*COMMAND, component, "--host", "127.0.0.1", *map(str, ports), *options]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", shell] if shell else command,
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(self._image_variables() if shell else {}), **(environment or {})},
            text=True,
        )

    def _image_variables(self) -> dict[str, str]:
        """What an operator and an image would set: the ports, and where the command is."""
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PREDICTIVE_UNIT_SERVICE_PORT": str(self.port),
            "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": str(self.port),
            "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": str(self.grpc_port),
            "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": str(self.metrics_port),
        }

    def __enter__(self) -> Microservice:
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.process.kill()
            self.process.wait()
            sys.stderr.write(self.log())
            self._log.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            code = self.stop()
            if raised[0] is not None:
                sys.stderr.write(self.log()[-20_000:])
            else:
                assert code == 0, (code, self.log())
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, "the command has ended"
            assert time.monotonic() < end, "the command does not answer"
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("/v2/health/ready").status == 200:
                    return
            time.sleep(0.05)

    def stop(self, seconds: float = 40.0) -> int:
        """Ask it to end, as a platform does; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def log(self) -> str:
        """What it has written so far."""
        self._log.flush()
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_text(errors="replace")

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until the log holds a pattern so many times."""
        end = time.monotonic() + START_S
        while len(re.findall(pattern, self.log())) < times:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """The processes of its workers, where it has any."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def ask(
        self,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        port: int = 0,
    ) -> Answer:
        """The answer to one request; what is not bytes is sent as JSON."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        with contextlib.closing(connection):
            fields = {"content-type": "application/json", **(headers or {})}
            connection.request(method or ("GET" if body is None else "POST"), path, raw, fields)
            with connection.getresponse() as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def predict(self, body: Any, path: str = "/predict") -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.ask(path, body)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def metrics(self, path: str = "/metrics") -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """The samples on the metrics port: by name, then by labels."""
        answer = self.ask(path, port=self.metrics_port)
        assert answer.status == 200, answer
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    def total(self, name: str) -> float:
        """The sum of a metric over all of its labels; 0 while there is none."""
        return sum(self.metrics().get(name, {}).values())

    def channel(self) -> Any:
        """A gRPC channel with connections of its own."""
        import grpc

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=options)

    def connect(self, port: int = 0) -> socket.socket:
        """A connection, for requests written by hand."""
        return socket.create_connection(("127.0.0.1", port or self.port), timeout=30)

    def resident_bytes(self) -> int:
        """Memory of the process that is in use (the worker's own memory, without shared files)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024
