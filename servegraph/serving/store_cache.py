"""The folder of fetched models: whole or not there at all, whichever process asks, and checked when it is used again.

::

    <root>/<source>.lock                one writer for each source at a time
    <root>/<source>/<version>/entry.json    what it is, and its digest
    <root>/<source>/<version>/data/<name>   the model
    <root>/<source>/.part-…             a download under way; what a killed process left is removed by the next one
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from servegraph import jsoncodec
from servegraph.errors import ModelLoadError
from servegraph.settings import environment

logger = logging.getLogger("servegraph.serving.store")

_CHUNK = 1024**2
_PART = ".part-"


class ModelCache:
    """A cache of models below one folder."""

    def __init__(self, root: Path | None = None) -> None:
        self._given = root

    @functools.cached_property
    def root(self) -> Path:
        """The folder; made when it is first needed."""
        if self._given is None:
            return _default_root()
        self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._given.resolve()

    @contextlib.contextmanager
    def lock(self, source: str) -> Iterator[CacheShelf]:
        """The versions of one source, while no other process or thread changes them."""
        key = _key(source)
        with (self.root / f"{key}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            shelf = CacheShelf(self.root / key, source)
            shelf.clear_parts()
            yield shelf


class CacheShelf:
    """The versions of one source in the cache."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        self._source = source
        folder.mkdir(mode=0o700, exist_ok=True)

    def find(self, version: str, name: str) -> Path | None:
        """The model of that version, if it is there and still what it was when it was fetched."""
        entry = self._folder / _key(version)
        model = entry / "data" / name
        try:
            recorded = jsoncodec.loads((entry / "entry.json").read_bytes())["digest"]
            if tree_digest(model) == recorded:
                return model
            logger.warning("%s has changed since it was fetched: it is fetched again", model)
        except FileNotFoundError:
            if not entry.exists():
                return None
            logger.warning("%s is not complete: it is fetched again", entry)
        except (ValueError, KeyError, TypeError):
            logger.warning("%s cannot be read: it is fetched again", entry / "entry.json")
        self._discard(entry)
        return None

    def publish(self, version: str | None, name: str, build: Callable[[Path], object]) -> Path:
        """The model that ``build`` writes to the path it is given; it can be seen by others once it is complete.

        Without a version the model is kept under its digest.
        """
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=self._folder))
        try:
            model = part / "data" / name
            model.parent.mkdir()
            build(model)
            digest = tree_digest(model)
            version = digest if version is None else version
            about = {"source": hashlib.sha256(self._source.encode()).hexdigest(), "version": version, "digest": digest}
            (part / "entry.json").write_bytes(jsoncodec.dumps(about))
            entry = self._folder / _key(version)
            try:
                part.rename(entry)
            except OSError:
                # Somebody was faster where locks do not work, or an unversioned source gave the same bytes again.
                found = self.find(version, name)
                if found is None:
                    part.rename(entry)
                return entry / "data" / name
            return entry / "data" / name
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def clear_parts(self) -> None:
        """Remove what processes that were killed have left."""
        for leftover in self._folder.glob(f"{_PART}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _discard(self, entry: Path) -> None:
        """Take an entry away at once, then remove its files."""
        aside = Path(tempfile.mkdtemp(prefix=_PART, dir=self._folder))
        entry.rename(aside / "old")
        shutil.rmtree(aside, ignore_errors=True)


def tree_digest(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of its files' paths and digests.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_dir():
        return _file_digest(path)
    whole = hashlib.sha256()
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file():
                whole.update(
                    f"{file.relative_to(path).as_posix()}\0{_file_digest(file)}\n".encode(errors="surrogateescape")
                )
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _default_root() -> Path:
    """The user's cache folder, or a private one for temporary files where there is none that can be written."""
    home = environment().get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - may stay unexpanded
    if os.path.isabs(home):  # noqa: PTH117
        root = Path(home, "servegraph", "models")
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            logger.info("%s cannot be made (%s): models are kept among the temporary files", root, exc.strerror)
        else:
            if os.access(root, os.W_OK | os.X_OK):
                return root
    root = Path(tempfile.gettempdir(), f"servegraph-models-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    about = root.lstat()
    # Its name can be foreseen, so another user might have made it.
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise ModelLoadError(f"{root} belongs to somebody else: give a cache_dir, or set XDG_CACHE_HOME")
    return root
