"""How the value of a setting is read: from a file's JSON, YAML or TOML value or from a text, with units and bounds.

`ValueError` tells what was got and what is accepted; `servegraph.settings` adds where it was given.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from servegraph import jsoncodec
from servegraph.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Kind:
    """What a number means: its name in messages and the range it lies in."""

    name: str
    minimum: float = -math.inf
    maximum: float = math.inf
    open_minimum: bool = False
    """Whether the minimum itself is left out."""
    optional: bool = False
    """Whether it may also be ``off``, which is ``None``."""


Count = Annotated[int, Kind("a whole number", minimum=1)]
Number = Annotated[int, Kind("a whole number", minimum=0)]
Port = Annotated[int, Kind("a port number", minimum=0, maximum=65535)]
OptionalPort = Annotated[int | None, Kind("a port number or off", minimum=0, maximum=65535, optional=True)]
Size = Annotated[int, Kind("a size in bytes, such as 8MiB", minimum=1)]
Seconds = Annotated[float, Kind("a number of seconds", minimum=0)]
Positive = Annotated[float, Kind("a number of seconds", minimum=0, open_minimum=True)]
OptionalText = str | None
OptionalFlag = bool | None
Milliseconds = Annotated[float, Kind("a number of milliseconds", minimum=0)]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[KMGT]B|[KMGT]iB?)?", re.IGNORECASE)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_FILE_LIMIT = 1024**2


def coerce(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it.

    Raises:
        ValueError: it is of another type or out of range.
    """
    if get_origin(annotation) is Annotated:
        base, kind = get_args(annotation)
        return None if kind.optional and _is_off(value) else _number(value, base, kind)
    if get_origin(annotation) is Literal:
        return _choice(value, get_args(annotation))
    if annotation is bool:
        return _boolean(value)
    if annotation == OptionalFlag:
        return None if value is None or value == "" else _boolean(value)
    if get_origin(annotation) is tuple:
        return _texts(value)
    if annotation == OptionalText and (value is None or isinstance(value, bool)):
        return None if value is None else "on" if value else "off"  # YAML's words for them
    if not isinstance(value, str) or not value:
        raise ValueError(f"{_shown(value)} is not a text")
    return value


def type_name(annotation: Any) -> str:
    """What an annotation accepts, in words."""
    if get_origin(annotation) is Annotated:
        kind: Kind = get_args(annotation)[1]
        return kind.name
    if get_origin(annotation) is Literal:
        return " | ".join(get_args(annotation))
    if get_origin(annotation) is tuple:
        return "a list of texts"
    return {bool: "true | false", OptionalFlag: "true | false", str: "a text", OptionalText: "a text"}[annotation]


def read_file(path: Path) -> Mapping[str, Any]:
    """The mapping that a YAML, JSON or TOML file holds.

    Raises:
        SettingsError: it is not there, too large, of an unknown ending, or not a mapping of settings.
    """
    suffix = path.suffix.lower()
    if suffix not in {".yaml", ".yml", ".json", ".toml"}:
        raise SettingsError(f"{path}: settings are read from files that end in .yaml, .yml, .json or .toml")
    try:
        if path.stat().st_size > _FILE_LIMIT:
            raise SettingsError(f"{path}: a settings file has at most {_FILE_LIMIT} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"cannot read the settings file {path}: {exc}") from exc
    data = _parse(text, suffix, path)
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise SettingsError(f"{path}: a settings file holds a mapping of settings, not {_shown(data)}")
    return data


def _parse(text: str, suffix: str, path: Path) -> Any:
    import yaml  # here, because few processes read a settings file

    try:
        if suffix == ".toml":
            return tomllib.loads(text)
        if suffix == ".json":
            return jsoncodec.loads(text)
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as exc:  # the TOML and JSON errors are ValueErrors
        raise SettingsError(f"{path}: {exc}") from exc


def _number(value: Any, base: Any, kind: Kind) -> int | float:
    number: int | float
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{_shown(value)} is not {kind.name}")
    try:
        if base is float:
            number = float(value)
        elif isinstance(value, str):
            number = _size(value) if kind.name.startswith("a size") else int(value)
        elif isinstance(value, int):
            number = value
        else:
            raise ValueError
    except ValueError:
        raise ValueError(f"{_shown(value)} is not {kind.name}") from None
    if not math.isfinite(number):
        raise ValueError(f"{_shown(value)} is not {kind.name}")
    if number < kind.minimum or number > kind.maximum or (kind.open_minimum and number == kind.minimum):
        raise ValueError(f"{_shown(value)} is out of range: it takes {_range(kind)}")
    return number


def _is_off(value: Any) -> bool:
    # YAML reads a bare ``off`` as false.
    return value is None or value is False or (isinstance(value, str) and value.strip().lower() == "off")


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError
    unit = (match[2] or "B").upper()
    base = 1024 if "I" in unit else 1000
    size = float(match[1]) * base ** "BKMGT".index(unit[0])
    if not size.is_integer():
        raise ValueError
    return int(size)


def _range(kind: Kind) -> str:
    least = f"more than {kind.minimum:g}" if kind.open_minimum else f"{kind.minimum:g} or more"
    return least if math.isinf(kind.maximum) else f"{kind.minimum:g} to {kind.maximum:g}"


def _choice(value: Any, choices: tuple[str, ...]) -> str:
    if isinstance(value, str) and value.strip().lower() in choices:
        return value.strip().lower()
    raise ValueError(f"{_shown(value)} is not one of {', '.join(choices)}")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    raise ValueError(f"{_shown(value)} is neither true nor false")


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    raise ValueError(f"{_shown(value)} is not a list of texts; in a variable, separate them by commas")


def _shown(value: Any) -> str:
    """A value for a message; nested ones by their type alone, for they can be large."""
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
