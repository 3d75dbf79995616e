"""Runs the real ``servegraph`` command: once to its end, or as a server that a test talks to."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

COMMAND = [sys.executable, "-m", "servegraph.cli.main"]
START_S = 30.0


def run(*arguments: str, cwd: Path | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
    """The command, ended: exit code, standard output and standard error."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, input=text, capture_output=True, text=True, check=False, timeout=60
    )


class Served:
    """``servegraph serve`` of a target on a free port; ready in the ``with`` block, stopped after it."""

    def __init__(self, target: str | Path, *arguments: str, cwd: Path | None = None) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        self.process = subprocess.Popen(
            [*COMMAND, "serve", str(target), "--http-port", "0", *arguments],
            stdout=self._log,
            stderr=self._log,
            cwd=cwd,
            text=True,
        )
        self.port = 0

    def __enter__(self) -> Served:
        try:
            self.wait_for(r"ready: \d+ worker")
        except BaseException:
            self.stop()
            raise
        match = re.search(r"listening on http://[^ ]*:(\d+) ", self.log())
        assert match is not None, self.log()
        self.port = int(match.group(1))
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        if exc is not None:
            sys.stderr.write(self.log())
        self._log.close()

    def stop(self) -> int:
        """Stop the server as a service would; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        if self.process.poll() is None:
            self.process.terminate()  # the second one ends it at once
        return self.process.wait(10)

    def log(self) -> str:
        # Opened anew: to seek in the file that the server writes to would make it write over what is there.
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_text(errors="replace")

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Wait until the log holds a pattern; the log."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            log = self.log()
            if len(re.findall(pattern, log)) >= times:
                return log
            assert self.process.poll() is None, log
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} is not in the log:\n{self.log()}")

    def ask(self, path: str, body: Any = None, headers: Sequence[tuple[str, str]] = ()) -> tuple[int, Any]:
        """Status and decoded body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            fields = {"Content-Type": "application/json", **dict(headers)}
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body).encode(), fields)
            with connection.getresponse() as answer:
                raw = answer.read()
                is_json = "json" in (answer.headers.get("Content-Type") or "")
                return answer.status, json.loads(raw) if is_json else raw.decode()
