"""What a Dockerfile that came with a component says about it: how it is started, and where its code is."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError
from servegraph.runtimes.packaging.environment import COMPONENT_VARIABLES, Variable, variable

FILE: Final = "Dockerfile"
_COMMAND: Final = "seldon-core-microservice"
_LEGACY_APIS: Final = ("REST", "GRPC", "FBS")
_NAME_AND_REST = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)(?:=|\s+)")
_INSTALLS_REQUIREMENTS = re.compile(r"(?:python[0-9.]* -m )?pip[0-9.]* install (?:--?[\w\-]+(?:=\S+)? )*-r \S+")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")


@dataclass(slots=True)
class ExistingImage:
    """A component as its own Dockerfile starts it."""

    path: Path
    variables: list[Variable] = field(default_factory=list)
    """Its ``ENV``, and what its command says in their place."""
    base_image: str = ""
    folder: str = ""
    """The folder of the source that it copies; empty for all of it."""
    starts_component: bool = False
    arguments: list[str] = field(default_factory=list)
    """Further options of its command, such as ``--access-log``."""
    not_taken: list[str] = field(default_factory=list)
    """Instructions that have no place in the image that is built here."""

    def described(self) -> str:
        """One line about it."""
        values = {each.name: each.value for each in self.variables}
        known = " ".join(f"{name}={values[name]}" for name in COMPONENT_VARIABLES if name in values)
        options = f", options {shlex.join(self.arguments)}" if self.arguments else ""
        return (
            f"{self.path}: {known}, code from ./{self.folder}{options}, base image was {self.base_image or 'unknown'}"
        )


def read_dockerfile(path: Path) -> ExistingImage:
    """What a Dockerfile says; whether it starts a component is in the result.

    Raises:
        SettingsError: it cannot be read, or sets a variable that cannot be written again.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
    image = ExistingImage(path)
    for number, instruction, rest in _instructions(text):
        _take(image, instruction, rest, f"{path}:{number}")
    named = {each.name for each in image.variables}
    image.starts_component = image.starts_component and "MODEL_NAME" in named
    return image


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    joined = ""
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        start = start if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        instruction, _, rest = joined.partition(" ")
        joined = ""
        yield start, instruction.upper(), rest.strip()


def _take(image: ExistingImage, instruction: str, rest: str, place: str) -> None:
    if instruction == "FROM":
        image.base_image = rest.split()[0] if rest else ""
    elif instruction == "ENV":
        image.variables += [variable(text, place) for text in _assignments(rest, place)]
    elif instruction in ("COPY", "ADD"):
        _take_copy(image, rest, f"{place}: {instruction} {rest}")
    elif instruction in ("CMD", "ENTRYPOINT"):
        _take_command(image, rest, place)
    elif instruction == "RUN" and not _INSTALLS_REQUIREMENTS.fullmatch(rest):
        image.not_taken.append(f"{place}: RUN {rest}")
    elif instruction in ("ARG", "VOLUME", "SHELL", "ONBUILD", "STOPSIGNAL", "HEALTHCHECK"):
        image.not_taken.append(f"{place}: {instruction} {rest}")


def _assignments(rest: str, place: str) -> list[str]:
    """The assignments of an ``ENV``: ``NAME=VALUE ...``, or the older ``NAME VALUE``."""
    match = _NAME_AND_REST.match(rest)
    if match and not match.group().endswith("="):
        return [f"{match[1]}={rest[match.end() :].strip()}"]
    try:
        return shlex.split(rest)
    except ValueError as exc:
        raise SettingsError(f"{place}: ENV {rest} cannot be read: {exc}") from exc


def _take_copy(image: ExistingImage, rest: str, line: str) -> None:
    """The one folder that is copied whole is where the code is."""
    words = [word for word in rest.split() if not word.startswith("--")]
    source = words[0].strip("/") if len(words) == 2 and not rest.startswith("[") else ""
    folder = "" if source in (".", "*") else source.removeprefix("./")
    if "--from" in rest or not source or any(char in folder for char in "*?[$"):
        image.not_taken.append(line)
    elif (image.path.parent / folder).is_dir() and ".." not in folder.split("/"):
        image.folder = folder
    elif folder != "requirements.txt":  # copied by itself only to be cached
        image.not_taken.append(line)


def _take_command(image: ExistingImage, rest: str, place: str) -> None:
    words = _words(rest)
    if _COMMAND not in words:
        image.not_taken.append(f"{place}: {rest}")
        return
    image.starts_component = True
    positional: list[str] = []
    values = {"--service-type": "SERVICE_TYPE", "--persistence": "PERSISTENCE"}
    after = iter(words[words.index(_COMMAND) + 1 :])
    for word in after:
        option, equals, value = word.partition("=")
        if option in values:
            _set(image, values[option], value if equals else next(after, ""), place)
        elif not image.arguments and not word.startswith("-") and len(positional) < 2:
            positional.append(word)
        else:
            image.arguments.append(word)
    if positional:
        _set(image, "MODEL_NAME", positional[0], place)
    if len(positional) > 1 and (positional[1] in _LEGACY_APIS or "$" in positional[1]):
        _set(image, "API_TYPE", positional[1], place)
    if any("$" in word for word in image.arguments):
        image.not_taken.append(f"{place}: {' '.join(image.arguments)}")
        image.arguments = []


def _set(image: ExistingImage, name: str, value: str, place: str) -> None:
    """A value of the command; ``$NAME`` is what ``ENV`` says anyway, another variable is looked up."""
    known = {each.name: each.value for each in image.variables}
    found = _VARIABLE.fullmatch(value)
    if found and found[1] == name:
        return
    value = known.get(found[1], "") if found else value
    if value:
        image.variables.append(variable(f"{name}={value}", place))


def _words(rest: str) -> list[str]:
    """The words of a command: a JSON array, or a line for a shell."""
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except ValueError:
            words = []
        texts = [word for word in words if isinstance(word, str)]
        # ["sh", "-c", "seldon-core-microservice ..."]
        return [part for text in texts for part in (_split(text) if _COMMAND in text else [text])]
    return _split(rest)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []
