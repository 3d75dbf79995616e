"""The variables of an image: ``.s2i/environment``, files of the same kind, and ``NAME=VALUE`` from a command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError, closest

FILE: Final = ".s2i/environment"
"""Where a source folder keeps its variables."""
SERVICE_TYPES: Final = ("MODEL", "ROUTER", "TRANSFORMER", "COMBINER", "OUTLIER_DETECTOR")
COMPONENT_VARIABLES: Final = ("MODEL_NAME", "SERVICE_TYPE", "API_TYPE", "PERSISTENCE")
"""What tells how the component of an image is started."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A tab is the one control character that a line of a Dockerfile can hold.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_CONDA_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_SECRET_NAME = re.compile(r"(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY)(?:_|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the image, and who set it."""

    name: str
    value: str
    place: str
    """Where it was read: a file with its line, or an option."""


def read_environment(path: Path) -> list[Variable]:
    """The variables of an environment file, in its order.

    As s2i reads it: one ``NAME=VALUE`` a line, white space around both is dropped, quotes are part of the value, and
    lines that begin with ``#`` are comments. Lines that s2i drops without a word are errors here.

    Raises:
        SettingsError: the file cannot be read, or a line is no variable; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path} is not UTF-8: byte {exc.start} is {exc.object[exc.start]:#04x}") from exc
    # Not splitlines(): to s2i and Docker a line ends with a line feed and with nothing else.
    lines = enumerate(text.split("\n"), start=1)
    return [variable(line, f"{path}:{number}") for number, line in lines if _counts(line)]


def _counts(line: str) -> bool:
    line = line.strip()
    return bool(line) and not line.startswith("#")


def variable(text: str, place: str) -> Variable:
    """The variable that a ``NAME=VALUE`` sets.

    Raises:
        SettingsError: it is none, or its value cannot stand in a Dockerfile.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals:
        raise SettingsError(f"{place}: {_shown(text)} is no variable: write NAME=VALUE")
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{place}: {_shown(name)} is no name of a variable: letters, digits and _, no digit first")
    bad = _UNWRITABLE.search(value)
    if bad:
        raise SettingsError(f"{place}: the value of {name} holds {bad.group()!r}, which a Dockerfile cannot")
    return Variable(name, value, place)


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def merged(groups: Iterable[Iterable[Variable]]) -> tuple[dict[str, Variable], list[str]]:
    """The variables of all groups by name, a later one in place of an earlier one; and warnings.

    A name that one group has twice is worth a warning; a later group replaces an earlier one on purpose.
    """
    found: dict[str, Variable] = {}
    warnings: list[str] = []
    for group in groups:
        own: dict[str, Variable] = {}
        for each in group:
            before = own.get(each.name)
            if before and before.value != each.value:
                warnings.append(f"{each.place}: {each.name} is set in {before.place} too; the last one counts")
            own[each.name] = each
        found.update(own)
    warnings += [_about_secret(each) for each in found.values() if _is_secret(each)]
    return found, warnings


def _is_secret(each: Variable) -> bool:
    return bool(_PASSWORD.search(each.value) or (each.value and _SECRET_NAME.search(each.name)))


def _about_secret(each: Variable) -> str:
    return (
        f"{each.place}: {each.name} looks like a secret, and everybody who has the image can read it; "
        "give it to the container when that is started"
    )


def check_component(variables: Mapping[str, Variable]) -> list[str]:
    """Warnings about the variables that start a component.

    Raises:
        SettingsError: one has a value that nothing can be started with.
    """
    warnings: list[str] = []
    service = variables.get("SERVICE_TYPE")
    if service and service.value not in SERVICE_TYPES:
        raise SettingsError(
            f"{service.place}: there is no SERVICE_TYPE {service.value!r}; {closest(service.value, SERVICE_TYPES)}"
        )
    persistence = variables.get("PERSISTENCE")
    if persistence and not re.fullmatch(r"[0-9]{1,9}", persistence.value):
        raise SettingsError(f"{persistence.place}: PERSISTENCE is 0 or 1, not {persistence.value!r}")
    api = variables.get("API_TYPE")
    if api and api.value not in ("REST", "GRPC"):
        warnings.append(f"{api.place}: there is no API_TYPE {api.value!r}; REST and gRPC are served")
    return warnings


def check_conda(variables: Mapping[str, Variable]) -> None:
    """See that the name of the conda environment is one.

    Raises:
        SettingsError: it is not.
    """
    conda = variables.get("CONDA_ENV_NAME")
    if conda and not _CONDA_NAME.fullmatch(conda.value):
        raise SettingsError(f"{conda.place}: CONDA_ENV_NAME is letters, digits, '_', '.' and '-', not {conda.value!r}")
