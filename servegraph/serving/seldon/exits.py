"""Exceptions that end a process elsewhere, raised by a component: they fail its request and nothing else."""

from __future__ import annotations

import signal
import threading


def ends_nothing(exc: BaseException) -> bool:
    """Whether a component has raised what would end more than its own request.

    A ``KeyboardInterrupt`` is that of somebody at the keyboard where Python's own handler makes one of SIGINT; servers
    have handlers of their own.
    """
    if isinstance(exc, KeyboardInterrupt):
        at_keyboard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return not (at_keyboard and threading.current_thread() is threading.main_thread())
    return isinstance(exc, (SystemExit, GeneratorExit))
