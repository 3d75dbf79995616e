"""Unpack archives from outside: regular files and folders only, within bounds, nowhere but in the given folder.

The tar reader is our own: it holds one block at a time, and takes no links, devices, sparse files or other kinds.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from servegraph.errors import ModelLoadError
from servegraph.serving.store_paths import safe_relative
from servegraph.serving.store_tar import read_tar

ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
"""The endings of what is unpacked."""

_CHUNK = 64 * 1024
_FREE_BYTES = 16 * 1024**2  # small archives may be of any ratio: they cannot do harm
# What the system says to names that cannot be together and to places before the beginning; gzip gives no number.
_ARCHIVE_FAULTS = (None, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_MAX_DIRECTORY = 4 * 1024**2  # bytes read at once; a zip file's directory is


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much an archive may hold."""

    max_entries: int = 10_000
    """Files and folders together."""
    max_bytes: int = 16 * 1024**3
    """All files together, unpacked."""
    max_ratio: float = 100.0
    """Unpacked bytes for each byte of the archive, once they are more than 16 MiB."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_archive(name: str) -> bool:
    """Whether a file's name ends as that of an archive."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack_archive(archive: Path, folder: Path, limits: ArchiveLimits | None = None) -> None:
    """Unpack an archive into a new folder, which has no links in it afterwards.

    On failure the folder is left as far as it got: the caller, who alone can see it, removes it.

    Raises:
        ModelLoadError: the archive is broken, holds something else than files and folders, a name that leads out of
            the folder or comes twice, or more than the limits allow.
        FileExistsError: the folder is there already.
    """
    folder.mkdir(mode=0o700)
    writer = _Writer(archive, folder, limits or ArchiveLimits())
    with _explained(archive):
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, writer)
        elif archive.name.lower().endswith(".tar"):
            with archive.open("rb") as raw:
                _unpack_tar(raw, writer)
        else:
            with gzip.open(archive) as stream:
                _unpack_tar(stream, writer)


class _Writer:
    """Writes what an archive holds, and counts."""

    def __init__(self, archive: Path, folder: Path, limits: ArchiveLimits) -> None:
        self.shown = archive.name
        self._folder = folder
        self._limits = limits
        self._entries = 0
        self._left = int(min(limits.max_bytes, max(_FREE_BYTES, limits.max_ratio * archive.stat().st_size)))
        self._budget = self._left

    def entry(self, name: str) -> Path:
        """Where the next entry goes."""
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise ModelLoadError(f"{self.shown}: it holds more than {self._limits.max_entries} entries")
        return self._folder / safe_relative(name, self.shown)

    def make_folder(self, name: str) -> None:
        """A folder; an archive may name it after its files."""
        if name.rstrip("/") != ".":  # the folder itself, which many archives begin with
            self.entry(name).mkdir(parents=True, exist_ok=True)

    def write(self, name: str, source: _Readable) -> None:
        """A file with all that the source still has."""
        path = self.entry(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            handle = os.open(path, flags, 0o644)
        except FileExistsError as exc:
            raise ModelLoadError(f"{self.shown}: {name[:80]!r} is in it twice") from exc
        with os.fdopen(handle, "wb") as file:
            while chunk := source.read(_CHUNK):
                self.spend(len(chunk))
                file.write(chunk)

    def spend(self, size: int) -> None:
        """Count unpacked bytes."""
        self._left -= size
        if self._left < 0:
            raise ModelLoadError(
                f"{self.shown}: it unpacks to more than the {self._budget} bytes that its size and the limits allow"
            )


def _unpack_tar(stream: IO[bytes] | gzip.GzipFile, writer: _Writer) -> None:
    for member in read_tar(stream, on_header=writer.spend):
        if member.is_folder:
            writer.make_folder(member.name)
        else:
            writer.write(member.name, member)


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    # The module reads a directory of any size at once: what it is given refuses that.
    with _Bounded(archive, writer.shown) as raw, zipfile.ZipFile(raw) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 0x1:
                raise ModelLoadError(f"{writer.shown}: {info.filename[:80]!r} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ModelLoadError(f"{writer.shown}: {info.filename[:80]!r} is not packed with deflate")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > info.is_dir():
                raise ModelLoadError(f"{writer.shown}: {info.filename[:80]!r} is neither a file nor a folder")
            if info.is_dir():
                writer.make_folder(info.filename)
            else:
                with opened.open(info) as source:
                    writer.write(info.filename, source)


class _Bounded:
    """A file for reading that gives no more than `_MAX_DIRECTORY` bytes at once."""

    def __init__(self, path: Path, shown: str) -> None:
        self._file = path.open("rb")
        self._shown = shown
        self.seek = self._file.seek
        self.tell = self._file.tell
        self.close = self._file.close

    def read(self, size: int = -1) -> bytes:
        """Bytes from the current place."""
        data = self._file.read(min(size, _MAX_DIRECTORY + 1) if size >= 0 else _MAX_DIRECTORY + 1)
        if len(data) > _MAX_DIRECTORY:
            raise ModelLoadError(f"{self._shown}: its directory is larger than {_MAX_DIRECTORY} bytes")
        return data

    def seekable(self) -> bool:
        """It is a regular file."""
        return True

    def __enter__(self) -> IO[bytes]:
        return self  # type: ignore[return-value]  # as much of a file as zipfile uses

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Faults of the archive as errors that name it."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, NotImplementedError, IndexError) as exc:
        raise ModelLoadError(f"{archive.name}: it is not a readable archive: {exc}") from exc
    except OSError as exc:
        if exc.errno not in _ARCHIVE_FAULTS:
            raise
        raise ModelLoadError(f"{archive.name}: it is not a readable archive: {exc.strerror or exc}") from exc
