"""Log records on their way to Nuclio's logger, which shares the worker's socket with the answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

_METHODS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"), (logging.DEBUG, "debug"))


def send_logs(target: Any, level: str) -> Callable[[], None]:
    """Send what servegraph and the functions' code log to Nuclio's logger; gives what ends that again."""
    if target is None:
        return lambda: None
    handler = _NuclioHandler(target)
    logger = logging.getLogger("servegraph")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(level.upper())

    def stop() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    return stop


class _NuclioHandler(logging.Handler):
    """Hands records over on the event loop's thread: two threads on one socket would mix their bytes."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self._target = target
        self._thread = threading.get_ident()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record over."""
        try:
            message = self.format(record)
            method = next((m for least, m in _METHODS if record.levelno >= least), "debug")
            send = getattr(self._target, method)
            if self._loop is None or threading.get_ident() == self._thread:
                send(message)
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(send, message)
        except Exception:  # noqa: BLE001 - what the standard library's handlers do: a log never ends a request
            self.handleError(record)
