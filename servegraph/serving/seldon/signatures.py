"""How a component's methods are called: found out once, from their signatures.

Components name their parameters as they like and leave out what they do not use. A method is looked at when the
component is made; a request then calls it the one way that it takes, and an error inside it is never mistaken for
one of calling it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from servegraph.errors import GraphError

Invoke: TypeAlias = Callable[..., Any]
"""What a method is called through: takes everything there is to hand over, and hands on what the method takes."""

# Python 3.13 adds the name of a parameter that is near.
_NO_META: Final = re.compile(r"got an unexpected keyword argument '(meta|routing)'(\. Did you mean '\w+'\?)?$")


def takes_rows(method: Callable[..., Any], name: str) -> Invoke:
    """A call ``(values, names, meta)`` of predict, transform_input, transform_output, route or score.

    Raises:
        GraphError: the method needs arguments that nothing gives it.
    """
    signature = _signature(method)
    if signature is None:
        return _tried_rows(method)
    places, keywords, any_keyword = _parameters(signature)
    if any_keyword and places >= _ANY_NUMBER and not keywords:
        return _hidden(
            lambda values, names, meta: method(values, names, meta=meta),
            lambda values, names, meta: method(values, names),
        )
    if places == 0:
        raise GraphError(f"{name}() takes no argument: it is called with the values and the names of their columns")
    _refuse_required(signature, name, given=2, keywords=("meta",))
    wants_meta = ("meta" in keywords or any_keyword) and not _stands_within(signature, 2, "meta")
    if places == 1:
        return (
            (lambda values, names, meta: method(values, meta=meta))
            if wants_meta
            else (lambda values, names, meta: method(values))
        )
    if wants_meta:
        return lambda values, names, meta: method(values, names, meta=meta)
    return lambda values, names, meta: method(values, names)


def takes_lists(method: Callable[..., Any], name: str) -> Invoke:
    """A call ``(list of values, list of names)`` of aggregate."""
    signature = _signature(method)
    if signature is None:
        return method
    places, _, _ = _parameters(signature)
    _refuse_required(signature, name, given=2)
    return method if places >= 2 else (lambda values, names: method(values))


def takes_feedback(method: Callable[..., Any], name: str) -> Invoke:
    """A call ``(values, names, reward, truth, routing)`` of send_feedback, which may leave out ``routing``."""
    signature = _signature(method)
    if signature is None:
        return lambda values, names, reward, truth, routing: method(values, names, reward, truth, routing=routing)
    named = _named_otherwise(signature)
    if named:
        _refuse_required(signature, name, given=2, keywords=_SAID)
        return lambda values, names, reward, truth, routing: method(
            values, names, **{n: v for n, v in zip(_SAID, (reward, truth, routing), strict=True) if n in named}
        )
    places, keywords, any_keyword = _parameters(signature)
    _refuse_required(signature, name, given=4, keywords=("routing",))
    if places < 4:
        raise GraphError(f"{name}() must take the values, their names, the reward and the truth")
    if any_keyword and places >= _ANY_NUMBER and not keywords:
        return _hidden(
            lambda values, names, reward, truth, routing: method(values, names, reward, truth, routing=routing),
            lambda values, names, reward, truth, routing: method(values, names, reward, truth),
        )
    if ("routing" in keywords or any_keyword) and not _stands_within(signature, 4, "routing"):
        return lambda values, names, reward, truth, routing: method(values, names, reward, truth, routing=routing)
    return lambda values, names, reward, truth, routing: method(values, names, reward, truth)


_SAID: Final = ("reward", "truth", "routing")
"""What a feedback says beside the values and their names, in the order of Seldon's arguments."""


def _named_otherwise(signature: inspect.Signature) -> frozenset[str]:
    """What a feedback's method takes by name, where it has these names in another order; else nothing.

    Components of Seldon 0.x have ``(features, names, routing, reward, truth)``: by place they would get each other's.
    """
    behind = [p.name for p in _by_place(signature)[2:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    if behind[:2] == ["reward", "truth"] or not {"reward", "truth"} <= set(behind):
        return frozenset()
    return frozenset(name for name in signature.parameters if name in _SAID)


def takes_little(method: Callable[..., Any], name: str) -> Invoke:
    """A call ``(values)`` of tags, metrics, class_names and the like, most of which take nothing.

    One that takes the values gives ``None`` where there are none, as in a health check.
    """
    signature = _signature(method)
    if signature is None:
        return lambda values: method()
    required = [
        p
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    _refuse_required(signature, name, given=1)
    if not required:
        return lambda values: method()
    return lambda values: None if values is None else method(values)


_ANY_NUMBER: Final = 100


def _signature(method: Callable[..., Any]) -> inspect.Signature | None:
    """The signature, or ``None`` where there is none to look at, as for functions written in C."""
    try:
        return inspect.signature(method)
    except (TypeError, ValueError):
        return None


def _parameters(signature: inspect.Signature) -> tuple[int, set[str], bool]:
    """How many arguments it takes by place, which by keyword, and whether it takes any keyword."""
    places, keywords, any_keyword = 0, set(), False
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            places += 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            places += _ANY_NUMBER
        elif parameter.kind is parameter.VAR_KEYWORD:
            any_keyword = True
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            keywords.add(parameter.name)
    return places, keywords, any_keyword


def _by_place(signature: inspect.Signature) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in signature.parameters.values() if p.kind in kinds]


def _stands_within(signature: inspect.Signature, places: int, name: str) -> bool:
    """Whether a parameter of this name is among the first ones, which get what comes in those places."""
    return any(p.name == name and p.kind is p.POSITIONAL_OR_KEYWORD for p in _by_place(signature)[:places])


def _refuse_required(signature: inspect.Signature, name: str, given: int, keywords: tuple[str, ...] = ()) -> None:
    """Raise for a parameter without a default that nothing would fill."""
    for position, parameter in enumerate(_by_place(signature)):
        if position >= given and parameter.default is parameter.empty and parameter.name not in keywords:
            raise GraphError(f"{name}() needs an argument {parameter.name!r} that no request has: give it a default")
    for parameter in signature.parameters.values():
        missing = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if missing and parameter.name not in keywords:
            raise GraphError(f"{name}() needs an argument {parameter.name!r} that no request has: give it a default")


def _tried_rows(method: Callable[..., Any]) -> Invoke:
    """A call of a function that tells no signature: with all there is, else with less.

    A ``TypeError`` counts only when it comes from the call itself and not from Python code inside the function.
    """
    ways: Sequence[Invoke] = (
        lambda values, names, meta: method(values, names, meta=meta),
        lambda values, names, meta: method(values, names),
        lambda values, names, meta: method(values),
    )

    def invoke(values: Any, names: Any, meta: Any) -> Any:
        for way in ways[:-1]:
            try:
                return way(values, names, meta)
            except TypeError as exc:
                trace = exc.__traceback__
                if trace is None or trace.tb_next is None or trace.tb_next.tb_next is not None:
                    raise
        return ways[-1](values, names, meta)

    return invoke


def _hidden(with_all: Invoke, with_less: Invoke) -> Invoke:
    """A call of a function that takes anything, as decorators do, and hands it on to one that may take less.

    Once that one has refused the keyword, the function is called without it.
    """
    way = with_all

    def invoke(*arguments: Any) -> Any:
        nonlocal way
        try:
            return way(*arguments)
        except TypeError as exc:
            if way is with_less or _NO_META.search(str(exc)) is None:
                raise
        way = with_less
        return way(*arguments)

    return invoke
