"""Starts the supervisor of `supervised_app` as a process of its own and talks to it over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of the condition; fails the test when there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has asked for its exit code yet has ended as well."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


class SupervisedServer:
    def __init__(
        self,
        target: dict[str, Any] | None = None,
        *,
        watch: tuple[str, ...] = (),
        factory: str = "supervised_app:build",
        listeners: dict[str, int] | None = None,
        **settings: Any,
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        timeouts = {"hang_s": 1.0, "drain_timeout_s": 5.0, **settings.pop("timeouts", {})}
        argument = json.dumps(
            {
                "settings": {"http_port": 0, **settings, "timeouts": timeouts},
                "target": target or {},
                "watch": watch,
                "factory": factory,
                "listeners": listeners or {},
            }
        )
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("supervised_app.py")), argument],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        with self.process.stdout as out:
            self.first_line = out.readline().strip()
        self.ports = {name: int(port) for name, port in re.findall(r"(\w+)=(\d+)", self.first_line)}
        self.port = self.ports.get("http", 0)

    def __enter__(self) -> SupervisedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for _ in range(2):  # the second one ends it at once; unlike a kill, it cleans up
            if self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.2)
        self.process.wait(10)
        if exc is not None:
            sys.stderr.write(self.log())
        self._log.close()

    def log(self) -> str:
        # Opened anew: to seek in the file that the server writes to would make it write over what is there.
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_text(errors="replace")

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def get(self, path: str, timeout: float = 10.0, listener: str = "http") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[listener], timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path)
            with connection.getresponse() as answer:
                return answer.status, answer.read()

    def who(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get("/who")[1])
        return answer

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def wait_ready(self, workers: int = 1, times: int = 1) -> SupervisedServer:
        def ready() -> bool:
            assert self.process.poll() is None, self.log()
            return self.log().count(f"ready: {workers} worker(s) serve") >= times

        wait_until(ready)
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_exit(self, seconds: float = 10.0) -> int:
        return self.process.wait(seconds)

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False
