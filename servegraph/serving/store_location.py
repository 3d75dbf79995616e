"""A model's place: what is asked of it wherever it is, and the answers for files of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from servegraph.errors import ModelLoadError
from servegraph.serving.store_paths import resolve_inside
from servegraph.streams.uri import scheme_of


class Location(Protocol):
    """A file or folder somewhere."""

    @property
    def shown(self) -> str:
        """Its path or URI for messages."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    def is_folder(self) -> bool:
        """Whether it is a folder; raises `ModelLoadError` when it is not there."""

    def entries(self) -> list[str] | None:
        """The names in this folder, those of folders ending in ``/``; ``None`` where they cannot be known."""

    def child(self, name: str, where: str) -> Location:
        """What has that relative path in this folder; raises `ModelLoadError` when it could be outside."""

    def parent(self) -> Location | None:
        """The folder of this file, where it may be looked into."""

    def read_small(self, limit: int) -> bytes | None:
        """The first ``limit`` + 1 bytes; ``None`` when there is no such file."""

    def local(self) -> Path:
        """A local path with the same content."""


class LocalLocation:
    """A file or folder of this machine."""

    def __init__(self, path: Path, shown: str | None = None) -> None:
        self._path = path
        self.shown = shown or str(path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.name

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        self._check()
        return self._path.is_dir()

    def entries(self) -> list[str] | None:
        """The files and folders in this folder."""
        try:
            with os.scandir(self._path) as found:
                return sorted(e.name + "/" * e.is_dir() for e in found if e.is_dir() or e.is_file())
        except OSError as exc:
            raise ModelLoadError(f"{self.shown}: {exc.strerror}") from exc

    def child(self, name: str, where: str) -> LocalLocation:
        """What is in this folder, also when links are followed."""
        return LocalLocation(resolve_inside(self._path, name, where), f"{self.shown.rstrip('/')}/{name}")

    def parent(self) -> LocalLocation | None:
        """The folder of this file."""
        return LocalLocation(self._path.parent)

    def read_small(self, limit: int) -> bytes | None:
        """The file's beginning."""
        try:
            if not self._path.is_file():  # not a pipe, which would be waited for
                return None
            with self._path.open("rb") as file:
                return file.read(limit + 1)
        except OSError as exc:
            raise ModelLoadError(f"{self.shown}: {exc.strerror}") from exc

    def local(self) -> Path:
        """The path itself."""
        self._check()
        return self._path

    def _check(self) -> None:
        if not (self._path.is_file() or self._path.is_dir()):
            problem = "it is neither a file nor a folder" if self._path.exists() else "there is no such file or folder"
            raise ModelLoadError(f"{self.shown}: {problem}")


def local_path(uri: str) -> Path:
    """The absolute path that a path or a ``file`` URI stands for."""
    if scheme_of(uri) == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ModelLoadError(f"{uri}: a file URI of this machine begins with file:///")
        uri = unquote(parts.path)
    try:
        return Path(os.path.abspath(Path(uri).expanduser()))  # noqa: PTH100 - links are kept
    except RuntimeError as exc:
        raise ModelLoadError(f"{uri}: {exc}") from exc
