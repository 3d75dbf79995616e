"""The supervisor: it owns the listening sockets, starts the workers, and replaces those that die or hang.

It runs no user code and no threads, so it can be trusted to go on when a worker does not. A worker is replaced
when it exits, when its event loop gives no heartbeat for ``hang_s``, and when it reports model calls that are
stuck. The sockets stay open meanwhile: no client is ever refused because of a worker. Where workers listen with
sockets of their own (gRPC), the supervisor holds the address, and the other workers take the new connections.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from servegraph.errors import SettingsError
from servegraph.monitoring.metrics import MetricsRegistry
from servegraph.runtimes.listening import HTTP, Listen, Listeners
from servegraph.runtimes.reload import FileWatch
from servegraph.runtimes.restarts import CrashLoop, Restarts
from servegraph.runtimes.worker_process import WorkerProcess
from servegraph.runtimes.worker_protocol import Start, Target, WorkerInfo, WorkerState
from servegraph.settings import ServerSettings

logger = logging.getLogger("servegraph.supervisor")

_TURN_S = 0.25
_RELOAD_POLL_S = 0.5
_DUMP_S = 0.3
_STUCK_DRAIN_S = 2.0
_ACCEPT_GRACE_S = 0.2
_EARLIER_S = 0.05
_CLOSE_GRACE_S = 5.0
_PAUSE_S = 2.0
_ECHO_S = 0.3
"""A signal that comes again this soon is the same one: `timeout` and some shells tell a process and its whole group."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True)
class _Slot:
    """The place of one worker: who has it now, or when the next one starts."""

    index: int
    process: WorkerProcess | None = None
    starts: int = 0
    start_at: float | None = 0.0
    """When to start the next worker; None waits for a change of the watched files."""
    restarts: Restarts = field(default_factory=Restarts)


class Supervisor:
    """Runs the workers of a local server until it is told to stop.

    Args:
        settings: all settings of the server.
        factory: ``module:attr`` of the function that builds the application inside each worker.
        target: what the factory builds the application from; plain data.
        watch: files and folders whose change restarts the workers, where ``settings.reload`` is set.
        listeners: where to listen for the further edges of the application, by their names.
        listen_when_ready: take no connection before a worker has loaded its models, for platforms whose only question
            is whether the port is open. Otherwise requests that come early are answered 503.
    """

    def __init__(
        self,
        settings: ServerSettings,
        factory: str,
        target: Target,
        watch: Sequence[str | Path] = (),
        listeners: Mapping[str, Listen] | None = None,
        *,
        listen_when_ready: bool = False,
    ) -> None:
        if settings.reload and not watch:
            raise SettingsError("reload is on, but there are no files to watch")
        self._settings = settings
        self._factory = factory
        self._target = target
        self._watch = FileWatch(watch) if settings.reload else None
        self._slots = [_Slot(index) for index in range(settings.workers)]
        http = Listen(settings.host, settings.http_port, reserve=listen_when_ready)
        self._listeners = Listeners({HTTP: http, **(listeners or {})})
        self._listen_when_ready = listen_when_ready
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._crashes = CrashLoop()
        self._rolling: list[_Slot] = []
        self._ever_ready = False
        self._all_ready = False
        self._stopping = False
        self._told_to_stop: tuple[int, float] = (0, 0.0)
        self._stop_accepting_at = 0.0
        self._exit_code = 0
        self._last_turn = 0.0
        self._next_poll = 0.0
        self._metrics = ""

    def bind(self) -> tuple[str, int]:
        """Open the listening sockets that are not open yet; address and port of the HTTP one.

        Raises:
            SettingsError: a port is taken or cannot be used.
        """
        self._listeners.open()
        return self._listeners.address(HTTP)

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Address and port of each listener that is open, by name."""
        return self._listeners.addresses()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; 0 after a clean drain, else 1. Needs the main thread.

        A second signal ends everything at once. If the application of a first worker cannot be built, its
        message is logged and the answer is 1. SIGHUP replaces the workers one after the other.

        Raises:
            SettingsError: a port is taken or cannot be used, or no folder for temporary files can be written.
        """
        self.bind()
        # Shared memory where there is some: a write to a file on a disk may have to wait for the disk.
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        try:
            self._metrics = tempfile.mkdtemp(prefix="servegraph-", dir=shared)
        except OSError as exc:
            self._listeners.close()
            raise SettingsError(
                f"no folder for what workers count: set TMPDIR to one that can be written ({exc})"
            ) from exc
        registry = MetricsRegistry(Path(self._metrics), slot=len(self._slots))
        self._lost = registry.counter("servegraph_workers_lost_total", "Workers that died, hung or were stuck.")
        for name, (host, port) in self.addresses().items():
            shown = f"[{host}]" if ":" in host else host
            where = f"http://{shown}:{port}" if name == HTTP else f"{shown}:{port} ({name})"
            logger.info("listening on %s with %d worker(s)", where, len(self._slots))
        try:
            with self._handled_signals():
                self._last_turn = time.monotonic()
                while not (self._stopping and all(slot.process is None for slot in self._slots)):
                    self._turn(time.monotonic())
                    self._selector.select(self._pause())
        finally:
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.close()
            self._listeners.close()
            self._selector.close()
            shutil.rmtree(self._metrics, ignore_errors=True)
        logger.info("stopped")
        return self._exit_code

    def _turn(self, now: float) -> None:
        self._forgive_pause(now)
        for slot in self._slots:
            if slot.process is not None:
                slot.process.listen(now)
        self._take_signals(now)
        for slot in self._slots:
            if slot.process is not None:
                self._reap(slot, slot.process, now)
            if slot.process is not None:
                self._check(slot, slot.process, now)
        if self._stopping:
            self._stop_listening(now)
            return
        self._poll_files(now)
        self._roll(now)
        for slot in self._slots:
            if slot.process is None and slot.start_at is not None and now >= slot.start_at:
                self._start(slot, now)
        self._tell_ready()

    def _pause(self) -> float:
        return _TURN_S / 5 if self._stopping else _TURN_S

    def _forgive_pause(self, now: float) -> None:
        """After a pause of the whole machine or process group, no worker is to blame for its silence."""
        gap = now - self._last_turn
        self._last_turn = now
        if gap > _PAUSE_S:
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.last_heard += gap

    # Starting

    def _start(self, slot: _Slot, now: float) -> None:
        slot.starts += 1
        host, port = self.bind()
        ports = {name: where[1] for name, where in self.addresses().items()}
        info = WorkerInfo(slot.index, len(self._slots), slot.starts, host, port, self._metrics, os.getpid(), ports)
        start = Start(
            factory=self._factory,
            target=self._target,
            settings=self._settings.to_dict(),
            info=asdict(info),
            listen_fds=self._listeners.fds(),
            channel_fd=-1,
            # While others serve, a worker that still loads would only take requests away from them.
            listen_early=not self._listen_when_ready and not any(self._is_ready(other) for other in self._slots),
            search_path=list(sys.path),
        )
        slot.start_at = None
        slot.process = WorkerProcess(start, now)
        self._selector.register(slot.process.channel, selectors.EVENT_READ)
        logger.debug("worker %d: started as process %d", slot.index, slot.process.pid)

    def _is_ready(self, slot: _Slot) -> bool:
        process = slot.process
        return process is not None and process.state is WorkerState.READY and process.retiring is None

    def _tell_ready(self) -> None:
        ready = all(self._is_ready(slot) for slot in self._slots)
        self._ever_ready = self._ever_ready or any(self._is_ready(slot) for slot in self._slots)
        if ready and not self._all_ready:
            logger.info("ready: %d worker(s) serve", len(self._slots))
        self._all_ready = ready

    # Watching

    def _check(self, slot: _Slot, process: WorkerProcess, now: float) -> None:
        timeouts = self._settings.timeouts
        if process.kill_at is not None:
            if now >= process.kill_at:
                logger.error("worker %d (%d): killed, for %s", slot.index, process.pid, process.retiring)
                process.kill()
                process.kill_at = now + 1.0
            return
        limit = timeouts.load_s if process.state is WorkerState.STARTING else timeouts.hang_s
        if now - process.last_heard > limit:
            process.retiring, process.kill_at = f"its event loop gave no heartbeat for {limit:g} s", now + _DUMP_S
            process.dump()
        elif process.stuck:
            reason = f"{process.stuck} model call(s) are stuck beyond their deadlines"
            process.retire(reason, kill_at=now + _STUCK_DRAIN_S)
            process.dump()
            logger.error("worker %d (%d): %s; replaced", slot.index, process.pid, reason)
        elif process.worn and process.retiring is None and slot not in self._rolling:
            logger.info("worker %d (%d) has answered its share of requests and is replaced", slot.index, process.pid)
            self._rolling.append(slot)

    def _reap(self, slot: _Slot, process: WorkerProcess, now: float) -> None:
        code = process.exit_code()
        if code is None:
            return
        process.listen(now)
        self._selector.unregister(process.channel)
        process.close()
        slot.process = None
        if self._stopping:
            if code != 0 and not (code == -signal.SIGTERM and process.state is WorkerState.STARTING):
                self._exit_code = 1
            return
        if process.retiring in (_RELOADED, _RENEWED):
            slot.start_at = now
            return
        self._crashed(slot, process, code, now)

    def _crashed(self, slot: _Slot, process: WorkerProcess, code: int, now: float) -> None:
        why = process.retiring or process.failure or _in_words(code)
        never_built = process.ready_since is None and (process.failure is not None or not self._ever_ready)
        if never_built and slot.starts == 1:
            logger.error("the application cannot be started: %s", why)
            self._exit_code = 1
            self._stop(now, delay_s=0.0, kill_after_s=_STUCK_DRAIN_S)
            return
        if process.failure is not None and self._watch is not None:
            logger.error("worker %d: %s; waiting for a change of the files", slot.index, why)
            return
        healthy_s = 0.0 if process.ready_since is None else now - process.ready_since
        delay = slot.restarts.next_delay(healthy_s)
        self._lost.inc()
        slot.start_at = now + delay
        logger.error("worker %d (%d) ended: %s; replaced in %g s", slot.index, process.pid, why, delay)
        if self._crashes.add(now):
            logger.critical("workers end again and again: more than 5 times within a minute, last because of: %s", why)

    # Replacing

    def _poll_files(self, now: float) -> None:
        if self._watch is None or now < self._next_poll:
            return
        self._next_poll = now + _RELOAD_POLL_S
        changed = self._watch.changed()
        if not changed:
            return
        logger.info("changed: %s; restarting the workers", ", ".join(str(path) for path in changed[:5]))
        for slot in self._slots:
            if slot.process is None:
                slot.start_at = now
            else:
                self._retire(slot.process, _RELOADED, now)

    def _roll(self, now: float) -> None:
        """Replace the next worker of a rolling restart, once the one before is there again."""
        while self._rolling and all(self._is_ready(slot) for slot in self._slots):
            process = self._rolling.pop(0).process
            if process is not None:
                self._retire(process, _RENEWED, now)

    def _retire(self, process: WorkerProcess, reason: str, now: float) -> None:
        if process.retiring is None:
            process.retire(reason, kill_at=now + self._settings.timeouts.drain_timeout_s + _CLOSE_GRACE_S)

    # Stopping

    def _take_signals(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakeup.recv(4096)
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGHUP:
                logger.info("SIGHUP: replacing the workers one after the other")
                self._rolling = list(self._slots)
            elif number in (signal.SIGTERM, signal.SIGINT):
                timeouts = self._settings.timeouts
                first, then = self._told_to_stop
                if self._stopping and number == first and now - then < _ECHO_S:
                    continue
                if self._stopping:
                    self._end_at_once()
                else:
                    self._told_to_stop = (number, now)
                    logger.info("%s: finishing the requests in flight", signal.Signals(number).name)
                    wait_s = timeouts.drain_delay_s + timeouts.drain_timeout_s + _CLOSE_GRACE_S
                    self._stop(now, delay_s=timeouts.drain_delay_s, kill_after_s=wait_s)

    def _stop(self, now: float, *, delay_s: float, kill_after_s: float) -> None:
        self._stopping = True
        self._stop_accepting_at = now + delay_s
        self._stop_listening(now)
        for slot in self._slots:
            if slot.process is not None:
                slot.process.stop(kill_at=now + kill_after_s)

    def _stop_listening(self, now: float) -> None:
        """Take no more connections, a moment before the workers do; what is taken already has that moment."""
        if now >= self._stop_accepting_at - _EARLIER_S:
            self._listeners.hear_no_more()
        if now >= self._stop_accepting_at + _ACCEPT_GRACE_S:
            self._listeners.close()

    def _end_at_once(self) -> None:
        logger.error("second signal: ending at once")
        self._exit_code = 1
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()

    @contextlib.contextmanager
    def _handled_signals(self) -> Iterator[None]:
        self._wakeup, theirs = socket.socketpair()
        self._wakeup.setblocking(False)
        theirs.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.unregister(self._wakeup)
            self._wakeup.close()
            theirs.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


_RELOADED = "its files have changed"
_RENEWED = "it is renewed"


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"signal {known.get(-code, -code)}"
