"""The operators and functions of expressions, each bounded in the size of what it makes.

All are pure. What passes a limit raises `ValueError` before it is computed; the expression that called names itself
in the error it makes of that.
"""

from __future__ import annotations

import ast
import numbers
import operator
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from servegraph import jsoncodec

MAX_SIZE: Final = 1_000_000
"""Items or characters of what ``+``, ``*``, ``str`` and ``json`` make."""
MAX_INT_BITS: Final = 4096
"""Bits of an integer that ``*`` and ``**`` make."""
MAX_DIGITS: Final = 4096
"""Characters of a text that becomes a number, and the places that ``round`` may round to."""

_SEQUENCES = (str, bytes, bytearray, list, tuple, deque)


class Function(NamedTuple):
    """A function that expressions may call."""

    call: Callable[..., Any]
    least: int
    """How many values it takes at least."""
    most: int | None
    """How many values it takes at most; None for any number."""
    keywords: tuple[str, ...] = ()
    """The values that may be given by name."""


def _size(value: object) -> int:
    """Items and characters that come up when a value is written out; counted no further than the limit."""
    size = 0
    stack: list[Any] = [value]
    while stack and size <= MAX_SIZE:
        item = stack.pop()
        size += 1
        if isinstance(item, (str, bytes, bytearray)):
            size += len(item)
        elif isinstance(item, int):
            size += item.bit_length() // 3
        elif isinstance(item, dict):
            stack += item.keys()
            stack += item.values()
        elif isinstance(item, (list, tuple, set, frozenset, deque)):
            stack += item
    return size


def bounded(size: int, what: str) -> None:
    """Raise `ValueError` for a size above `MAX_SIZE`."""
    if size > MAX_SIZE:
        raise ValueError(f"{what} would pass the limit of {MAX_SIZE} items or characters")


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
        bounded(len(left) + len(right), "the sum")
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > MAX_INT_BITS:
            raise ValueError(f"the product would have more than {MAX_INT_BITS} bits")
    else:
        for items, times in ((left, right), (right, left)):
            if isinstance(items, _SEQUENCES) and hasattr(times, "__index__"):
                bounded(_size(items) * operator.index(times), "the repetition")
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int) and not isinstance(base, float) and isinstance(base, numbers.Rational):
        bits = max(int(base.numerator).bit_length(), int(base.denominator).bit_length())
        if bits * abs(exponent) > MAX_INT_BITS:
            raise ValueError(f"the power would have more than {MAX_INT_BITS} bits")
    return base**exponent


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes, bytearray)):
        raise ValueError("text can't be formatted with %; use + or an f-string")
    return left % right


def text(value: Any) -> str:
    """What ``str`` says of a value."""
    if isinstance(value, str):
        return str(value)
    bounded(_size(value), "the text")
    return str(value)


def representation(value: Any) -> str:
    """What ``repr`` says of a value."""
    bounded(_size(value), "the text")
    return repr(value)


def _json(value: Any) -> str:
    bounded(_size(value), "the JSON text")
    return jsoncodec.dumps(value).decode()


def _parsed(kind: type) -> Callable[..., Any]:
    def convert(value: Any = 0, *base: int) -> Any:
        if isinstance(value, (str, bytes, bytearray)) and len(value) > MAX_DIGITS:
            raise ValueError(f"a number is written with at most {MAX_DIGITS} characters, not {len(value)}")
        return kind(value, *base)

    return convert


def _round(number: Any, ndigits: Any = None) -> Any:
    if ndigits is not None and abs(operator.index(ndigits)) > MAX_DIGITS:
        raise ValueError(f"round takes at most {MAX_DIGITS} digits, not {ndigits}")
    return round(number, ndigits)


def _sum(values: Iterable[Any], start: Any = 0) -> Any:
    if isinstance(start, _SEQUENCES):
        raise TypeError("sum adds numbers; put lists and texts together with +")
    return sum(values, start)


def _get(container: Any, key: Any, default: Any = None) -> Any:
    if container is None:
        return default
    if isinstance(container, dict):
        return container.get(key, default)
    try:
        return container[key]
    except LookupError:
        return default


def _starts(text: str, start: Any) -> bool:
    return str.startswith(text, tuple(start) if isinstance(start, list) else start)


def _ends(text: str, end: Any) -> bool:
    return str.endswith(text, tuple(end) if isinstance(end, list) else end)


FUNCTIONS: Final[dict[str, Function]] = {
    "abs": Function(abs, 1, 1),
    "all": Function(all, 1, 1),
    "any": Function(any, 1, 1),
    "bool": Function(bool, 0, 1),
    "endswith": Function(_ends, 2, 2),
    "float": Function(_parsed(float), 0, 1),
    "get": Function(_get, 2, 3, ("default",)),
    "int": Function(_parsed(int), 0, 2),
    "json": Function(_json, 1, 1),
    "len": Function(len, 1, 1),
    "lower": Function(str.lower, 1, 1),
    "max": Function(max, 1, None, ("default",)),
    "min": Function(min, 1, None, ("default",)),
    "round": Function(_round, 1, 2, ("ndigits",)),
    "sorted": Function(sorted, 1, 1, ("reverse",)),
    "startswith": Function(_starts, 2, 2),
    "str": Function(text, 1, 1),
    "sum": Function(_sum, 1, 2, ("start",)),
    "upper": Function(str.upper, 1, 1),
}

BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: _add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _remainder,
    ast.Pow: _power,
}
UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.Not: operator.not_,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,  # codespell:ignore notin
}
