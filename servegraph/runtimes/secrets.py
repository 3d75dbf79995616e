"""Where a function's secrets come from. No message in here shows a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from servegraph.errors import SettingsError, closest
from servegraph.settings import environment

_KINDS = ("inline", "file", "env")
_MAX_FILE_BYTES = 1024**2


def read_secrets(kind: str, source: Any) -> dict[str, str]:
    """Secrets by name.

    Args:
        kind: ``inline``, ``file`` or ``env``.
        source: for ``inline`` a mapping of names to texts; for ``file`` the path of a file with a ``NAME=value`` on
            each line (blank lines and lines that start with ``#`` are left out, and so are quotes around a whole
            value); for ``env`` the names of environment variables, as a list or separated by commas.

    Raises:
        SettingsError: the kind is unknown, or the source cannot be read; the message never shows a value.
    """
    if kind == "inline":
        return _inline(source)
    if kind == "file":
        return _file(source)
    if kind == "env":
        return _environment(source)
    raise SettingsError(f"secrets of kind {kind!r} are unknown; {closest(str(kind), _KINDS)}")


def _inline(source: Any) -> dict[str, str]:
    if not isinstance(source, Mapping):
        raise SettingsError(f"inline secrets are a mapping of names to texts, not {type(source).__name__}")
    secrets: dict[str, str] = {}
    for name, value in source.items():
        if not isinstance(name, str) or not name:
            raise SettingsError(f"a secret's name is a text, not {type(name).__name__}")
        if not isinstance(value, str):
            raise SettingsError(f"the secret {name!r} must be a text, not {type(value).__name__}")
        secrets[name] = value
    return secrets


def _file(source: Any) -> dict[str, str]:
    if not isinstance(source, (str, Path)):
        raise SettingsError(f"secrets of kind 'file' need the file's path, not {type(source).__name__}")
    path = Path(source).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise SettingsError(f"the secrets file {str(path)!r} cannot be read: {exc.strerror}") from exc
    if len(data) > _MAX_FILE_BYTES:
        raise SettingsError(f"the secrets file {str(path)!r} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        # The cause would show the bytes around the place.
        raise SettingsError(f"the secrets file {str(path)!r} is not UTF-8 text (byte {exc.start})") from None
    return _lines(text, str(path))


def _lines(text: str, path: str) -> dict[str, str]:
    secrets: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or not name:
            raise SettingsError(f"{path}, line {number}: write NAME=value")
        if name in secrets:
            raise SettingsError(f"{path}, line {number}: {name!r} is given twice")
        secrets[name] = _unquoted(value.strip())
    return secrets


def _unquoted(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _environment(source: Any) -> dict[str, str]:
    if isinstance(source, str):
        names = [name.strip() for name in source.split(",") if name.strip()]
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        names = list(source)
    else:
        raise SettingsError(f"secrets of kind 'env' need names of variables, not {type(source).__name__}")
    secrets: dict[str, str] = {}
    variables = environment()
    for name in names:
        if not isinstance(name, str) or not name:
            raise SettingsError(f"the name of an environment variable is a text, not {type(name).__name__}")
        if name not in variables:
            raise SettingsError(f"the environment has no variable {name!r}, which a secret is to be read from")
        secrets[name] = variables[name]
    return secrets
