"""From what a spec names to what runs: classes, functions, expressions.

Names are looked up in the function's namespaces (its own code first), then imported. No name ever comes from a
request: everything is resolved once, when the graph is compiled.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from servegraph.errors import GraphError, closest, text_of
from servegraph.graph.expressions import compile_expression
from servegraph.importing import import_object

Namespace = ModuleType | Mapping[str, Any]

DEFAULT_ROUTER = "servegraph.serving.routers.ModelRouter"
REMOTE_STEP = "servegraph.serving.remote.RemoteStep"

# Spec names of other frameworks that mean a class of ours.
ALIASES: dict[str, str] = {
    "$remote": REMOTE_STEP,
    "storey.Filter": "servegraph.graph.builtin.Filter",
    "storey.Map": "servegraph.graph.builtin.Map",
    "storey.Extend": "servegraph.graph.builtin.Extend",
    "mlrun.serving.steps.ChoiceByField": "servegraph.graph.builtin.ChoiceByField",
    "mlrun.serving.merger.Merge": "servegraph.graph.builtin.Merge",
    "mlrun.serving.Merge": "servegraph.graph.builtin.Merge",
}
_ALIAS_PREFIXES = {
    "mlrun.serving.routers.": "servegraph.serving.",
    "mlrun.serving.remote.": "servegraph.serving.",
    "mlrun.serving.v2_serving.": "servegraph.serving.",
    "mlrun.serving.": "servegraph.serving.",
}


def resolve(reference: str, namespaces: Sequence[Namespace]) -> Any:
    """The object that a name stands for.

    Args:
        reference: ``name``, ``Class.method``, ``package.module.name`` or ``module:attr``.
        namespaces: modules and dicts, searched in order before importing.

    Raises:
        GraphError: there is no such object; the message lists near names.
    """
    reference = _alias(reference)
    if ":" not in reference:
        head, _, rest = reference.partition(".")
        for space in namespaces:
            names = space if isinstance(space, Mapping) else vars(space)
            if head in names:
                value = names[head]
                if isinstance(value, ModuleType) and rest:  # its submodules need importing
                    return import_object(f"{value.__name__}.{rest}")
                return _follow(value, rest, reference)
        if not rest:
            raise GraphError(f"there is no class or function {reference!r}; {_candidates(reference, namespaces)}")
    return import_object(reference)


def _alias(reference: str) -> str:
    if reference in ALIASES:
        return ALIASES[reference]
    for prefix, ours in _ALIAS_PREFIXES.items():
        if reference.startswith(prefix):
            return ours + reference[len(prefix) :]
    return reference


def _follow(value: Any, rest: str, reference: str) -> Any:
    for part in filter(None, rest.split(".")):
        if not hasattr(value, part):
            raise GraphError(f"{reference!r}: {getattr(value, '__name__', value)!r} has no attribute {part!r}")
        value = getattr(value, part)
    return value


def _candidates(reference: str, namespaces: Sequence[Namespace]) -> str:
    names: set[str] = set()
    for space in namespaces:
        entries = space if isinstance(space, Mapping) else vars(space)
        names.update(k for k, v in entries.items() if callable(v) and not k.startswith("_"))
    return closest(reference, names) if names else "give the class itself, or 'package.module.name' to import it"


def resolve_callable(reference: Any, namespaces: Sequence[Namespace]) -> Callable[..., Any]:
    """The function that a handler stands for: a callable, a name, or an ``"(expression)"`` over ``event``.

    Raises:
        GraphError: it names nothing, or nothing that can be called.
    """
    if isinstance(reference, str):
        text = reference.strip()
        if text.startswith("(") and text.endswith(")"):
            return compile_expression(text)
        target = resolve(text, namespaces)
    else:
        target = reference
    if not callable(target):
        raise GraphError(f"handler {reference!r} is {type(target).__name__}, which cannot be called")
    found: Callable[..., Any] = target
    return found


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a callable takes a parameter of this name."""
    return name in parameters(function)


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a callable takes arbitrary keyword arguments."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters(function).values())


def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a callable; none for builtins that do not tell."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def is_async(function: Any) -> bool:
    """Whether calling this gives a coroutine: an ``async def``, a partial of one, or an object whose call is one."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is what is asked about
    )


def instantiate(
    target: Any, arguments: Mapping[str, Any], common: Mapping[str, Any], namespaces: Sequence[Namespace], step: str
) -> Any:
    """An object of a class, with a step's arguments.

    ``common`` arguments (name, context, paths) are passed where the constructor takes them and the step's own
    arguments do not give them. Arguments whose name starts with ``_`` are resolved as callables and passed without
    the underscore.

    Raises:
        GraphError: the constructor does not take these arguments, or refused them; the cause is chained.
    """
    given: dict[str, Any] = {}
    for key, value in arguments.items():
        if key.startswith("_") and (isinstance(value, str) or callable(value)) and key not in parameters(target):
            given[key[1:]] = resolve_callable(value, namespaces)
        else:
            given[key] = value
    known = parameters(target)
    anything = takes_any(target)
    for key, value in common.items():
        if (key in known or anything) and given.get(key) is None:
            given[key] = value
    if not anything:
        unknown = [k for k in given if k not in known]
        if unknown and known:
            raise GraphError(
                f"step {step!r}: {target.__name__} takes no argument {unknown[0]!r}; {closest(unknown[0], known)}"
            )
    try:
        return target(**given)
    except TypeError as exc:
        shown = ", ".join(sorted(given))
        raise GraphError(f"failed to init step {step!r}: {target.__name__}({shown}): {text_of(exc)}") from exc
