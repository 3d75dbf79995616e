"""A worker as its supervisor sees it: a child process, the socket to it, and when it was last heard."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace

from servegraph.runtimes.worker_protocol import (
    DUMP_SIGNAL,
    Drain,
    Failure,
    Heartbeat,
    Lines,
    Start,
    WorkerState,
    decode,
    encode,
)


class WorkerProcess:
    """Starts a worker process of its own process group, which gets the listening sockets and nothing else."""

    def __init__(self, start: Start, now: float) -> None:
        self.state = WorkerState.STARTING
        self.last_heard = now
        self.ready_since: float | None = None
        self.stuck = 0
        self.worn = False
        self.failure: str | None = None
        self.retiring: str | None = None
        """Why it was told to go; None while it is meant to serve."""
        self.kill_at: float | None = None
        """When it is killed if it has not gone by itself."""
        self._lines = Lines()
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        # The message goes through a nameless file, because a pipe would block on a large target.
        with theirs, tempfile.TemporaryFile() as file:
            file.write(encode(replace(start, channel_fd=theirs.fileno())))
            file.seek(0)
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "servegraph.runtimes.worker", str(file.fileno())],
                pass_fds=(file.fileno(), theirs.fileno(), *start.listen_fds.values()),
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal reaches the supervisor alone, which passes it on once.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs. What it has left behind is killed."""
        if self._process.returncode is None and sys.platform == "linux":
            # Not reaped yet, so that its process group cannot be another's when it is killed.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self.kill()
        return self._process.poll()

    def listen(self, now: float) -> None:
        """Read what the worker has sent."""
        while True:
            try:
                data = self.channel.recv(65536)
            except (BlockingIOError, ConnectionError):
                return
            if not data:
                return
            for line in self._lines.feed(data):
                self._take(line, now)

    def _take(self, line: bytes, now: float) -> None:
        message = decode(line)
        if isinstance(message, Failure):
            self.failure = message.message
        elif isinstance(message, Heartbeat):
            self.last_heard = now
            self.stuck = message.stuck
            self.worn = message.worn
            self.state = WorkerState(message.state)
            if self.state is WorkerState.READY and self.ready_since is None:
                self.ready_since = now

    def retire(self, reason: str, kill_at: float) -> None:
        """Ask the worker to finish what it has admitted and go; it is killed at ``kill_at``."""
        self.retiring, self.kill_at = reason, kill_at
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.channel.send(encode(Drain(delay_s=0.0)))

    def stop(self, kill_at: float) -> None:
        """Tell the worker to drain because the server stops; it is killed at ``kill_at``."""
        if self.kill_at is None or self.kill_at > kill_at:
            self.kill_at = kill_at
        self.retiring = self.retiring or "it had not finished when the server stopped"
        self._signal(signal.SIGTERM)

    def dump(self) -> None:
        """Have the worker write to standard error what each of its threads does."""
        self._signal(DUMP_SIGNAL)

    def kill(self) -> None:
        """Kill the worker and all processes it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Reap the process, which is killed if it still runs, and release the socket."""
        if self._process.returncode is None:
            self.kill()
            self._process.wait()
        self.channel.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
