"""Requirement files as an image needs them: without the real ``seldon-core``, whose place servegraph takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError

REPLACED_NOTE: Final = "servegraph provides seldon_core and seldon-core-microservice; this would take their place:"

_SELDON = re.compile(r"seldon[-_.]+core(?![A-Za-z0-9\-_.])", re.IGNORECASE)
_SELDON_URL = re.compile(
    r"(?:^|\s|=)\S*(?:[#&]egg=seldon[-_.]+core\b|/seldon[-_.]core(?:\.git\b|-[0-9][^/]*\.(?:whl|tar\.gz|zip)))",
    re.IGNORECASE,
)
_SERVEGRAPH = re.compile(r"servegraph(?![A-Za-z0-9\-_.])", re.IGNORECASE)
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?<=-[rc]))(?P<path>.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s*=\s*|\s+)(?P<path>.+)")
_FOLDER_OPTION = re.compile(r"(?:-f|--find-links)(?:\s*=\s*|\s+)(?P<path>.+)")
_HASHES = re.compile(r"--hash[=\s]|^--require-hashes\b")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_LOCAL = re.compile(r"\.{0,2}/|\.(?:\[|$)|file:|[^\s\[@;=<>~!]+/|[^\s@;]+\.(?:whl|tar\.gz|zip)(?:$|[\s\[;#])")
_COMMENT = re.compile(r"(?:^|\s+)#.*$")
_EXTRAS = re.compile(r"\[([^\]]*)\]")


@dataclass(slots=True)
class Requirements:
    """What requirement files ask for."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Each file by its path in the source folder, as the image gets it."""
    replaced: list[str] = field(default_factory=list)
    """The lines that asked for the real seldon-core, each with its place."""
    extras: list[str] = field(default_factory=list)
    """What those lines named in brackets."""
    needs_source: bool = False
    """A line names something in the source folder, which has to be there first."""
    has_hashes: bool = False
    """pip asks for the hash of everything that is installed together with them."""
    has_servegraph: bool = False
    """They name servegraph themselves."""
    real_seldon: bool = False
    """The real seldon-core is among them and was kept."""


def read_requirements(root: Path, name: str, keep_seldon: bool = False) -> Requirements:
    """A requirement file with all that it includes, rewritten for an image.

    Raises:
        SettingsError: one of the files cannot be read, or lies outside of the source folder.
    """
    found = Requirements()
    _read(root, name, name, found, keep_seldon)
    return found


def requirements_of(lines: list[str], name: str, origin: str, keep_seldon: bool = False) -> Requirements:
    """The same of requirements that were found elsewhere, such as in ``pyproject.toml``.

    Args:
        lines: a requirement each.
        name: the name of the file that they are written into.
        origin: where they were found.
        keep_seldon: leave the real seldon-core among them.

    Raises:
        SettingsError: one is no single line.
    """
    for line in lines:
        if not line.isprintable():
            raise SettingsError(f"{origin}: {line!r} is no requirement such as 'numpy>=1.26'")
    found = Requirements()
    text = "".join(f"{line}\n" for line in [f"# From {origin}.", *lines])
    found.files[name] = _rewritten(text, Path(origin), found, keep_seldon).encode()
    return found


def _read(root: Path, name: str, place: str, found: Requirements, keep_seldon: bool) -> None:
    path = root / name
    try:
        resolved = path.resolve(strict=True)
        text = resolved.read_bytes().decode("utf-8-sig")
    except (OSError, RuntimeError) as exc:
        raise SettingsError(f"{place}: {path} cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path} is not UTF-8: byte {exc.start} is {exc.object[exc.start]:#04x}") from exc
    if not resolved.is_relative_to(root):
        raise SettingsError(f"{place}: {path} lies outside of {root}, and so outside of the image")
    found.files[name] = b""  # a file that includes itself is read once
    found.files[name] = _rewritten(text, path, found, keep_seldon).encode()
    for number, line in _logical(text):
        include = _INCLUDE.fullmatch(_bare(line))
        if include and not _URL.match(include["path"]):
            included = _relative(root, path.parent / _unquoted(include["path"]), f"{path}:{number}")
            if included not in found.files:
                _read(root, included, f"{path}:{number}", found, keep_seldon)


def _relative(root: Path, path: Path, place: str) -> str:
    parts: list[str] = []
    for part in path.relative_to(root).parts if path.is_relative_to(root) else ("..",):
        if part != "..":
            parts.append(part)
        elif not parts:
            raise SettingsError(f"{place}: {path} lies outside of {root}, and so outside of the image")
        else:
            parts.pop()
    return "/".join(parts)


def _rewritten(text: str, path: Path, found: Requirements, keep_seldon: bool) -> str:
    """The text with the lines that name seldon-core made comments; what it needs is noted in ``found``."""
    lines = text.split("\n")
    for number, line in _logical(text):
        bare = _bare(line)
        _note(bare, found)
        if not _is_seldon(bare):
            continue
        if keep_seldon:
            found.real_seldon = True
            continue
        found.replaced.append(f"{path}:{number}: {_requirement(bare)}")
        extras = _EXTRAS.search(bare)
        found.extras += [each.strip() for each in extras[1].split(",") if each.strip()] if extras else []
        start = number - 1
        count = line.count("\n") + 1
        lines[start] = f"# {REPLACED_NOTE}\n# {lines[start].rstrip()}"
        lines[start + 1 : start + count] = [f"# {each.rstrip()}" for each in lines[start + 1 : start + count]]
    return "\n".join(lines)


def _note(bare: str, found: Requirements) -> None:
    found.has_hashes = found.has_hashes or bool(_HASHES.search(bare))
    found.has_servegraph = found.has_servegraph or bool(_SERVEGRAPH.match(bare))
    named = _EDITABLE.fullmatch(bare) or _FOLDER_OPTION.fullmatch(bare)
    local = _unquoted(named["path"]) if named else bare
    is_local = not _URL.match(local) or local.startswith("file:")
    if is_local and (named or (not bare.startswith("-") and _LOCAL.match(_requirement(bare)))):
        found.needs_source = True


def _is_seldon(bare: str) -> bool:
    return bool(_SELDON.match(bare)) or (not bare.startswith(("-r", "-c", "--req", "--con")) and _names_url(bare))


def _names_url(bare: str) -> bool:
    return bool(_SELDON_URL.search(bare))


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """The lines as pip sees them, those that a backslash joins as one; each with the number of its first."""
    joined: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        joined.append(line)
        is_comment = len(joined) == 1 and line.lstrip().startswith("#")
        if line.rstrip("\r").endswith("\\") and not is_comment:
            continue
        yield number - len(joined) + 1, "\n".join(joined)
        joined = []
    if joined:
        yield text.count("\n") + 2 - len(joined), "\n".join(joined)


def _bare(line: str) -> str:
    """A logical line as one, without its comment."""
    return _COMMENT.sub("", re.sub(r"\\\r?\n", "", line)).strip()


def _requirement(bare: str) -> str:
    """The requirement without the options behind it."""
    return re.split(r"\s+--", bare, maxsplit=1)[0].rstrip("\\").strip()


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")
