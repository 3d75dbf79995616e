"""Names and URIs that come from model metadata, archives and specs: what they may say, and how they are shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

from servegraph.errors import ModelLoadError
from servegraph.streams.uri import redact, scheme_of

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PATH = 1024
_MAX_PART = 255
_MAX_PARTS = 32


def display_uri(uri: str) -> str:
    """A URI or path as messages and logs may show it: without passwords and the values of its query."""
    return redact(uri) if scheme_of(uri) else uri


def safe_relative(name: str, where: str) -> str:
    """A relative path with ``/`` between its parts, without ``.`` parts and without an ending ``/``.

    Raises:
        ModelLoadError: it could lead out of its folder, or no file could have it; the message begins with ``where``.
    """
    shown = f"{name[:80]!r}"
    if _CONTROL.search(name) or "\\" in name:
        raise ModelLoadError(f"{where}: {shown} holds a backslash or control character")
    if scheme_of(name) or name.startswith(("/", "~")) or re.match(r"[A-Za-z]:", name):
        raise ModelLoadError(f"{where}: {shown} is not a path relative to its folder")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ModelLoadError(f"{where}: {shown} leads out of its folder")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as exc:
        raise ModelLoadError(f"{where}: {shown} is no valid text") from exc
    if not parts or len(parts) > _MAX_PARTS or max(lengths) > _MAX_PART or sum(lengths) + len(parts) > _MAX_PATH:
        raise ModelLoadError(f"{where}: {shown} is empty or too long for a path")
    return "/".join(parts)


def resolve_inside(folder: Path, name: str, where: str) -> Path:
    """The path of a name in a folder, if links do not lead it elsewhere; it need not exist.

    Raises:
        ModelLoadError: it is outside of the folder.
    """
    path = folder / safe_relative(name, where)
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise ModelLoadError(f"{where}: {name!r} is a link that leads out of {folder}")
    return path
