"""Writes a build context into a folder, and touches nothing there that it did not write itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from servegraph.errors import SettingsError

MANIFEST: Final = ".servegraph-build.json"
"""Lists what a build wrote, for the next one."""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is written."""

    path: str
    """Where, relative to the folder, with ``/``."""
    content: bytes | Path | None
    """Of a file: what is in it, or the file that it is copied from; ``None`` for a folder."""
    executable: bool = False
    link: str = ""
    """Of a link: where it leads."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.content is None and not self.link


def write_entries(folder: Path, entries: Iterable[Entry], *, force: bool = False) -> None:
    """Write the entries into a folder; with ``force`` in place of what an earlier build wrote there.

    Modes are the same whatever the umask is, and the group may do what the user may.

    Raises:
        SettingsError: the folder is not empty and ``force`` is not set, or something that no build wrote is in
            the way; then nothing is written. Or the disk is full, and the like.
    """
    new = _with_folders(entries)
    _check_folder(folder, force)
    old = _read_manifest(folder)
    foreign = sorted(path for path, entry in new.items() if _is_foreign(folder, entry, old))
    foreign += sorted(path for path in new if _through_link(folder, path, old))
    if foreign:
        shown = ", ".join(foreign[:10]) + (", ..." if len(foreign) > 10 else "")
        raise SettingsError(f"{folder}: no build wrote {shown}: move it away, or choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # First, so that a build that fails halfway can be repeated.
        _write_manifest(folder, {*old, *new})
        _remove(folder, old, new)
        for entry in new.values():
            _write(folder / entry.path, entry)
        _write_manifest(folder, set(new))
    except OSError as exc:
        raise SettingsError(f"the build context is not complete: {exc}; --force writes it again") from exc


def _with_folders(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The entries by path, each behind the folders that it lies in."""
    found: dict[str, Entry] = {}
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.path).parents[:-1]):
            found.setdefault(str(parent), Entry(str(parent), None))
        found[entry.path] = entry
    return found


def _check_folder(folder: Path, force: bool) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise SettingsError(f"--output {folder} is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise SettingsError(f"--output {folder} is not empty; --force replaces what an earlier build wrote there")


def _is_foreign(folder: Path, entry: Entry, old: set[str]) -> bool:
    """Whether something that no build wrote is where an entry goes."""
    place = folder / entry.path
    if not place.is_dir() or place.is_symlink():
        return entry.path not in old and (place.is_symlink() or place.exists())
    if entry.is_folder:  # a folder may be shared
        return False
    return entry.path not in old or any(str(each.relative_to(folder)) not in old for each in place.rglob("*"))


def _through_link(folder: Path, path: str, old: set[str]) -> bool:
    """Whether a folder above is a link (that stays): what is written there would be somewhere else."""
    above = [str(parent) for parent in PurePosixPath(path).parents if str(parent) != "."]
    return any((folder / each).is_symlink() and each not in old for each in above)


def _remove(folder: Path, old: set[str], new: dict[str, Entry]) -> None:
    """Remove what an earlier build wrote, except the folders that are needed again or hold something else."""
    for path in sorted(old, key=lambda each: each.count("/"), reverse=True):
        place = folder / path
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.is_dir() and not (path in new and new[path].is_folder) and not any(place.iterdir()):
            place.rmdir()


def _write(place: Path, entry: Entry) -> None:
    if entry.link:
        place.symlink_to(entry.link)
        return
    if entry.content is None:
        place.mkdir(exist_ok=True)
        place.chmod(0o775)
        return
    if isinstance(entry.content, Path):
        shutil.copyfile(entry.content, place)
    else:
        place.write_bytes(entry.content)
    place.chmod(0o775 if entry.executable else 0o664)


def _write_manifest(folder: Path, paths: set[str]) -> None:
    text = json.dumps({"version": _VERSION, "wrote": sorted(paths)}, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(f"{text}\n", encoding="utf-8")


def _read_manifest(folder: Path) -> set[str]:
    """The paths that an earlier build wrote; none that lead out of the folder, whoever wrote the list."""
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        return set()
    try:
        paths = json.loads(path.read_bytes())["wrote"]
        if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths):
            raise ValueError("it holds no list of paths")
        if not all(_is_inside(folder, each) for each in paths):
            raise ValueError("a path leads out of the folder")
        return set(paths)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise SettingsError(f"{path} is not what a build wrote: {exc}") from exc


def _is_inside(folder: Path, path: str) -> bool:
    parts = path.split("/")
    if not all(part not in ("", ".", "..") for part in parts):
        return False
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    return not any((folder / each).is_symlink() for each in above)
