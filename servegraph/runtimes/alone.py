"""A server in one process: the worker without a supervisor, for where something else watches over processes.

It listens, serves and drains as a worker does. What it lacks is what only another process can do: replace a worker
that dies or hangs. Containers have that from their platform.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
from collections.abc import Mapping

from servegraph.importing import import_object
from servegraph.runtimes.heap import limit_arenas
from servegraph.runtimes.listening import HTTP, Listen, Listeners
from servegraph.runtimes.worker import Channel, Worker, leave_soon, loop_factory
from servegraph.runtimes.worker_protocol import DUMP_SIGNAL, Application, ApplicationFactory, Start, Target, WorkerInfo
from servegraph.settings import ServerSettings

logger = logging.getLogger("servegraph")


def run_alone(
    settings: ServerSettings,
    factory: str,
    target: Target,
    listeners: Mapping[str, Listen] | None = None,
    *,
    listen_when_ready: bool = False,
) -> int:
    """Serve in this process until SIGTERM or SIGINT; 0 after a clean drain, else 1. Needs the main thread.

    The process is over half a second after the return, even if user code has left threads running.

    Args:
        settings: all settings of the server; ``workers`` and ``reload`` have no meaning here.
        factory: ``module:attr`` of the function that builds the application.
        target: what the factory builds the application from.
        listeners: where to listen for the further edges of the application, by their names.
        listen_when_ready: take no connection before the models are loaded, for platforms whose only question is
            whether the port is open. Otherwise requests that come early are answered 503.

    Raises:
        SettingsError: a port is taken or cannot be used.
        Exception: whatever the application's own code raises while it is built or loaded.
    """
    http = Listen(settings.host, settings.http_port, reserve=listen_when_ready)
    sockets = Listeners({HTTP: http, **(listeners or {})})
    sockets.open()
    addresses = sockets.addresses()
    host, port = addresses[HTTP]
    ports = {name: where[1] for name, where in addresses.items()}
    info = WorkerInfo(0, 1, 1, host, port, "", os.getpid(), ports)
    limit_arenas()
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    build: ApplicationFactory = import_object(factory)
    application = build(target, settings, info)
    # Nobody reads the reports, and no orders come; the worker drops what is not read.
    ours, others = socket.socketpair()
    fds = {name: sockets.take(name).detach() for name in addresses}
    start = Start(factory, target, settings.to_dict(), {}, fds, ours.fileno(), not listen_when_ready, [])
    channel = Channel(ours.detach())
    try:
        runner = asyncio.Runner(loop_factory=loop_factory())
        code = runner.run(_serve(start, settings, application, channel))
    finally:
        others.close()
    logger.info("stopped")
    leave_soon(code)  # a load that was given up may go on for long
    return code


async def _serve(start: Start, settings: ServerSettings, application: Application, channel: Channel) -> int:
    return await Worker(start, settings, application, channel).run()
