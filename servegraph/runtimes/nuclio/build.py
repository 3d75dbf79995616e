"""The commands that build the image of a function."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from servegraph import __version__
from servegraph.errors import SpecError
from servegraph.runtimes.function import ServingFunction

_EXTRAS: Final = {
    "kafka": "kafka", "s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure",
}  # fmt: skip
"""The extra that an address of a scheme needs."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*)://")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][^\x00-\x1f\x7f\\]*")
_OURS = re.compile(r"servegraph\b(?![-_.])", re.IGNORECASE)
_COMMAND = re.compile(r"[^\x00-\x1f\x7f]*")


def build_commands(function: ServingFunction, spec: Mapping[str, Any]) -> list[str]:
    """What is run to build the image: the installation of servegraph and of the requirements, then the user's own.

    Each requirement is one quoted argument: nothing in it reaches the shell or becomes an option.

    Raises:
        SpecError: a requirement or command cannot stand in a build file.
    """
    requirements = function.spec.requirements
    for index, requirement in enumerate(requirements):
        if not _REQUIREMENT.fullmatch(requirement):
            raise SpecError(f"$.spec.requirements[{index}]: {requirement!r} is no requirement such as 'numpy>=1.26'")
    for index, command in enumerate(function.spec.commands):
        if not _COMMAND.fullmatch(command):
            raise SpecError(f"$.spec.commands[{index}]: a command is one line")
    wanted = list(requirements)
    if not any(_OURS.match(r) for r in requirements):
        extras = sorted({_EXTRAS[s] for s in _schemes(spec) if s in _EXTRAS})
        wanted.insert(0, f"servegraph{'[' + ','.join(extras) + ']' if extras else ''}=={__version__}")
    install = "pip install --no-cache-dir " + " ".join(map(shlex.quote, wanted))
    return [install, *function.spec.commands]


def _schemes(value: Any) -> Iterator[str]:
    """The schemes of the addresses in a spec."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "source":
                yield from _schemes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _schemes(inner)
    elif isinstance(value, str) and (found := _SCHEME.match(value)):
        yield found.group(1)
