"""How far a batch is: a bar, lines in the log, or a call of the user's."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Protocol

from servegraph.importing import import_extra

logger = logging.getLogger("servegraph.batch")

LOG_EVERY_S: Final = 5.0
CALL_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    rows: int
    """Rows that are settled."""
    total: int | None
    """All rows, where that is known."""
    failed: int
    """Rows that failed."""
    seconds: float
    """Time since the first row was read."""

    def __str__(self) -> str:
        share = "" if not self.total else f" of {self.total} ({100 * self.rows // self.total} %)"
        failed = f", {self.failed} failed" if self.failed else ""
        rate = self.rows / self.seconds if self.seconds > 0 else 0.0
        return f"{self.rows}{share} rows{failed}, {rate:.0f} rows/s"


class Display(Protocol):
    """Shows progress; called for every event that is settled, so it has to be quick."""

    def update(self, progress: Progress) -> None:
        """Take note of where the run is."""

    def close(self, progress: Progress) -> None:
        """Show where the run ended."""


def make_display(wanted: bool | Callable[[Progress], Any] | None) -> Display:
    """The display of the option ``progress``.

    Raises:
        MissingExtraError: a bar is asked for, and tqdm is not installed.
    """
    if wanted is False:
        return Silent()
    if callable(wanted):
        return Called(wanted)
    if wanted is True:
        import_extra("tqdm", feature="a progress bar", extra="batch")
        return Bar()
    return Bar() if _is_watched() and find_spec("tqdm") is not None else Logged()


def _is_watched() -> bool:
    """Whether somebody sees standard error at once: a terminal, or a notebook's cell."""
    stream = sys.stderr
    if stream is None:
        return False
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")


class Silent:
    """Shows nothing."""

    def update(self, progress: Progress) -> None:
        """Nothing."""

    def close(self, progress: Progress) -> None:
        """Nothing."""


class Bar:
    """A bar of tqdm on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        if self._bar is None:
            tqdm = import_extra("tqdm", feature="a progress bar", extra="batch").tqdm
            self._bar = tqdm(total=progress.total, unit="row", dynamic_ncols=True)
        if progress.failed:
            self._bar.set_postfix_str(f"{progress.failed} failed", refresh=False)
        self._bar.update(progress.rows - self._bar.n)

    def close(self, progress: Progress) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self.update(progress)
            self._bar.close()


class Logged:
    """A line in the log every five seconds, and one at the end."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LOG_EVERY_S

    def update(self, progress: Progress) -> None:
        """Log, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOG_EVERY_S
            logger.info("batch: %s", progress)

    def close(self, progress: Progress) -> None:
        """Log the last line."""
        logger.info("batch: ended after %s", progress)


class Called:
    """Calls a function of the user's ten times a second at most, and at the end."""

    def __init__(self, function: Callable[[Progress], Any]) -> None:
        self._function = function
        self._next = 0.0

    def update(self, progress: Progress) -> None:
        """Call it, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + CALL_EVERY_S
            self._function(progress)

    def close(self, progress: Progress) -> None:
        """Call it a last time."""
        self._function(progress)
