"""The files of a source folder: what goes into the image, found without reading any of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.ignore import FILES, Ignored, Pattern, default_patterns, read_patterns
from servegraph.runtimes.packaging.output import MANIFEST

LARGE_FILE_BYTES: Final = 100 * 1024**2
"""From this size on a file is worth a warning: it is copied, sent to Docker and kept in a layer."""
_MARKS: Final = ("pyvenv.cfg", MANIFEST)
"""A folder with one of these is a virtual environment, or what a build wrote: no image needs either."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file, folder or link that goes into the image."""

    path: str
    """Where it is, relative to the source folder, with ``/``."""
    kind: str
    """``file``, ``folder`` or ``link``."""
    executable: bool = False
    link: str = ""
    """Of a link: where it leads, relative to the folder that holds it."""


@dataclass(slots=True)
class Sources:
    """What a source folder holds for the image."""

    root: Path
    patterns: tuple[Pattern, ...]
    """What is left out, in the order in which it was said."""
    entries: dict[str, SourceFile] = field(default_factory=dict)
    """By path, in the order of the paths."""
    left_out: set[str] = field(default_factory=set)
    """The topmost files and folders that are left out."""
    warnings: list[str] = field(default_factory=list)

    def has_file(self, path: str) -> bool:
        """Whether a path is a file, or a link, that goes into the image."""
        entry = self.entries.get(path)
        return entry is not None and entry.kind != "folder"

    def is_left_out(self, path: str) -> bool:
        """Whether a path is there, but stays out of the image."""
        parts = path.split("/")
        return any("/".join(parts[:count]) in self.left_out for count in range(1, len(parts) + 1))


def find_sources(root: Path, output: Path | None = None, prefix: str = "") -> Sources:
    """What of a folder goes into the image.

    Args:
        root: the folder, resolved.
        output: where the build context is written: never part of it.
        prefix: a folder within ``root``: only what is below it is taken, and patterns are those of ``root``.

    Raises:
        SettingsError: something can be neither copied nor passed over, such as a link that leaves the folder.
    """
    patterns = default_patterns()
    for name in FILES:
        if (root / name).is_file():
            patterns += read_patterns(root / name)
    if prefix:
        patterns = [p for p in (_within(pattern, prefix) for pattern in patterns) if p is not None]
    top = root / prefix
    sources = Sources(top, tuple(patterns))
    walker = _Walker(sources, Ignored(patterns), output)
    found = sorted(walker.walk(top, ""), key=lambda entry: entry.path.split("/"))
    sources.entries = {entry.path: entry for entry in found}
    sources.warnings += _missing_targets(sources)
    return sources


def _within(pattern: Pattern, prefix: str) -> Pattern | None:
    """A pattern as it looks from a folder further down; nothing if it matches nothing there."""
    if pattern.text.startswith("**"):
        return pattern
    inside = pattern.text.removeprefix(f"{prefix}/")
    return Pattern(inside, pattern.keeps) if inside != pattern.text else None


class _Walker:
    """Goes through a folder once."""

    def __init__(self, sources: Sources, ignored: Ignored, output: Path | None) -> None:
        self._sources = sources
        self._ignored = ignored
        self._output = output

    def walk(self, folder: Path, prefix: str) -> Iterator[SourceFile]:
        """The entries of a folder and of those below it."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as exc:
            raise SettingsError(f"{folder} cannot be read: {exc.strerror}") from exc
        for entry in entries:
            path = prefix + entry.name
            if Path(entry.path) == self._output:
                continue
            if self._is_passed_over(entry, path):
                self._sources.left_out.add(path)
                continue
            _check_name(path, folder)
            yield from self._found(entry, path)

    def _is_passed_over(self, entry: os.DirEntry[str], path: str) -> bool:
        if not entry.is_dir(follow_symlinks=False):
            return self._ignored(path)
        if self._ignored.whole(path):
            return True
        try:
            return any((Path(entry.path) / mark).is_file() for mark in _MARKS)
        except OSError:  # told when the folder is looked into
            return False

    def _found(self, entry: os.DirEntry[str], path: str) -> Iterator[SourceFile]:
        if entry.is_symlink():
            yield self._link(Path(entry.path), path)
        elif entry.is_dir():
            below = list(self.walk(Path(entry.path), f"{path}/"))
            if below or not self._ignored(path):
                yield SourceFile(path, "folder")
            yield from below
        elif entry.is_file():
            yield self._file(entry, path)
        else:
            self._sources.warnings.append(f"{entry.path} is left out: it is no file, folder or link")

    def _file(self, entry: os.DirEntry[str], path: str) -> SourceFile:
        if not os.access(entry.path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            raise SettingsError(f"{entry.path} cannot be read; name it in {FILES[0]} if the image needs none of it")
        status = entry.stat()
        if status.st_size >= LARGE_FILE_BYTES:
            self._sources.warnings.append(
                f"{entry.path} has {status.st_size / 1024**2:.0f} MiB: a model may also be mounted, or loaded from "
                f"its model_uri; name it in {FILES[0]} to leave it out"
            )
        return SourceFile(path, "file", executable=bool(status.st_mode & stat.S_IXUSR))

    def _link(self, place: Path, path: str) -> SourceFile:
        """A link within the folder, made relative: the folder has another place in the image."""
        root = self._sources.root
        try:
            target = place.resolve(strict=True)
        except (OSError, RuntimeError) as exc:
            raise SettingsError(f"{place} is a link that leads nowhere: {place.readlink()}") from exc
        if not target.is_relative_to(root):
            raise SettingsError(
                f"{place} is a link out of the folder, to {target}: copy what it leads to, or name it in {FILES[0]}"
            )
        return SourceFile(path, "link", link=os.path.relpath(target, place.parent.resolve()))


def _missing_targets(sources: Sources) -> Iterator[str]:
    """Warnings about links whose targets stay out of the image."""
    for entry in sources.entries.values():
        if entry.kind == "link":
            target = os.path.normpath(Path(entry.path).parent / entry.link)
            if target != "." and target not in sources.entries:
                yield f"{sources.root / entry.path} will lead nowhere in the image: {target} is left out"


def _check_name(path: str, folder: Path) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise SettingsError(f"{folder}: the name {path!r} is not UTF-8") from exc
    if any(ord(char) < 32 for char in path):
        raise SettingsError(f"{folder}: the name {path!r} holds a control character")
