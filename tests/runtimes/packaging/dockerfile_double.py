"""Reads a Dockerfile strictly, by Docker's own rules, and carries out what it says in a scratch folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servegraph.runtimes.packaging.ignore import Ignored, read_patterns

KNOWN = {"FROM", "LABEL", "ENV", "RUN", "WORKDIR", "COPY", "EXPOSE", "HEALTHCHECK", "USER", "ENTRYPOINT", "CMD"}


@dataclass
class Parsed:
    """A Dockerfile, instruction by instruction, and what its values come out as."""

    instructions: list[tuple[str, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    base: str = ""
    user: str = ""
    workdir: str = ""
    ports: list[int] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == name]

    def position(self, text: str) -> int:
        return next(i for i, (name, rest) in enumerate(self.instructions) if f"{name} {rest}".startswith(text))


def parse(text: str) -> Parsed:
    """A Dockerfile; an `AssertionError` for anything that Docker would not take, or would take for something else."""
    parsed = Parsed()
    for name, rest in _logical(text):
        assert name in KNOWN, f"{name!r} is no instruction"
        assert parsed.base or name == "FROM", "FROM comes first"
        parsed.instructions.append((name, rest))
        if name == "FROM":
            assert not parsed.base, "one stage only"
            assert re.fullmatch(r"[a-z0-9][\w.:/@\-]*", rest), rest
            parsed.base = rest
        elif name in ("ENV", "LABEL"):
            target = parsed.env if name == "ENV" else parsed.labels
            for key, value in _pairs(rest, parsed.env):
                target[key] = value
        elif name == "USER":
            assert re.fullmatch(r"\d+(:\d+)?", rest), rest
            parsed.user = rest
        elif name == "WORKDIR":
            assert rest.startswith("/"), rest
            parsed.workdir = rest
        elif name == "EXPOSE":
            parsed.ports = [int(port) for port in rest.split(" ")]
        elif name == "HEALTHCHECK":
            options, _, command = rest.partition("CMD ")
            assert re.fullmatch(r"(--(interval|timeout|start-period|retries)=\d+s?\s+)+", options), options
            parsed.health = _exec_form(command)
        elif name == "ENTRYPOINT":
            parsed.entrypoint = _exec_form(rest)
        elif name == "CMD":
            parsed.cmd = _exec_form(rest)
    return parsed


def _logical(text: str) -> Iterator[tuple[str, str]]:
    """The instructions: comments dropped, lines that end in a backslash joined; Docker knows no other line ends."""
    assert text.endswith("\n")
    # A first comment such as "# escape=`" would change how everything else is read.
    assert not re.match(r"#\s*(escape|syntax|check)\s*=", text, re.IGNORECASE)
    joined = ""
    for line in text.split("\n"):
        if line.strip() == "" or line.lstrip().startswith("#"):
            continue
        continued = re.search(r"\\[ \t]*$", line)
        joined += line[: continued.start()] if continued else line
        if continued:
            continue
        assert "<<" not in joined or joined.startswith(("ENV", "LABEL")), "a here-document"
        match = re.fullmatch(r"([A-Z]+) (.*)", joined, re.DOTALL)
        assert match, f"{joined!r} is no instruction"
        yield match[1], match[2].strip(" \t")
        joined = ""
    assert not joined, "the last line ends in a backslash"


def _pairs(rest: str, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The ``name=value`` words of an ENV or LABEL, quotes, escapes and variables resolved as Docker does."""
    at = 0
    while at < len(rest):
        if rest[at] in " \t":
            at += 1
            continue
        name = re.compile(r"([A-Za-z_][A-Za-z0-9_.\-]*)=").match(rest, at)
        assert name, f"no name=value at {rest[at:]!r}"
        value, at = _word(rest, name.end(), env)
        yield name[1], value


def _word(rest: str, at: int, env: Mapping[str, str]) -> tuple[str, int]:
    out: list[str] = []
    quote = ""
    while at < len(rest):
        char = rest[at]
        if not quote and char in " \t":
            break
        at += 1
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif char == "\\" and quote != "'":
            assert at < len(rest), "nothing follows a backslash"
            # Between double quotes a backslash escapes these and stays before anything else.
            out.append(rest[at] if not quote or rest[at] in '"\\$' else f"\\{rest[at]}")
            at += 1
        elif char == "$" and quote != "'":
            variable = re.compile(r"\{?([A-Za-z_][A-Za-z0-9_]*)\}?").match(rest, at)
            assert variable, "a $ that names nothing"
            out.append(env.get(variable[1], ""))
            at = variable.end()
        else:
            out.append(char)
    assert not quote, "a quote is never closed"
    return "".join(out), at


def _exec_form(rest: str) -> list[str]:
    words = json.loads(rest)
    assert isinstance(words, list)
    assert all(isinstance(word, str) for word in words)
    return words


class Scratch:
    """What an image would hold, in a folder: ``/microservice`` is ``<folder>/microservice``."""

    def __init__(self, context: Path, root: Path) -> None:
        self.context = context
        self.root = root
        self.parsed = parse((context / "Dockerfile").read_text(encoding="utf-8"))
        self._ignored = Ignored(read_patterns(context / ".dockerignore"))
        self._cwd = root
        root.mkdir(parents=True, exist_ok=True)
        self._env: dict[str, str] = {}
        self.runs: list[str] = []

    def build(self, path: str = "", *, runs: bool = True, env: Mapping[str, str] | None = None) -> None:
        """Do what the instructions say in their order; ``RUN`` with a PATH, or not at all."""
        for name, rest in self.parsed.instructions:
            if name == "ENV":
                self._env.update(_pairs(rest, self._env))
            elif name == "WORKDIR":
                self._cwd = self._inside(rest)
                self._cwd.mkdir(parents=True, exist_ok=True)
            elif name == "COPY":
                self._copy([word for word in rest.split(" ") if not word.startswith("--chown=")])
            elif name == "RUN":
                self.runs.append(rest)
                if runs or rest.startswith("mkdir"):
                    self._run(rest, {**self._env, "PATH": path or os.environ["PATH"], **(env or {})})

    def start(self, *arguments: str, path: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the container's process; arguments replace the default ones, as with ``docker run``."""
        entry = [self._mapped(word) for word in self.parsed.entrypoint]
        return subprocess.Popen(
            [*entry, *(arguments or self.parsed.cmd)],
            cwd=self.root,
            env={**self.parsed.env, "PATH": path, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def started(self, *arguments: str, path: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """The exit code and output of the container's process, ended."""
        process = self.start(*arguments, path=path, env=env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def health_command(self) -> list[str]:
        return [sys.executable, *(self._mapped(word) for word in self.parsed.health[1:2]), *self.parsed.health[2:]]

    def _inside(self, path: str) -> Path:
        return self.root / path.removeprefix("/")

    def _mapped(self, text: str) -> str:
        return re.sub(r"(?<![\w/])/(microservice|opt/servegraph|home/servegraph)\b", rf"{self.root}/\1", text)

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        assert target.endswith("/")
        for source in sources:
            place = self.context / source
            assert place.exists(), f"COPY {source}: not in the context"
            assert not self._ignored(source.rstrip("/")), f"COPY {source}: left out by .dockerignore"
            if place.is_dir():
                assert source.endswith("/")
                for each in sorted(place.rglob("*")):
                    inside = str(each.relative_to(place))
                    assert not self._ignored(f"{source}{inside}"), f"{inside} was written, but is left out"
                    self._put(each, self._inside(target) / inside)
            else:
                self._put(place, self._inside(target) / source)
        for script in self.root.glob("opt/servegraph/entry.sh"):
            script.write_text(self._mapped(script.read_text()))

    def _put(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copy(source, target)

    def _run(self, command: str, env: Mapping[str, str]) -> None:
        # The test may not be root, and what it makes is its own anyway.
        command = re.sub(r"&& chown \S+( /\S+)+", "", self._mapped(command).replace("\\\n", " "))
        done = subprocess.run(["/bin/sh", "-ec", command], cwd=self._cwd, env=dict(env), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
