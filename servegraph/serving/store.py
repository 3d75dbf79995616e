"""Find a model behind a path or URI, make it local, and tell what its metadata say: what `get_model` stands on."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from servegraph.errors import ModelLoadError, ServegraphError, closest
from servegraph.serving.model_metadata import METADATA_FILES, parse_model_spec
from servegraph.serving.model_spec import ModelSpec
from servegraph.serving.safe_yaml import MAX_BYTES
from servegraph.serving.store_archive import ArchiveLimits, is_archive, unpack_archive
from servegraph.serving.store_cache import ModelCache, tree_digest
from servegraph.serving.store_extra import ExtraFile
from servegraph.serving.store_location import LocalLocation, Location, local_path
from servegraph.serving.store_options import FetchOptions
from servegraph.serving.store_paths import display_uri, safe_relative
from servegraph.streams.uri import scheme_of

_YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class FetchedModel:
    """A model that is on this machine."""

    uri: str
    """Where it came from, without passwords."""
    path: Path
    """The model's file, or its folder when the model is one."""
    spec: ModelSpec | None = None
    """Its metadata, if there are any."""
    extra: dict[str, ExtraFile] = field(default_factory=dict)
    """The further files that the metadata name; without metadata, the other files of its folder."""

    @property
    def artifact_parameters(self) -> dict[str, Any]:
        """The parameters kept with the model. Whoever merges them lets the arguments of the model's class win."""
        return dict(self.spec.parameters) if self.spec else {}

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the file, in hexadecimal; of a folder, that of its files' paths and digests."""
        return tree_digest(self.path)


def fetch_model(
    uri: str, suffix: str = "", *, cache_dir: Path | None = None, options: FetchOptions | None = None
) -> FetchedModel:
    """The model at a path or URI, made local where it is not.

    A folder is searched: its metadata file (`METADATA_FILES`) names the model's file; else it is the one file with
    the suffix. Without a suffix it is the folder's only file, or its only ``.pkl``, or else the folder itself. A
    metadata file may be given in place of its folder. A file is taken as it is, and metadata beside it are read
    unless they are about another file. An archive is unpacked when a file with another ending is asked for.

    The metadata's parameters are in ``artifact_parameters`` and are not merged with anything: a caller lets explicit
    arguments win over them.

    Args:
        uri: a local path or ``file://`` URI, ``http(s)://`` (a folder's URI ends in ``/`` and needs metadata), or what
            fsspec knows: ``s3://``, ``gs://``, ``az://`` …
        suffix: the ending of the wanted file, such as ``.pkl``.
        cache_dir: where fetched models are kept; by default ``servegraph/models`` in the user's cache folder.
        options: from where, how much and how long.

    Raises:
        ModelLoadError: there is no such model, or it may not be fetched; the message lists what is there.
        MissingExtraError: the package for the URI's scheme is not installed.
    """
    options = options or FetchOptions()
    store, shown = _Store(options, ModelCache(cache_dir)), display_uri(os.fspath(uri))
    try:
        found = store.find(store.open(os.fspath(uri)), suffix)
        fetched = FetchedModel(shown, found.path, found.spec, found.extra)
        if options.sha256 and fetched.digest != options.sha256.lower():
            raise ModelLoadError(f"{found.path}: its SHA-256 is {fetched.digest}, not {options.sha256.lower()}")
    except OSError as exc:
        if isinstance(exc, ServegraphError):
            raise
        raise ModelLoadError(f"{shown}: {exc}") from exc
    return fetched


def fetch_tree(uri: str, *, cache_dir: Path | None = None, options: FetchOptions | None = None) -> Path:
    """The whole file or folder at a path or URI, made local where it is not; nothing in it is searched for.

    An archive is unpacked, unless the options say otherwise: then the path is that of the folder it holds.

    Raises:
        ModelLoadError: there is nothing, or it may not be fetched.
        MissingExtraError: the package for the URI's scheme is not installed.
    """
    options = options or FetchOptions()
    try:
        return _Store(options, ModelCache(cache_dir)).whole(os.fspath(uri))
    except OSError as exc:
        if isinstance(exc, ServegraphError):
            raise
        raise ModelLoadError(f"{display_uri(os.fspath(uri))}: {exc}") from exc


class _Found(NamedTuple):
    """A model that is on this machine."""

    path: Path
    spec: ModelSpec | None = None
    extra: dict[str, ExtraFile] = {}  # noqa: RUF012 - it is never changed


class _Store:
    """Opens and searches locations with the same options and cache."""

    def __init__(self, options: FetchOptions, cache: ModelCache) -> None:
        self._options = options
        self._cache = cache
        self._unpack = options.extract

    def open(self, uri: str) -> Location:
        """The location behind a path or URI."""
        scheme = scheme_of(uri) or "file"
        if scheme == "store":
            raise ModelLoadError(f"{uri}: MLRun's store:// needs its service; give the artifact's target path")
        if scheme not in self._options.schemes:
            known = closest(scheme, self._options.schemes)
            raise ModelLoadError(f"{display_uri(uri)}: models may not come by {scheme}://; {known}")
        if not uri or "\0" in uri:
            raise ModelLoadError(f"{uri!r} is not the path of a model")
        if scheme == "file":
            return LocalLocation(local_path(uri))
        if scheme in ("http", "https"):
            from servegraph.serving.store_http import HttpLocation, checked_url  # few models come this way

            return HttpLocation(checked_url(uri), self._options, self._cache)
        from servegraph.serving.store_remote import open_remote

        return open_remote(uri, self._options, self._cache)

    def whole(self, uri: str) -> Path:
        """The local path of all that is at a path or URI, out of its archive."""
        location = self.open(uri)
        if is_archive(location.name) and self._unpack is not False and not location.is_folder():
            location = self._unpacked(location)
        return location.local()

    def find(self, location: Location, suffix: str) -> _Found:
        """The model's file or folder in a location, with its metadata and further files."""
        if location.is_folder():
            return self._in_folder(location, suffix)
        if self._to_unpack(location, suffix):
            return self._in_folder(self._unpacked(location), suffix)
        parent = location.parent()
        asked_for = suffix and location.name.endswith(suffix)
        is_metadata = location.name.endswith(_YAML) or location.name in METADATA_FILES
        if is_metadata and not asked_for and parent is not None:
            return self._in_folder(parent, suffix, location)
        if suffix and not asked_for:
            raise ModelLoadError(
                f"{location.shown}: it does not end in {suffix!r}"
                + (" (the URI of a folder ends in '/')" if scheme_of(location.shown) in ("http", "https") else "")
            )
        path = location.local()
        spec, _ = _metadata(parent) if parent is not None else (None, "")
        if spec is None or parent is None or spec.model_file not in ("", location.name):
            return _Found(path)
        return _Found(path, spec, self._extra(parent, spec))

    def _in_folder(self, folder: Location, suffix: str, metadata: Location | None = None) -> _Found:
        spec, source = _metadata(folder) if metadata is None else _read(metadata)
        if spec is not None and spec.model_file:
            return self._named(folder, spec, source, suffix)
        if metadata is not None and spec is None:
            raise ModelLoadError(f"{metadata.shown}: there is no such file")
        names = folder.entries()
        if names is None:
            raise ModelLoadError(f"{folder.shown}: no {' or '.join(METADATA_FILES)} there that names the model's file")
        chosen = _choose(folder, names, suffix)
        path = (folder.child(chosen, folder.shown) if chosen else folder).local()
        if spec is not None:
            return _Found(path, spec, self._extra(folder, spec))
        others = [n for n in names if not n.endswith("/") and n != chosen] if chosen else []
        return _Found(path, None, {n: _lazy(n, folder, n) for n in others})

    def _named(self, folder: Location, spec: ModelSpec, source: str, suffix: str) -> _Found:
        """The file that the metadata name, which need not have the suffix."""
        location, extra = folder.child(spec.model_file, f"{source}: model_file"), self._extra(folder, spec)
        try:
            if not self._to_unpack(location, suffix) or location.is_folder():
                return _Found(location.local(), spec, extra)
            unpacked = self._unpacked(location)
        except ModelLoadError as exc:
            raise ModelLoadError(f"{source}: model_file: {exc}; {_listing(folder)}") from exc
        inner = self._in_folder(unpacked, suffix)
        return _Found(inner.path, spec, {**inner.extra, **extra})

    def _extra(self, folder: Location, spec: ModelSpec) -> dict[str, ExtraFile]:
        return {
            name: ExtraFile(name, display_uri(value), functools.partial(self._fetch_uri, value))
            if scheme_of(value)
            else _lazy(name, folder, value)
            for name, value in spec.extra_data.items()
        }

    def _fetch_uri(self, uri: str) -> Path:
        if scheme_of(uri) == "file":
            raise ModelLoadError(f"{uri}: extra data may not be outside of the model's folder on this machine")
        return self.open(uri).local()

    def _to_unpack(self, location: Location, suffix: str) -> bool:
        if not is_archive(location.name) or self._unpack is False:
            return False
        return self._unpack is True or bool(suffix and not location.name.endswith(suffix))

    def _unpacked(self, location: Location) -> Location:
        """The folder that an archive holds. Archives within it stay packed: one may hold itself."""
        archive = location.local()
        self._unpack = False
        options = self._options
        limits = ArchiveLimits(options.max_files, options.max_bytes, options.max_ratio)
        digest = tree_digest(archive)
        with self._cache.lock(f"archive {digest}") as shelf:
            folder = shelf.find(digest, "unpacked") or shelf.publish(
                digest, "unpacked", lambda path: unpack_archive(archive, path, limits)
            )
        entries = os.listdir(folder)  # noqa: PTH208 - names, not paths
        if len(entries) == 1 and (folder / entries[0]).is_dir():
            folder /= entries[0]  # archives of a folder hold that folder, not what is in it
        return LocalLocation(folder, shown=location.shown)


def _metadata(folder: Location) -> tuple[ModelSpec | None, str]:
    """The metadata in a folder, and where they are."""
    names = folder.entries()
    for name in METADATA_FILES:
        if names is None or name in names:
            spec, source = _read(folder.child(name, folder.shown))
            if spec is not None:
                return spec, source
    return None, ""


def _read(location: Location) -> tuple[ModelSpec | None, str]:
    data = location.read_small(MAX_BYTES)
    return (None if data is None else parse_model_spec(data, location.shown)), location.shown


def _choose(folder: Location, names: list[str], suffix: str) -> str:
    """The model among the names in a folder; empty for the folder itself."""
    visible = [n for n in names if not n.startswith(".") and n not in METADATA_FILES]
    files = [n for n in visible if not n.endswith("/")]
    if suffix:
        wanted = [n for n in visible if n.rstrip("/").endswith(suffix)]
        if len(wanted) == 1:
            return safe_relative(wanted[0], folder.shown)
        problem = f"no file there ends in {suffix!r}" if not wanted else f"several files there end in {suffix!r}"
        raise ModelLoadError(f"{folder.shown}: {problem}; {_listing(folder)}")
    if not visible:
        raise ModelLoadError(f"{folder.shown}: there is no model in it; {_listing(folder)}")
    if len(visible) == 1 and files:
        return files[0]
    pickles = [n for n in files if n.endswith(".pkl")]
    return pickles[0] if len(pickles) == 1 else ""


def _listing(folder: Location) -> str:
    """What a folder holds, for a message."""
    names = folder.entries()
    if names is None:
        return "what else is there is not known"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"it holds: {', '.join(names[:20])}{more}" if names else "it is empty"


def _lazy(name: str, folder: Location, relative: str) -> ExtraFile:
    def fetch() -> Path:
        return folder.child(relative, f"{folder.shown}: extra_data.{name}").local()

    return ExtraFile(name, f"{folder.shown.rstrip('/')}/{relative}", fetch)
