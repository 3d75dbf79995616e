"""What a component's methods give, taken apart: wrapped answers, scores, routes, and methods that are left out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.raw import is_not_implemented

Ask: TypeAlias = Callable[[Callable[[Any], Any], Any], Any]
"""How a method is asked for what it says of a request's values: `implemented`, or another way to the same."""


class Scored:
    """The input of an outlier detector with its score."""

    __slots__ = ("score", "value")

    def __init__(self, value: Any, score: Any) -> None:
        self.value = value
        self.score = np.asarray(score).tolist()


async def scored_later(value: Any, score: Awaitable[Any]) -> Scored:
    """The same where the score has to be waited for."""
    return Scored(value, await score)


def is_response(result: Any) -> bool:
    """Whether a result is a ``SeldonResponse``, ours or that of the real package."""
    return type(result).__name__ == "SeldonResponse" and hasattr(result, "data") and hasattr(result, "tags")


def unwrapped(result: Any) -> Any:
    """What a method gave, without what is around it."""
    if result.__class__ is Scored:
        return result.value
    return result.data if is_response(result) else result


def implemented(method: Callable[[Any], Any], values: Any) -> Any:
    """What a method gives; ``None`` when it says that it is not implemented."""
    try:
        return method(values)
    except Exception as exc:
        if is_not_implemented(exc):
            return None
        raise


async def aimplemented(method: Callable[[Any], Any], values: Any) -> Any:
    """The same for a method that may be a coroutine function."""
    try:
        result = method(values)
        return await result if inspect.isawaitable(result) else result
    except Exception as exc:
        if is_not_implemented(exc):
            return None
        raise


def mapping(value: Any, place: str) -> Mapping[str, Any]:
    """A component's tags, checked.

    Raises:
        SeldonMicroserviceException: they are no mapping (500).
    """
    if isinstance(value, Mapping):
        return value
    raise SeldonMicroserviceException(f"{place} must be a dict, not {type(value).__name__}", 500)


def routed(result: Any) -> Any:
    """A router's choice as the array that carries it.

    Raises:
        SeldonMicroserviceException: it is no whole number.
    """
    if isinstance(result, (int, np.integer)):
        return np.array([[int(result)]])
    raise SeldonMicroserviceException(f"Routing response must be int but got {type(result).__name__}")
