"""``file:///path/records.jsonl``: JSON lines in a file that rotates, shared by any number of processes.

A batch is appended under an exclusive ``flock`` on the file itself, so lines of several workers never mix and
a rotation can't lose what another worker is writing. A worker that finds, once it has the lock, that the path
now names another inode was overtaken by a rotation and opens the file anew. No lock file is left behind, and
the kernel gives the lock back when a process is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from servegraph.errors import StreamError
from servegraph.streams.base import Encoded, OutputStream, PushError, Record, count, positive

DEFAULT_MAX_BYTES = 100 * 1024 * 1024
DEFAULT_BACKUPS = 5
_MODE = 0o640  # records may hold personal data: not for everybody
_LOCK_PAUSE_S = (0.001, 0.05)


class FileStream(OutputStream):
    """One line per record: its JSON, or its bytes as they are. Keys and headers are not written.

    ``file:///var/log/x.jsonl`` is an absolute path, ``file://logs/x.jsonl`` one relative to the working directory at
    the time of opening. Missing directories are created. ``flush`` and ``close`` sync the file to the disk.

    Args:
        uri: the address.
        max_bytes: size at which the file becomes ``x.jsonl.1``, and ``.1`` becomes ``.2``; None never rotates.
        backups: how many rotated files are kept; older ones are deleted.
        lock_timeout_s: how long a push waits for other writers before it raises.
    """

    # Each push lets go of the interpreter's lock several times, and waits for it again while requests are served.
    records_a_push = 5000

    def __init__(
        self,
        uri: str,
        *,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        backups: int = DEFAULT_BACKUPS,
        lock_timeout_s: float = 10.0,
    ) -> None:
        self.path = _path_of(uri)
        self._max_bytes = None if max_bytes is None else count(max_bytes, "max_bytes", uri)
        self._backups = count(backups, "backups", uri, least=0)
        self._lock_timeout_s = positive(lock_timeout_s, "lock_timeout_s", uri)
        self._fd = -1
        super().__init__(uri)

    def _write(self, batch: Sequence[Encoded]) -> None:
        lines, refused = _lines(batch)
        with self._lock:
            self._check_open()
            written = 0
            try:
                while written < len(lines):
                    with self._locked():
                        written += self._append(lines[written:])
            except OSError as exc:
                rest = [record for record, _ in lines[written:]]
                message = f"{self.uri}: {exc.strerror or exc}"
                raise PushError(message, undelivered=rest, refused=refused) from exc
        if refused:
            raise PushError(f"{self.uri}: bytes with a line break inside are not one line", refused=refused)

    def _append(self, lines: Sequence[Encoded]) -> int:
        """Write as many lines as this file has room for, at least one; returns how many. The lock is held."""
        state = os.fstat(self._fd)
        size = state.st_size
        regular = stat.S_ISREG(state.st_mode)
        limit = self._max_bytes if regular else None
        if limit is not None and size > 0 and size + len(lines[0][1]) + 1 > limit:
            self._rotate()
            return 0
        torn = regular and size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        taken = len(lines) if limit is None else _fitting(lines, limit - size)
        chunk = [line for _, line in lines[:taken]]
        if torn:
            chunk.insert(0, b"")  # what a crash left unfinished must not swallow the next line
        chunk.append(b"")
        self._write_all(b"\n".join(chunk), size if regular else None)
        return taken

    def _write_all(self, data: bytes, size: int | None) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            if size is not None and len(view) < len(data):
                os.ftruncate(self._fd, size)  # whole lines or nothing
            raise

    def _rotate(self) -> None:
        """Move the file aside. The lock is held, so nobody is writing to it; the next push opens a new one."""
        if self._backups == 0:
            self.path.unlink()
        else:
            for number in range(self._backups - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._backup(number).replace(self._backup(number + 1))
            self.path.replace(self._backup(1))

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the exclusive lock on the file that the path names now."""
        deadline = time.monotonic() + self._lock_timeout_s
        while True:
            if self._fd < 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._fd = os.open(self.path, flags, _MODE)
            self._take_lock(deadline)
            if self._is_current():
                break
            self._close_file()  # closing gives the lock back
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _take_lock(self, deadline: float) -> None:
        pause, longest = _LOCK_PAUSE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                if time.monotonic() >= deadline:
                    message = f"another process kept it locked for {self._lock_timeout_s:g} s"
                    raise TimeoutError(exc.errno, message) from exc
                time.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                return

    def _is_current(self) -> bool:
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._fd))

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _flush(self, timeout_s: float) -> None:
        with self._lock:
            if self._fd < 0 or not stat.S_ISREG(os.fstat(self._fd).st_mode):
                return
            try:
                os.fsync(self._fd)
            except OSError as exc:
                raise StreamError(f"{self.uri}: {exc.strerror or exc}") from exc

    def _release(self) -> None:
        with self._lock:
            self._close_file()

    def _forget(self) -> None:
        # The descriptor is a copy of the parent's and shares its lock: closing it does no harm to the parent.
        self._close_file()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self._close_file()


def _path_of(uri: str) -> Path:
    raw = uri.partition("://")[2]
    if not raw.strip("/") or raw.endswith("/"):
        raise StreamError(f"{uri!r} names no file: write file:///path/records.jsonl or file://relative/records.jsonl")
    if "?" in raw or "#" in raw:
        raise StreamError(f"{uri!r}: give options beside the address, and write ? and # in a path as %3F and %23")
    path = unquote(raw)
    if "\0" in path:
        raise StreamError(f"{uri!r} names a path with a NUL in it")
    return Path(path).absolute()


def _lines(batch: Sequence[Encoded]) -> tuple[list[Encoded], list[Record]]:
    """The records as lines, without their ends, and those whose bytes hold a line break inside."""
    lines: list[Encoded] = []
    refused: list[Record] = []
    for item in batch:
        record, payload = item
        if b"\n" not in payload:
            lines.append(item)
        elif payload.index(b"\n") == len(payload) - 1:
            lines.append((record, payload[:-1]))
        else:
            refused.append(record)
    return lines, refused


def _fitting(lines: Sequence[Encoded], room: int) -> int:
    """How many of the lines go into so many bytes; the first one always does."""
    for taken, (_, line) in enumerate(lines):
        room -= len(line) + 1
        if room < 0 and taken:
            return taken
    return len(lines)
