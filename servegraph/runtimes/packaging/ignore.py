"""Which files of a source folder stay out of an image: patterns as Docker reads them in ``.dockerignore``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError

FILES: Final = (".dockerignore", ".s2iignore")
"""The files of a source folder that hold patterns; the later one has the last word."""
DEFAULTS: Final = (
    ".dockerignore", ".s2iignore", ".s2i", "Dockerfile",
    "**/.git", "**/.gitignore", "**/.gitattributes", "**/.hg", "**/.svn",
    "**/.venv", "**/__pycache__", "**/*.pyc", "**/*.pyo", "**/*.pyd", "**/*.egg-info",
    "**/.mypy_cache", "**/.ruff_cache", "**/.pytest_cache", "**/.hypothesis", "**/.tox", "**/.nox",
    "**/.coverage", "**/.ipynb_checkpoints", "**/.idea", "**/.vscode", "**/.DS_Store",
    "**/.env", "**/.env.*", "**/.netrc", "**/.pypirc", "**/.ssh", "**/.aws", "**/.kube", "**/.docker",
    "**/id_rsa", "**/id_ed25519",
)  # fmt: skip
"""What no component needs: version control, environments, caches, and what usually holds secrets."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line of an ignore file."""

    text: str
    """What to match, in the form that Docker makes of it: no slash at either end."""
    keeps: bool
    """It began with ``!``: what it matches is kept."""

    def written(self, folder: str) -> str:
        """The line that says the same of a folder that lies in another."""
        return f"{'!' if self.keeps else ''}{folder}/{self.text}"


class Ignored:
    """Tells what an ordered list of patterns leaves out; the last one that matches decides."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._compiled = [(re.compile(_regex(p.text), re.DOTALL), p.keeps) for p in self.patterns]
        self._keeping = [p.text.split("/") for p in self.patterns if p.keeps]

    def __call__(self, path: str) -> bool:
        """Whether a path (relative, with ``/``) is left out, be it for a folder above it."""
        parts = path.split("/")
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        left_out = False
        for regex, keeps in self._compiled:
            if left_out == keeps and any(regex.fullmatch(each) for each in paths):
                left_out = not keeps
        return left_out

    def whole(self, folder: str) -> bool:
        """Whether a folder is left out with everything in it, so that nobody has to look into it."""
        return self(folder) and not any(_may_match_below(segments, folder.split("/")) for segments in self._keeping)


def default_patterns() -> list[Pattern]:
    """What stays out of every image unless an ignore file takes it back with ``!``."""
    return [Pattern(text, keeps=False) for text in DEFAULTS]


def read_patterns(path: Path) -> list[Pattern]:
    """The patterns of an ignore file.

    Raises:
        SettingsError: it cannot be read, or a line is no pattern; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
    return patterns_of(text, str(path))


def patterns_of(text: str, place: str) -> list[Pattern]:
    """The patterns of a text, one a line; ``place`` is where it was read.

    Raises:
        SettingsError: a line is no pattern; the message names the line.
    """
    lines = enumerate(text.split("\n"), start=1)
    found = [_pattern(line.strip(), f"{place}:{number}") for number, line in lines if not line.startswith("#")]
    return [pattern for pattern in found if pattern is not None]


def _pattern(line: str, place: str) -> Pattern | None:
    keeps = line.startswith("!")
    text = line[1:].strip() if keeps else line
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SettingsError(f"{place}: {line!r} leads out of the folder")
    if not parts:
        if keeps and not text:
            raise SettingsError(f"{place}: write a pattern behind the '!'")
        return None
    cleaned = "/".join(parts)
    try:
        for part in parts:  # one by one: a group in brackets ends within its name
            re.compile(_regex(part))
    except (re.error, ValueError) as exc:
        raise SettingsError(f"{place}: {line!r} is no pattern: {exc}") from exc
    return Pattern(cleaned, keeps)


def _regex(pattern: str) -> str:
    """The regular expression of a pattern: ``*``, ``?`` and ``[...]`` within a name, ``**`` over any number of them."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                found.append("(?:.*/)?")
            else:
                found.append(".*")
            continue
        at += 1
        if char == "*":
            found.append("[^/]*")
        elif char == "?":
            found.append("[^/]")
        elif char == "[":
            group, at = _group(pattern, at)
            found.append(group)
        elif char == "\\":
            if at == len(pattern):
                raise ValueError("nothing follows the last '\\'")
            found.append(re.escape(pattern[at]))
            at += 1
        else:
            found.append(re.escape(char))
    return "".join(found)


def _group(pattern: str, at: int) -> tuple[str, int]:
    """The regular expression of ``[...]`` whose inside begins at a place, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not pattern.startswith("]", at) or not ranges:
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        if high < low:
            raise ValueError(f"{low}-{high} is no range")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    inside = "".join(ranges)
    # Neither kind matches the slash between names.
    return (f"[^/{inside}]" if negated else f"(?!/)[{inside}]"), at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    elif pattern[at : at + 1] in ("-", "]"):
        raise ValueError("a '-' or ']' in [...] needs a '\\' before it")
    if at >= len(pattern):
        raise ValueError("a '[' is never closed")
    return pattern[at], at + 1


def _may_match_below(segments: list[str], folder: list[str]) -> bool:
    """Whether a pattern could match something in a folder."""
    for segment, name in zip(segments, folder, strict=False):
        if "**" in segment:
            return True
        if not re.fullmatch(_regex(segment), name, re.DOTALL):
            return False
    return True
