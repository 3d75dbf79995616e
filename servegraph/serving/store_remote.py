"""Models in object stores and on other filesystems that fsspec knows."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from servegraph.errors import ModelLoadError, ServegraphError
from servegraph.importing import import_extra
from servegraph.serving.store_cache import ModelCache
from servegraph.serving.store_options import FetchOptions
from servegraph.serving.store_paths import display_uri, safe_relative
from servegraph.streams.uri import scheme_of

_CHUNK = 4 * 1024**2
_EXTRAS = {
    "s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"), "abfs": ("adlfs", "azure"), "abfss": ("adlfs", "azure"), "adl": ("adlfs", "azure"),
}  # fmt: skip
_VERSION_KEYS = (
    "ETag", "etag", "VersionId", "generation", "md5Hash", "content_md5", "checksum", "mtime", "LastModified",
    "last_modified", "updated", "created", "size",
)  # fmt: skip


class RemoteLocation:
    """A file or folder on an fsspec filesystem."""

    def __init__(self, fs: Any, path: str, shown: str, options: FetchOptions, cache: ModelCache) -> None:
        self._fs = fs
        self._path = path
        self.shown = shown
        self._options = options
        self._cache = cache

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self._path).name

    @functools.cached_property
    def _info(self) -> dict[str, Any]:
        with _explained(self.shown):
            self._fs.invalidate_cache()
            return dict(self._fs.info(self._path))

    def is_folder(self) -> bool:
        """Whether it is a folder or a prefix with something below it."""
        return bool(self._info["type"] == "directory")

    def entries(self) -> list[str] | None:
        """The names in this folder; those of folders end in ``/``."""
        with _explained(self.shown):
            listed = self._fs.ls(self._path, detail=True)
        found = {PurePosixPath(each["name"]).name + "/" * (each["type"] == "directory") for each in listed
                 if each["name"].rstrip("/") != self._path.rstrip("/")}  # fmt: skip
        return sorted(found)

    def child(self, name: str, where: str) -> RemoteLocation:
        """Something in this folder."""
        relative = safe_relative(name, where)
        path, shown = (f"{base.rstrip('/')}/{relative}" for base in (self._path, self.shown))
        return RemoteLocation(self._fs, path, shown, self._options, self._cache)

    def parent(self) -> RemoteLocation | None:
        """The folder of this file."""
        path, shown = (base.rstrip("/").rpartition("/")[0] for base in (self._path, self.shown))
        return RemoteLocation(self._fs, path, shown, self._options, self._cache) if path.strip("/") else None

    def read_small(self, limit: int) -> bytes | None:
        """The first ``limit`` + 1 bytes; ``None`` when there is no such file."""
        with _explained(self.shown):
            try:
                with self._fs.open(self._path, "rb") as file:
                    return bytes(file.read(limit + 1))
            except (FileNotFoundError, IsADirectoryError):
                return None

    def local(self) -> Path:
        """The local copy, fetched unless the cache has this version of it."""
        name = safe_relative(self.name or "model", self.shown)
        with self._cache.lock(self._source()) as shelf:
            self.__dict__.pop("_info", None)
            files = self._files() if self.is_folder() else {"": self._info}
            version = "\n".join(f"{relative}\t{_version(info)}" for relative, info in files.items())
            return shelf.find(version, name) or shelf.publish(version, name, lambda path: self._save(files, path))

    def _source(self) -> str:
        # The options tell stores of the same kind apart; the cache keeps no more than a hash of it all.
        options = sorted((k, repr(v)) for k, v in self._options.storage_options.items())
        return f"{self._fs.protocol} {options} {self._path}"

    def _files(self) -> dict[str, dict[str, Any]]:
        """All files below this folder by their path relative to it."""
        with _explained(self.shown):
            found = self._fs.find(self._path, detail=True)
        if len(found) > self._options.max_files:
            raise ModelLoadError(
                f"{self.shown}: {len(found)} files are more than the {self._options.max_files} allowed"
            )
        root = self._path.rstrip("/") + "/"
        files = {}
        for path, info in sorted(found.items()):
            if info.get("type") == "file" and not path.endswith("/"):
                files[safe_relative(path.removeprefix(root), self.shown)] = info
        if not files:
            raise ModelLoadError(f"{self.shown}: the folder is empty")
        return files

    def _save(self, files: dict[str, dict[str, Any]], target: Path) -> None:
        """Fetch the files below, or the one file at, the target."""
        left = self._options.max_bytes
        for relative, info in files.items():
            path = target / relative if relative else target
            path.parent.mkdir(parents=True, exist_ok=True)
            left -= self._save_one(str(info["name"]), info.get("size"), path, left)

    def _save_one(self, remote: str, size: int | None, path: Path, left: int) -> int:
        too_large = f"{self.shown}: it is larger than the {self._options.max_bytes} bytes that are allowed"
        if size is not None and size > left:
            raise ModelLoadError(too_large)
        until = time.monotonic() + self._options.timeout_s
        written = 0
        with _explained(self.shown), path.open("xb") as target, self._fs.open(remote, "rb") as source:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if written > left:
                    raise ModelLoadError(too_large)
                if time.monotonic() > until:
                    raise ModelLoadError(f"{self.shown}: it took longer than {self._options.timeout_s:g} s")
                target.write(chunk)
        if size is not None and written != size:
            raise ModelLoadError(f"{self.shown}: {written} of {size} bytes were received")
        return written


def open_remote(uri: str, options: FetchOptions, cache: ModelCache) -> RemoteLocation:
    """The location behind a URI.

    Raises:
        MissingExtraError: the package for its scheme is not installed.
        ModelLoadError: fsspec knows no such scheme.
    """
    scheme, shown = scheme_of(uri) or "", display_uri(uri)
    if "::" in uri:
        raise ModelLoadError(f"{shown}: chained URIs ('::') are not taken")
    feature = f"fetching models from {scheme}://"
    fsspec = import_extra("fsspec", feature=feature, extra=_EXTRAS.get(scheme, ("", "remote"))[1])
    if scheme in _EXTRAS:
        module, extra = _EXTRAS[scheme]
        import_extra(module, feature=feature, extra=extra)
    with _explained(shown):
        fs, path = fsspec.core.url_to_fs(uri, **options.storage_options)
    return RemoteLocation(fs, path, shown.rstrip("/"), options, cache)


def _version(info: dict[str, Any]) -> str:
    """What changes when the file does."""
    return " ".join(f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None)


@contextlib.contextmanager
def _explained(shown: str) -> Iterator[None]:
    """What a filesystem raises, as an error that names the place. Each raises errors of its own libraries."""
    try:
        yield
    except ServegraphError:
        raise
    except FileNotFoundError as exc:
        raise ModelLoadError(f"{shown}: there is no such file or folder") from exc
    except Exception as exc:
        raise ModelLoadError(f"{shown}: it cannot be read: {type(exc).__name__}: {exc}") from exc
