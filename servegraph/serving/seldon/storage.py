"""Models behind the URIs that Seldon deployments write, made local by the model store."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from servegraph.errors import ModelLoadError
from servegraph.serving.store import fetch_tree
from servegraph.serving.store_options import FetchOptions
from servegraph.serving.store_paths import display_uri, resolve_inside, safe_relative
from servegraph.settings import environment
from servegraph.streams.uri import scheme_of

ENV_HOSTS: Final = "SERVEGRAPH_MODEL_HOSTS"
ENV_PVC_ROOT: Final = "SERVEGRAPH_PVC_ROOT"
PVC_ROOT: Final = "/mnt/pvc"
SUPPORTED: Final = (
    "a path, file:///path, http(s)://host/file, s3://bucket/path, gs://bucket/path, az://container/path, "
    "abfs://container/path, wasbs://container@account.blob.core.windows.net/path, pvc://claim/path"
)
"""The forms of a model's URI, for messages."""

_RCLONE = re.compile(r"[\w.+@ -]{2,}:(?!//)")  # a single letter would be a drive
_BLOB_HOST = re.compile(r"(?P<account>[a-z0-9]{3,24})\.(blob|dfs)\.core\.[a-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class StoragePlaces:
    """Where models may be."""

    pvc_root: Path = Path(PVC_ROOT)
    """The folder that the claim of a ``pvc://`` URI is mounted at."""
    hosts: tuple[str, ...] = ()
    """The only hosts that ``http`` and ``https`` may fetch from; none are all that have public addresses."""
    cache_dir: Path | None = None
    """Where fetched models are kept; ``None`` is the cache of the user."""

    @classmethod
    def from_environment(cls) -> StoragePlaces:
        """The places that ``SERVEGRAPH_PVC_ROOT`` and ``SERVEGRAPH_MODEL_HOSTS`` name."""
        environ = environment()
        hosts = environ.get(ENV_HOSTS, "").replace(",", " ").split()
        return cls(Path(environ.get(ENV_PVC_ROOT) or PVC_ROOT), tuple(hosts))


def local_model(uri: str, places: StoragePlaces | None = None) -> Path:
    """The file or folder of a model on this machine; what is elsewhere is fetched, archives are unpacked.

    Raises:
        ModelLoadError: the URI is of no form that is taken, or there is nothing behind it.
        MissingExtraError: the package for its scheme is not installed.
    """
    if not isinstance(uri, str) or not uri:
        raise ModelLoadError(f"model_uri is {uri!r}: it says where the model is, as {SUPPORTED}")
    places = places or StoragePlaces.from_environment()
    scheme = scheme_of(uri)
    if scheme is None:
        if _RCLONE.match(uri) and not Path(uri).exists():
            raise ModelLoadError(f"{uri}: remotes of rclone are not known here; a model's URI is {SUPPORTED}")
        return fetch_tree(uri, cache_dir=places.cache_dir)
    if scheme == "pvc":
        return _in_claim(uri, places.pvc_root)
    options = FetchOptions(hosts=places.hosts or None)
    if scheme in ("azure", "wasb", "wasbs"):
        uri, options = _azure(uri, options)
    elif scheme not in options.schemes:
        raise ModelLoadError(f"{display_uri(uri)}: models cannot come by {scheme}://; a model's URI is {SUPPORTED}")
    return fetch_tree(uri, cache_dir=places.cache_dir, options=options)


class Storage:
    """Downloads of models, under the name that components import."""

    @staticmethod
    def download(uri: str, out_dir: str | None = None) -> str:
        """The path of the model: its own if it is on this machine, else that of the copy fetched.

        Args:
            uri: where it is.
            out_dir: a folder that shall hold it: it gets a link to the file, or to each entry of the folder.

        Raises:
            RuntimeError: there is no such path on this machine.
            ModelLoadError: it cannot be fetched.
        """
        scheme = scheme_of(uri)
        if scheme in (None, "file") and not _RCLONE.match(uri):
            path = uri.removeprefix("file://") if scheme else uri
            if not Path(path).exists():
                raise RuntimeError(f"{uri}: there is no such file or folder; a model's URI is {SUPPORTED}")
        else:
            path = str(local_model(uri))
        if out_dir is None:
            return path
        _link(Path(path).absolute(), Path(out_dir))
        return out_dir


def _link(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for each in sorted(source.iterdir()) if source.is_dir() else [source]:
        link = target / each.name
        if link.is_symlink():
            link.unlink()  # of an earlier download
        elif link.exists():
            raise ModelLoadError(f"{link} is there already, and it is no link to a model")
        link.symlink_to(each)


def _in_claim(uri: str, root: Path) -> Path:
    parts = urlsplit(uri)
    if not parts.netloc:
        raise ModelLoadError(f"{uri}: a claim and a path in it are needed: pvc://claim/path")
    relative = parts.path.strip("/")
    path = resolve_inside(root, relative, uri) if relative else root
    if not path.exists():
        raise ModelLoadError(
            f"{uri}: {path} is not there; the claim {parts.netloc!r} is to be mounted at {root} "
            f"({ENV_PVC_ROOT} names another folder)"
        )
    return path


def _azure(uri: str, options: FetchOptions) -> tuple[str, FetchOptions]:
    """The URI of fsspec for one of Azure's, with the account that it names."""
    parts = urlsplit(uri)
    container, at, host = parts.netloc.rpartition("@")
    relative = safe_relative(parts.path.strip("/"), uri) if parts.path.strip("/") else ""
    if not at:
        return f"az://{host}/{relative}", options
    match = _BLOB_HOST.fullmatch(host)
    if match is None or not container:
        raise ModelLoadError(f"{display_uri(uri)}: write {parts.scheme}://container@account.blob.core.windows.net/path")
    named = {"account_name": match["account"]}
    return f"az://{container}/{relative}", dataclasses.replace(options, storage_options=named)
