"""``file:///folder``: state in files of one folder, shared by the workers of one machine.

Whoever changes a file holds a ``flock`` on the folder's lock file; a reader needs none, because a file is replaced
as a whole. The kernel gives the lock back when a process is killed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from servegraph.errors import ModelLoadError, SettingsError
from servegraph.serving.seldon.state_store import Change, StateStore, StateStoreError
from servegraph.serving.store_location import local_path

_LONGEST_NAME = 150
_LOCK_PAUSE_S = 0.005


class FileStore(StateStore):
    """One file for each key in a folder, which is made when it is missing.

    Args:
        uri: ``file:///folder``.
        lock_timeout_s: how long to wait for another worker that is writing.
    """

    def __init__(self, uri: str, *, lock_timeout_s: float = 5.0) -> None:
        super().__init__(uri)
        try:
            self.folder = local_path(uri)
        except ModelLoadError as exc:
            raise SettingsError(str(exc)) from exc
        self._lock_timeout_s = lock_timeout_s

    def _read(self, key: str) -> bytes | None:
        path = self._path(key, "value")
        with self._told(path):
            return path.read_bytes() if path.exists() else None

    def _write(self, key: str, value: bytes) -> None:
        path = self._path(key, "value")
        with self._told(path), self._locked():
            _replace(path, value)

    def _read_table(self, key: str) -> dict[str, bytes]:
        path = self._path(key, "table")
        with self._told(path):
            return _fields(path)

    def _update(self, key: str, change: Change) -> dict[str, bytes]:
        path = self._path(key, "table")
        with self._told(path), self._locked():
            fields = _fields(path)
            changes = change(dict(fields))
            if changes:
                fields.update(changes)
                _replace(path, _text(fields))
            return fields

    def _path(self, key: str, ending: str) -> Path:
        name = quote(key, safe="")
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return self.folder / f"{name}.{ending}"

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """Say which file it was that could not be read or written."""
        try:
            yield
        except OSError as exc:
            raise StateStoreError(f"{path}: {exc.strerror or exc}") from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # State may be personal, and a pickle that others can write is code that they can run.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        deadline = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StateStoreError(
                        f"{self.folder}: another process has held the lock for {self._lock_timeout_s:g} s"
                    ) from None
                time.sleep(_LOCK_PAUSE_S)
            else:
                return


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a machine that loses its power, sees the old or the new and nothing between."""
    draft = path.with_name(f".{path.name}.new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    draft.replace(path)


def _text(fields: Mapping[str, bytes]) -> bytes:
    return json.dumps({name: base64.b64encode(value).decode() for name, value in fields.items()}, indent=1).encode()


def _fields(path: Path) -> dict[str, bytes]:
    if not path.exists():
        return {}
    try:
        return {str(name): base64.b64decode(value) for name, value in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, TypeError) as exc:
        raise StateStoreError(f"{path}: this is not a table of a state store; move it aside ({exc})") from exc
