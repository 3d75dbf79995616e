"""Bounds on JSON bodies, checked before and while they are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import RequestError

_NOT_BRACKETS: Final = bytes(b for b in range(256) if b not in b"[]{}")
_STEPS: Final = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
"""One level down, one level up, as signed bytes."""
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_CONTAINERS: Final = frozenset({dict, list})
_MANY: Final = 10_000
"""From how many brackets on a body is looked at without its strings before it is read."""


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How deep and how large a JSON body may be."""

    depth: int = 64
    """Objects and arrays within each other."""
    elements: int = 1_000_000
    """Values in the whole body."""


def parse_json(body: bytes, limits: JsonLimits, loads: Callable[[bytes], Any] = jsoncodec.loads) -> Any:
    """The value of a JSON body within limits.

    Args:
        body: the JSON.
        limits: its bounds.
        loads: reads what is within the bounds, as far as can be told before it is read.

    Raises:
        RequestError: the body is too deep or holds too many values.
        JSONDecodeError: it is not JSON.
    """
    # Too few brackets to be deep, too few brackets and commas to be long, strings included: most bodies.
    brackets = body.count(b"[") + body.count(b"{")
    if brackets <= limits.depth and body.count(b",") + brackets <= limits.elements:
        return loads(body)
    # Refuse before reading where that is possible: what is nested or long costs many times its size in memory.
    if b'"' not in body:
        _check_text(body, limits)
    elif brackets > _MANY:
        _check_text(_STRING.sub(b"0", body), limits)
    try:
        value = loads(body)
    except jsoncodec.JSONDecodeError:
        _check_text(_STRING.sub(b"0", body), limits)  # readers have a depth of their own
        raise
    _check(value, limits)
    return value


def check_json(body: bytes, limits: JsonLimits) -> Any:
    """As `parse_json`, for a body that may not be JSON at all."""
    if body.lstrip()[:1] not in (b"{", b"["):
        return jsoncodec.loads(body)
    return parse_json(body, limits)


def _check_text(body: bytes, limits: JsonLimits) -> None:
    """Refuse a body without strings that is too deep or too long; whether it is JSON is not looked at."""
    brackets = body.translate(_STEPS, _NOT_BRACKETS)
    # Every value but the first stands behind a comma or an opening bracket, and every container is a value.
    if body.count(b",") >= limits.elements or brackets.count(b"\x01") > limits.elements + 1:
        raise _too_many(limits)
    if max(accumulate(memoryview(brackets).cast("b")), default=0) > limits.depth:
        raise _too_deep(limits)


def _check(value: Any, limits: JsonLimits) -> None:
    """Count levels and values of what was read; wide levels are gone through once."""
    level: list[Any] = [value]
    count = 0
    for depth in range(limits.depth + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        count += len(inner)
        if count > limits.elements:
            raise _too_many(limits)
        if _CONTAINERS.isdisjoint(map(type, inner)):  # numbers by the thousand are the most of all that is asked
            return
        level = [v for v in inner if isinstance(v, (dict, list))]
        if depth + 1 >= limits.depth:
            raise _too_deep(limits)


def _too_many(limits: JsonLimits) -> RequestError:
    return RequestError(f"the body holds more than {limits.elements} values (limits.json_elements)")


def _too_deep(limits: JsonLimits) -> RequestError:
    return RequestError(f"the body is nested deeper than {limits.depth} (limits.json_depth)")
