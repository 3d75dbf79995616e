"""Finds out which source files have changed, by their modification times."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from servegraph.errors import SettingsError

_SUFFIXES = frozenset({".py", ".ipynb", ".yaml", ".yml", ".json", ".toml"})
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv"})


class FileWatch:
    """Watches files, and in folders the code and spec files; hidden folders and environments are left out.

    Raises:
        SettingsError: a path to watch is not there.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self._paths = [Path(path) for path in paths]
        for path in self._paths:
            if not path.exists():
                raise SettingsError(f"cannot watch {path} for changes: it is not there")
        self._seen = self._stamps()

    def changed(self) -> list[Path]:
        """The files that were written, added or removed since the last call."""
        before, self._seen = self._seen, self._stamps()
        names = before.keys() | self._seen.keys()
        return sorted(Path(name) for name in names if before.get(name) != self._seen.get(name))

    def _stamps(self) -> dict[str, tuple[int, int]]:
        stamps: dict[str, tuple[int, int]] = {}
        for name in self._files():
            try:
                status = os.stat(name)  # noqa: PTH116  # many files, often: names are cheaper than paths
            except FileNotFoundError:  # removed meanwhile, or an editor is replacing it
                continue
            stamps[name] = (status.st_mtime_ns, status.st_size)
        return stamps

    def _files(self) -> Iterator[str]:
        for path in self._paths:
            if not path.is_dir():
                yield str(path)
                continue
            for folder, folders, names in os.walk(path):
                folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
                for name in names:
                    if os.path.splitext(name)[1] in _SUFFIXES and not name.startswith("."):  # noqa: PTH122
                        yield os.path.join(folder, name)  # noqa: PTH118
