"""Typed parameters of components, as a deployment writes them: ``[{"name": …, "value": …, "type": …}]``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import SettingsError, closest
from servegraph.serving.seldon.errors import SeldonMicroserviceException

BAD_PARAMETER: Final = "MICROSERVICE_BAD_PARAMETER"
_TRUE: Final = frozenset(("y", "yes", "t", "true", "on", "1"))
_FALSE: Final = frozenset(("n", "no", "f", "false", "off", "0"))


def truth_of(text: str) -> bool:
    """A boolean from the words that deployments use for one.

    Raises:
        ValueError: it is none of them.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{text!r} is no boolean: write one of {', '.join(sorted(_TRUE | _FALSE))}")


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else truth_of(str(value))


_TYPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "INT": int,
    "FLOAT": float,
    "DOUBLE": float,
    "STRING": str,
    "BOOL": _truth,
}

_DEBUG: Final = "SELDON_DEBUG"
"""Seldon 0.x took it for its own server before it made the component, and deployments have it still."""
PARAMETER_TYPES: Final = tuple(_TYPES)


def typed_parameters(parameters: Any) -> dict[str, Any]:
    """The arguments for a component's class; ``SELDON_DEBUG``, which Seldon 0.x kept for itself, is none of them.

    Args:
        parameters: a list of objects with ``name``, ``value`` and ``type``; or a mapping, whose values are taken
            as they are.

    Raises:
        SeldonMicroserviceException: a value is not of its type, or the type is unknown.
        SettingsError: it is no list of parameters.
    """
    if parameters is None:
        return {}
    if isinstance(parameters, Mapping):
        return dict(parameters)
    if not isinstance(parameters, Iterable) or isinstance(parameters, (str, bytes)):
        raise SettingsError(f"parameters must be a list of objects, not {type(parameters).__name__}")
    typed: dict[str, Any] = {}
    for position, parameter in enumerate(parameters):
        if not isinstance(parameter, Mapping) or "name" not in parameter:
            raise SettingsError(f"parameters[{position}] must be an object with name, value and type")
        name = str(parameter["name"])
        if name == _DEBUG:
            continue
        typed[name] = _typed(name, parameter.get("value", ""), str(parameter.get("type") or "STRING"))
    return typed


def _typed(name: str, value: Any, kind: str) -> Any:
    convert = _TYPES.get(kind)
    if convert is None:
        raise SeldonMicroserviceException(
            f"Bad model parameter: {name} has the type {kind!r}; {closest(kind, _TYPES)}", reason=BAD_PARAMETER
        )
    try:
        return convert(value)
    except (ValueError, TypeError, OverflowError) as exc:
        raise SeldonMicroserviceException(
            f"Bad model parameter: {name} is {value!r}, which is no {kind}: {exc}", reason=BAD_PARAMETER
        ) from exc


def read_parameters(text: str, place: str) -> list[Any]:
    """The list of parameters in a JSON text.

    Raises:
        SettingsError: it is no JSON, or no list.
    """
    try:
        value = jsoncodec.loads(text or "[]")
    except jsoncodec.JSONDecodeError as exc:
        raise SettingsError(f"{place} is no JSON: {exc}") from exc
    if not isinstance(value, list):
        raise SettingsError(f"{place} must be a JSON list of objects with name, value and type")
    return value
