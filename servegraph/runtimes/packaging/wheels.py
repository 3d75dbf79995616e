"""Wheels that lie on this machine and are installed in the image."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servegraph import __version__
from servegraph.errors import SettingsError

_ENDING: Final = ".whl"
# PEP 427, and no character that a shell or a Dockerfile reads as anything but itself.
_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?)-(?P<version>[0-9A-Za-z.!+_]+)(?:-[0-9][A-Za-z0-9_.]*)?"
    r"-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl"
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel and what its name says."""

    path: Path
    name: str
    version: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.path.name


def find_wheels(places: Iterable[Path]) -> list[Wheel]:
    """The wheels in files and folders, by the names of their files.

    Raises:
        SettingsError: a place holds none, a name is not that of a wheel, or two different wheels have one name.
    """
    found: dict[str, Wheel] = {}
    for place in places:
        for path in _paths(place):
            match = _NAME.fullmatch(path.name)
            if not match:
                raise SettingsError(f"--wheel {path}: {path.name!r} is not the name of a wheel")
            name = re.sub(r"[-_.]+", "-", match["name"]).lower()
            wheel = Wheel(path, name, match["version"])
            other = found.setdefault(path.name, wheel)
            if other is not wheel and _digest(other.path) != _digest(path):
                raise SettingsError(f"--wheel: {other.path} and {path} have one name, but not the same content")
    return [found[name] for name in sorted(found)]


def servegraph_requirement(wheels: Iterable[Wheel], extra: str, named_by_user: bool) -> str:
    """The requirement that brings servegraph into an image: the given wheel of it, else this version.

    Args:
        wheels: those that are given.
        extra: what it is installed with; may be empty.
        named_by_user: the user's requirements name servegraph, and so choose its version.

    Raises:
        SettingsError: there are several wheels of servegraph.
    """
    own = [wheel for wheel in wheels if wheel.name == "servegraph"]
    if len(own) > 1:
        raise SettingsError(f"--wheel: there are several of servegraph: {', '.join(wheel.file for wheel in own)}")
    name = f"servegraph[{extra}]" if extra else "servegraph"
    if named_by_user and not own:
        return name
    return f"{name}=={own[0].version if own else __version__}"


def _paths(place: Path) -> list[Path]:
    if place.is_dir():
        paths = sorted(path for path in place.iterdir() if path.name.endswith(_ENDING) and path.is_file())
        if not paths:
            raise SettingsError(f"--wheel {place}: the folder holds no {_ENDING} file")
        return paths
    if not place.is_file():
        raise SettingsError(f"--wheel {place}: there is no such file or folder")
    return [place]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
