"""A Redis server of a test's own: on a free port, with its data in a folder, to be killed and started again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")


class OwnRedis:
    """A real server that keeps what it is told (``appendfsync always``) across kills."""

    def __init__(self, folder: Path, port: int) -> None:
        if BINARY is None:
            pytest.skip("needs redis-server: apt-get install redis-server")
        self.folder = folder
        self.port = port
        self.uri = f"redis://127.0.0.1:{port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert BINARY is not None
        options = {"bind": "127.0.0.1", "port": self.port, "dir": self.folder, "save": "", "appendonly": "yes"}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [BINARY, *arguments, "--appendfsync", "always"], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < deadline, "redis-server does not answer"

    def kill(self) -> None:
        """As ``kill -9`` does it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose all data, as a server without a disk does when it is killed."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
