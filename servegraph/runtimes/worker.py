"""One worker process: it builds the application, serves it with uvicorn, and reports to its supervisor.

Run as ``python -m servegraph.runtimes.worker FD``, where FD holds the `Start` message. The event loop itself
writes the heartbeats, so a loop that is blocked goes silent and is noticed.

Its life is ``starting -> ready -> draining -> stopped``. SIGTERM and SIGINT begin the drain:

1. the application says that it is not ready, and new requests are still taken for ``drain_delay_s``;
2. nothing new is accepted by any edge, and what was admitted has ``drain_timeout_s`` to finish;
3. the application is closed, and the process exits with 0, or with 1 if requests had to be cut off.

A second signal ends the process at once with code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

from servegraph.errors import ServegraphError, from_users_line, text_of, users_part
from servegraph.importing import import_object
from servegraph.runtimes.asgi_server import AsgiServer
from servegraph.runtimes.edges import Edges
from servegraph.runtimes.heap import Trimmer, limit_arenas, settle_garbage
from servegraph.runtimes.listening import HTTP
from servegraph.runtimes.worker_protocol import (
    DUMP_SIGNAL,
    Application,
    ApplicationFactory,
    Drain,
    Failure,
    Heartbeat,
    Lines,
    Message,
    Start,
    WorkerInfo,
    WorkerState,
    answered_by,
    decode,
    edges_of,
    encode,
)
from servegraph.settings import ServerSettings

logger = logging.getLogger("servegraph.worker")

_CLOSE_S = 4.0
_EXIT_S = 0.5
_PR_SET_PDEATHSIG = 1


class Worker:
    """Serves an application until it is told to stop."""

    def __init__(self, start: Start, settings: ServerSettings, application: Application, channel: Channel) -> None:
        self._start = start
        self._settings = settings
        self._application = application
        self._channel = channel
        self._state = WorkerState.STARTING
        self._beats = 0
        self._stop = asyncio.Event()
        self._delay_s = settings.timeouts.drain_delay_s
        self._signalled = False
        self._server = AsgiServer(application, settings.limits)
        self._edges = Edges(edges_of(application), [name for name in start.listen_fds if name != HTTP])
        self._most_requests = _most_requests(settings)
        self._listening = False
        self._trimmer = Trimmer()
        self._loop: asyncio.AbstractEventLoop

    async def run(self) -> int:
        """Serve; the exit code of the process, once it has drained."""
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        loop.add_reader(self._channel.fileno(), self._on_command)
        heart = asyncio.create_task(self._beat(), name="heartbeat")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            if self._start.listen_early:
                await self._listen()
            startup = asyncio.create_task(self._application.startup(), name="startup")
            await asyncio.wait({startup, stop, heart}, return_when=asyncio.FIRST_COMPLETED)
            if startup.done():
                await startup
                if not self._listening:
                    await self._listen()
                settle_garbage()
                self._enter(WorkerState.READY)
                await asyncio.wait({stop, heart}, return_when=asyncio.FIRST_COMPLETED)
            else:
                startup.cancel()
            if heart.done():
                await heart  # only an error ends it
            return await self._drain()
        finally:
            heart.cancel()
            stop.cancel()
            loop.remove_reader(self._channel.fileno())

    async def _listen(self) -> None:
        sockets = {name: socket.socket(fileno=fd) for name, fd in self._start.listen_fds.items()}
        self._listening = True
        await self._server.listen(sockets.pop(HTTP))
        await self._edges.start(sockets)

    def _enter(self, state: WorkerState) -> None:
        self._state = state
        self._report()

    def _report(self) -> None:
        self._beats += 1
        in_flight = self._application.in_flight() + self._edges.in_flight()
        stuck = self._application.stuck_calls() + self._edges.stuck_calls(self._settings.timeouts.hang_grace_s)
        worn = self._most_requests is not None and answered_by(self._application) >= self._most_requests
        self._channel.send(Heartbeat(self._beats, in_flight, stuck, self._state.value, worn))
        if self._state is WorkerState.READY:
            self._trimmer.look(in_flight)

    async def _beat(self) -> None:
        """Once a second: the heartbeat, and what the HTTP server has to do as often."""
        limits = self._settings.limits
        interval = min(1.0, self._settings.timeouts.hang_s / 4, limits.header_timeout_s / 4)
        while True:
            self._report()
            await self._server.tick()
            await asyncio.sleep(interval)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A Python-level handler also runs while user code blocks the event loop.
        if self._signalled:
            os._exit(1)
        self._signalled = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: this worker has drained already
            self._loop.call_soon_threadsafe(self._stop.set)

    def _on_command(self) -> None:
        messages = self._channel.receive()
        if messages is None:
            logger.error("worker %d: the supervisor is gone", os.getpid())
            os._exit(1)
        for message in messages:
            if isinstance(message, Drain):
                self._delay_s = message.delay_s
                self._stop.set()

    async def _drain(self) -> int:
        self._application.begin_drain()
        self._edges.begin_drain()
        self._enter(WorkerState.DRAINING)
        await asyncio.sleep(self._delay_s)
        self._server.stop_accepting()
        grace_s = self._settings.timeouts.drain_timeout_s
        stopped = asyncio.create_task(self._edges.stop(grace_s), name="edges")
        clean = await self._server.finish(grace_s, self._application.in_flight)
        clean = await stopped and clean
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._application.aclose()
        except TimeoutError:
            logger.error("the application did not close within %g s", _CLOSE_S)
            clean = False
        return 0 if clean else 1


class Channel:
    """The worker's end of the socket to its supervisor. Never waits."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._lines = Lines()

    def fileno(self) -> int:
        """The file descriptor, to wait for messages."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send, or drop the message if the supervisor has not read those before it or is gone."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._socket.send(encode(message))

    def receive(self) -> list[Message] | None:
        """The messages that have arrived; None when the supervisor is gone."""
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return [decode(line) for line in self._lines.feed(data)] if data else None


def main(argv: list[str]) -> int:
    """Run the worker whose start message is in the file descriptor ``argv[0]``; its exit code."""
    with open(int(argv[0]), "rb") as file:  # noqa: PTH123
        start = decode(file.read().rstrip(b"\n"))
    if not isinstance(start, Start):
        raise ServegraphError("a worker is started with a start message")
    info = WorkerInfo(**start.info)
    _die_with(info.supervisor_pid)
    limit_arenas()
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel = Channel(start.channel_fd)
    settings = ServerSettings.from_dict(start.settings)
    _configure_logging(settings)
    try:
        _extend_search_path(start.search_path)
        factory: ApplicationFactory = import_object(start.factory)
        application = factory(start.target, settings, info)
        # Never closed: that would wait for threads that user code has left running.
        runner = asyncio.Runner(loop_factory=loop_factory())
        return runner.run(_serve(start, settings, application, channel))
    except ServegraphError as exc:
        channel.send(Failure(_short(exc)))
        # The supervisor gets one line; the place in the user's own code is told here.
        cause = exc.__cause__
        if cause is not None and users_part(cause.__traceback__) is not None:
            logger.error("%s", exc, exc_info=from_users_line(cause))
        logger.debug("the application cannot be built", exc_info=exc)
    except Exception as exc:
        channel.send(Failure(_short(exc)))
        logger.error("the application cannot be built or has failed", exc_info=from_users_line(exc))
    return 1


async def _serve(start: Start, settings: ServerSettings, application: Application, channel: Channel) -> int:
    return await Worker(start, settings, application, channel).run()


def _short(exc: BaseException) -> str:
    """An error and its causes in one short text: it has to pass through the channel at once."""
    parts: list[str] = []
    current: BaseException | None = exc
    while current is not None and len(parts) < 5:
        text = text_of(current)
        named = text if isinstance(current, ServegraphError) and text else f"{type(current).__name__}: {text}"
        if parts and text and parts[-1].endswith(f": {text}"):  # the error quotes its cause: that is told once
            parts[-1] = parts[-1].removesuffix(text) + named
        else:
            parts.append(named)
        current = current.__cause__
    return "; caused by ".join(parts)[:4000]


def _die_with(supervisor_pid: int) -> None:
    """Have the kernel kill this process when its supervisor dies, however busy it is then."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor_pid:  # it died before the call above
        os._exit(1)


def _extend_search_path(paths: list[str]) -> None:
    for path in paths:
        if (absolute := str(Path(path).absolute())) not in sys.path and path not in sys.path:
            sys.path.append(absolute)


def _most_requests(settings: ServerSettings) -> int | None:
    """How many requests this worker answers before it is replaced; ``None`` for any number."""
    if not settings.max_requests:
        return None
    return settings.max_requests + random.randint(0, settings.max_requests_jitter)


def _configure_logging(settings: ServerSettings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s",
    )
    # uvicorn warns of each malformed request: one line per request of an attacker.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """The event loop of servers: uvloop's where it is installed, else that of asyncio."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


def leave(code: int) -> None:
    """Leave like any Python process, but do not wait for threads that user code has left running.

    A signal to end changes nothing any more: it must not put its own exit code in the place of that of the drain.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    leave_soon(code)
    sys.exit(code)


def leave_soon(code: int) -> None:
    """End the process in a moment, whatever threads still run in it."""
    watchdog = threading.Timer(_EXIT_S, os._exit, (code,))
    watchdog.daemon = True
    watchdog.start()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
