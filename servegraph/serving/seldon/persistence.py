"""``PERSISTENCE=1``: a component's state is restored at start, saved on a period, and saved when it ends.

Nothing here is ever waited for by a request, and nothing that goes wrong here fails one: saving is done by a thread
of its own, and a store that is not there is tried again until it is. What is saved, and how, is in `state_kinds.py`;
where, in `state_store.py`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from typing import Any, Final

from servegraph.errors import SettingsError, summary, users_part
from servegraph.serving.seldon.state_kinds import kept_state
from servegraph.serving.seldon.state_store import StateStore, StateStoreError, open_store

logger = logging.getLogger("servegraph.seldon.state")

DEFAULT_PERIOD_S: Final = 60.0
SHARING_PERIOD_S: Final = 1.0
_RETRY_S: Final = 2.0


class Persistence:
    """Keeps the state of one component. Make it, `restore`, `start` it in the process that serves, and `stop` it.

    A component that counts (`state_kinds.Counting`) learns together with its other workers and replicas: its counts
    are exchanged every ``sharing_period_s``.

    Args:
        component: the object whose state is kept.
        store: a store, or its address: ``redis://host:port/db``, ``file:///folder``, ``memory://name``.
        key: what it is kept under; see `state_store.state_key`.
        period_s: seconds between two savings.
        allow_pickle: whether the whole object may be pickled and unpickled if it has no better way.
        sharing_period_s: seconds between two exchanges of counts; never more than ``period_s``.

    Raises:
        SettingsError: the address or a period makes no sense.
    """

    def __init__(
        self,
        component: Any,
        store: StateStore | str,
        key: str,
        period_s: float = DEFAULT_PERIOD_S,
        allow_pickle: bool = False,
        *,
        sharing_period_s: float = SHARING_PERIOD_S,
    ) -> None:
        self._store = open_store(store) if isinstance(store, str) else store
        self._kept = kept_state(component, self._store, key, allow_pickle=allow_pickle)
        self._component = component
        period_s = positive_seconds(period_s, "period_s")
        sharing = self._kept is not None and self._kept.shared
        self._period_s = min(period_s, positive_seconds(sharing_period_s, "sharing_period_s")) if sharing else period_s
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing_since: float | None = None
        self._retry_soon = False

    @property
    def component(self) -> Any:
        """The object that is served and whose state is kept."""
        return self._component if self._kept is None else self._kept.component

    @property
    def failing(self) -> bool:
        """Whether the last attempt to reach the store, or to take the state, has failed."""
        return self._failing_since is not None

    def restore(self) -> Any | None:
        """The object to serve in place of the component, if a whole one was kept; else ``None``.

        Where there is a state for the component, it has it afterwards. A store that is not there is only a warning.
        """
        kept = self._kept
        if kept is None:
            return None
        with self._lock:
            try:
                found = kept.restore()
            except Exception as exc:  # noqa: BLE001 - a component without its state is better than none
                self._failed("restore", exc)
                return None
        logger.info("state of %s is kept in %s under %r", kept.name, self._store.shown, kept.key)
        return found

    def save(self) -> bool:
        """Whether the state could be saved now. The thread of `start` calls this by itself."""
        return self._save(final=False)

    def start(self) -> None:
        """Save from now on, every ``period_s``. Call it after a fork, not before one."""
        if self._kept is None or self._thread is not None:
            return
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name=f"state of {self._kept.name}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Save once more and end. Whether the last state is saved, in no more than the time given."""
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._ending.set()
        thread.join(timeout_s)
        saved = not thread.is_alive() and not self.failing
        if not saved:
            logger.error(
                "the last state of %s could not be saved in %s", type(self.component).__qualname__, self._store.shown
            )
        return saved

    def _run(self) -> None:
        while not self._ending.wait(self._pause_s()):
            self._save(final=False)
        self._save(final=True)
        self._store.close()

    def _pause_s(self) -> float:
        # A store comes back; a component whose state cannot be taken stays as it is.
        return min(self._period_s, _RETRY_S) if self.failing and self._retry_soon else self._period_s

    def _save(self, *, final: bool) -> bool:
        kept = self._kept
        if kept is None:
            return False
        with self._lock:
            try:
                kept.save(final=final)
            except Exception as exc:  # noqa: BLE001 - whatever a component's own get_state raises: the thread goes on
                self._failed("save", exc)
                return False
            if self._failing_since is not None:
                outage = time.monotonic() - self._failing_since
                self._failing_since = None
                logger.warning("state of %s: saved again after %.0f s", kept.name, outage)
            return True

    def _failed(self, what: str, exc: Exception) -> None:
        """Say it once, not every time until it works again."""
        self._retry_soon = isinstance(exc, StateStoreError)
        if self._failing_since is not None:
            return
        self._failing_since = time.monotonic()
        name = type(self.component).__qualname__
        if self._retry_soon:
            logger.warning("state of %s: cannot %s it, will try again: %s", name, what, exc)
        else:
            logger.error("state of %s: cannot %s it, will try again: %s", name, what, _told(exc))
            logger.debug("state of %s", name, exc_info=exc)


def _told(exc: Exception) -> str:
    """An exception in one line, with the last place in the component's own code."""
    trace = users_part(exc.__traceback__)
    if trace is None:
        return summary(exc)
    frame = next(f for f in reversed(traceback.extract_tb(trace)) if f.filename == trace.tb_frame.f_code.co_filename)
    return f"{summary(exc)} ({frame.filename}, line {frame.lineno})"


def positive_seconds(value: Any, name: str) -> float:
    """A time above 0.

    Raises:
        SettingsError: it is none; the message begins with the name.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise SettingsError(f"{name}: {value!r} is not a positive number of seconds")
    return number
