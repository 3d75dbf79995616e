"""The output of a batch: a file that is there whole or not at all, and what an unfinished run has left of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from servegraph import jsoncodec
from servegraph.errors import SettingsError
from servegraph.runtimes.seldon.batch_calls import FAILURE_START

_FLUSH_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What an unfinished run has written."""

    rows: int = 0
    failed: int = 0
    batch_id: str | None = None


class Output:
    """Writes lines to ``<path>.part``, which takes the name of the output when the run is finished.

    Args:
        path: the output.
        resume: whether to keep what an unfinished run has left.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.kept = _kept(self.part) if resume and self.part.exists() else Kept()
        self._flush_at = time.monotonic() + _FLUSH_EVERY_S
        try:
            self._file: IO[bytes] = self.part.open("ab" if self.kept.rows else "wb")
        except OSError as exc:
            raise SettingsError(f"the output {self.part} cannot be written: {exc.strerror}") from exc

    def write(self, line: bytes) -> None:
        """Add a line."""
        self._file.write(line + b"\n")
        if time.monotonic() >= self._flush_at:
            self._flush_at = time.monotonic() + _FLUSH_EVERY_S
            self._file.flush()

    def finish(self) -> None:
        """Give the file its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.part.replace(self.path)

    def give_up(self) -> None:
        """Leave what was written for a later run."""
        self._file.close()


def _kept(part: Path) -> Kept:
    """What the file has in whole lines; half a line at its end is cut off."""
    rows = failed = size = 0
    batch_id: str | None = None
    with part.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            if not rows:
                batch_id = _batch_id(line, part)
            rows += 1
            failed += line.startswith(FAILURE_START)
            size += len(line)
        file.truncate(size)
    return Kept(rows, failed, batch_id)


def _batch_id(line: bytes, part: Path) -> str:
    try:
        return str(jsoncodec.loads(line)["meta"]["tags"]["batch_id"])
    except (jsoncodec.JSONDecodeError, KeyError, TypeError) as exc:
        raise SettingsError(
            f"{part} is not from a run of the batch processor: remove it, or run without resume"
        ) from exc
