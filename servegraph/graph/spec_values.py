"""Code and values as a spec writes them: references to classes and functions, and plain JSON values."""

from __future__ import annotations

import math
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from servegraph.graph.expressions import Expression
from servegraph.graph.spec_fields import at, misfit, shown
from servegraph.graph.steps import Step

_MAX_DEPTH = 64  # with what stands around a value, below what is read from YAML


def code_of(step: Step, path: str) -> tuple[str | None, dict[str, Any], str | None]:
    """The class name, class arguments and handler of a step, as a spec writes them.

    Raises:
        SpecError: something in them cannot be named or written.
    """
    arguments: dict[str, Any] = dict(step.class_args)
    class_name = step.class_name
    if class_name is not None and not isinstance(class_name, (str, type)):
        arguments = {**_own_arguments(class_name, at(path, "class_name")), **arguments}
        class_name = type(class_name)
    name = _reference(class_name, at(path, "class_name"))
    handler = _reference(step.handler, at(path, "handler"))
    return name, _plain_arguments(arguments, at(path, "class_args")), handler


def _own_arguments(instance: Any, path: str) -> dict[str, Any]:
    to_dict = getattr(instance, "to_dict", None)
    if not callable(to_dict):
        raise misfit(
            path,
            f"an object of {type(instance).__name__} without to_dict() cannot be written: "
            "give the class, with its arguments beside it",
        )
    described = to_dict()
    arguments = described.get("class_args") if isinstance(described, Mapping) else None
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise misfit(path, f"{type(instance).__name__}.to_dict() gives class_args that are {shown(arguments)}")
    return dict(arguments)


def _reference(value: Any, path: str) -> str | None:
    return value if value is None or isinstance(value, str) else reference_of(value, path)


def reference_of(value: Any, path: str = "$") -> str:
    """The name by which a class or function can be imported again; the bare name for one of ``__main__``, the
    text of an expression.

    Raises:
        SpecError: it has no such name; the message says what to do.
    """
    if isinstance(value, Expression):
        return value.source if re.fullmatch(r"\(.*\)", value.source.strip(), re.DOTALL) else f"({value.source})"
    module_name = getattr(value, "__module__", None)
    qualname = getattr(value, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str):
        raise misfit(path, f"{shown(value)} has no name to import it by: use a function or class of a module")
    if "<lambda>" in qualname:
        raise misfit(
            path, "a lambda has no name to import it by: write a function with def in a module, or an '(expression)'"
        )
    if "<locals>" in qualname:
        raise misfit(
            path, f"{qualname!r} is defined inside a function and cannot be imported: define it at module level"
        )
    if module_name == "__main__":
        return qualname
    found: Any = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not value and not (found is not None and _same_method(found, value)):
        hint = "give the class, and the method's name as handler" if hasattr(value, "__self__") else "define it there"
        raise misfit(path, f"{module_name}.{qualname} is not this {type(value).__name__}: {hint}")
    return f"{module_name}.{qualname}"


def _same_method(found: Any, value: Any) -> bool:
    """Whether both are the same class method (each access makes a new object)."""
    return isinstance(getattr(value, "__self__", None), type) and bool(found == value)


def _plain_arguments(arguments: Mapping[Any, Any], path: str) -> dict[str, Any]:
    """Arguments as JSON; a function or class goes under its key with ``_`` in front, which reads it back."""
    plain: dict[str, Any] = {}
    for key, value in arguments.items():
        place = at(path, key)
        if not isinstance(key, str):
            raise misfit(path, f"the argument {key!r} is {type(key).__name__}; arguments are named by text")
        if isinstance(value, Expression) or (callable(value) and hasattr(value, "__qualname__")):
            plain[f"_{key}"] = reference_of(value, place)
        else:
            plain[key] = plain_value(value, place)
    return plain


def plain_value(value: Any, path: str, depth: int = 0) -> Any:
    """A copy of a value that JSON can hold and gives back equal; tuples become lists, paths text.

    Raises:
        SpecError: it holds something else; the message has the path to it.
    """
    if depth > _MAX_DEPTH:
        raise misfit(f"{path[:80]}…", "the value is nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain_key(k, path): plain_value(v, at(path, k), depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(v, at(path, i), depth + 1) for i, v in enumerate(value)]
    for kind, convert in _SCALARS.items():
        if isinstance(value, kind):
            return convert(value, path)
    raise misfit(path, f"{shown(value)} is of type {type(value).__name__}, which JSON cannot hold: {_ADVICE}")


_ADVICE = "use text, numbers, true/false, lists and objects of them"


def _plain_key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise misfit(path, f"the key {key!r} is {type(key).__name__}; the keys of an object are text")
    return _text(key, path)


def _text(value: str, path: str) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise misfit(path, f"{shown(value)} is not valid Unicode text: {exc.reason}") from exc
    return text


def _whole(value: int, path: str) -> int:
    if not -(2**63) <= value < 2**64:
        raise misfit(path, "the number needs more than 64 bits: write it as text")
    return int(value)


def _real(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise misfit(path, f"{value} is no JSON number: use null or text")
    return float(value)


def _file(value: pathlib.PurePath, path: str) -> str:
    return _text(str(value), path)


_SCALARS: dict[type, Callable[[Any, str], Any]] = {str: _text, int: _whole, float: _real, pathlib.PurePath: _file}


def copied(value: Any) -> Any:
    """A copy of the dicts and lists of a value; what they hold is shared."""
    if isinstance(value, Mapping):
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if isinstance(value, list) else value
