"""The magics of a notebook that say how its function is built: ``%nuclio cmd``, ``env`` and ``config``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import SpecError, closest
from servegraph.settings import environment

_NAME = re.compile(r"%{1,2}nuclio\b[ \t]*(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_CONFIG = re.compile(r"([\w.\-]+)\s*(\+?=)\s*(.*)", re.DOTALL)

_NOTEBOOK_ONLY: Final = ("build", "deploy", "help", "show")
_UNSUPPORTED: Final[Mapping[str, str]] = {
    "add": "put the code of other files into a package, and name it in requirements",
    "env_file": "give the variables with '%nuclio env', or secrets with with_secrets",
    "handler": "functions of kind serving have a handler of their own: add a step to the graph",
    "mount": "give volumes with '%nuclio config spec.volumes = [...]'",
}
PYTHON_CELLS: Final = ("capture", "prun", "time", "timeit")
"""Cell magics whose cell holds Python."""


@dataclass(slots=True)
class Build:
    """What magics say."""

    commands: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def apply(self, text: str, place: str) -> None:
        """Take in a magic, if it is one of Nuclio's: the line, and for a cell magic the lines of the cell below it.

        Raises:
            SpecError: the magic is unknown, or does not mean anything; the message begins with ``place``.
        """
        found = _NAME.match(text.strip())
        if found is None:
            return
        head, _, body = found.group(1).partition("\n")
        name, _, rest = head.strip().partition(" ")
        if name in _NOTEBOOK_ONLY or not name:
            return
        if name in _UNSUPPORTED:
            raise SpecError(f"{place}: '%nuclio {name}' is not supported: {_UNSUPPORTED[name]}")
        actions: dict[str, Callable[[str, str], None]] = {"cmd": self._cmd, "env": self._env, "config": self._config}
        if name not in actions:
            raise SpecError(f"{place}: there is no magic '%nuclio {name}'; {closest(name, actions)}")
        flags, rest = _flags(rest.strip())
        if "--local-only" in flags or "-l" in flags:  # meant for the notebook alone
            return
        for line in [rest, *body.split("\n")]:
            if line.strip() and not line.strip().startswith("#"):
                actions[name](line.strip(), place)

    def _cmd(self, text: str, place: str) -> None:
        variables = environment()
        self.commands.append(_VARIABLE.sub(lambda m: variables.get(m.group(1), m.group()), text))

    def _env(self, text: str, place: str) -> None:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"{place}: write '%nuclio env NAME=value'")
        value = value.strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        self.env[name.strip()] = value[1:-1] if quoted else value

    def _config(self, text: str, place: str) -> None:
        found = _CONFIG.fullmatch(text)
        if found is None:
            raise SpecError(f"{place}: write '%nuclio config spec.key = <JSON>' or '+='")
        key, operator, raw = found.groups()
        try:
            value = jsoncodec.loads(raw)
        except jsoncodec.JSONDecodeError as exc:
            raise SpecError(f"{place}: the value of {key} is no JSON: {exc}") from exc
        target = self.config
        *parents, last = key.split(".")
        for part in parents:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise SpecError(f"{place}: {key}: {part!r} has a value already and no fields")
        target[last] = value if operator == "=" else _added(target.get(last), value, f"{place}: {key}")


def _flags(text: str) -> tuple[list[str], str]:
    """The options in front of a magic's text, and the text."""
    flags: list[str] = []
    while (word := text.partition(" ")[0]) in ("-c", "-l", "--config-only", "--local-only"):
        flags.append(word)
        text = text[len(word) :].lstrip()
    return flags, text


def _added(old: Any, value: Any, place: str) -> Any:
    if old is None:
        return value if isinstance(value, list) else [value]
    if isinstance(old, list):
        return [*old, *(value if isinstance(value, list) else [value])]
    if isinstance(old, dict) and isinstance(value, dict):
        return {**old, **value}
    raise SpecError(f"{place}: += adds to lists and objects, not to {type(old).__name__}")
