r"""Which part of a body a step gets (``input_path``) and where its result goes (``result_path``).

A path is a dotted string such as ``inputs.0.x``: each part is a key of a dict, and a part of digits is also an
index into a list. ``\.`` is a dot inside a key. A path is read once, when the graph is built; what remains for
a request is one small function. Every way of running a graph uses these two functions, so a path means the
same in all of them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from servegraph.errors import GraphError, UnprocessableError

# Bodies and results are whatever the user's code and the request hold, hence `Any`.
InputPath = Callable[[Any], Any]
ResultPath = Callable[[Any, Any], Any]

_SEPARATOR = re.compile(r"(?<!\\)\.")
_INDEX = re.compile(r"[0-9]{1,18}")  # no list is longer


class _Part(NamedTuple):
    key: str
    position: int | None
    """The part as a list index, when it consists of digits."""


def compile_input_path(path: str | None) -> InputPath | None:
    """A function that picks the part of a body at ``path``; None for no path, when the whole body is meant.

    The function gives None when a key is missing, an index is out of range or a value on the way is None. It
    raises `UnprocessableError` when the body itself, or a value on the way, is one that holds no parts (a number,
    a string; for the body also None).

    Raises:
        GraphError: the path is not a string or has an empty part.
    """
    if path is None:
        return None
    parts = _split(path, "input_path")
    if len(parts) == 1:
        return _pick_one(parts, path)
    if len(parts) == 2:
        return _pick_two(parts, path)
    return lambda body: _pick(body, parts, path)


def compile_result_path(path: str | None) -> ResultPath | None:
    """A function ``(body, result)`` that gives the body with the result at ``path``; None for no path.

    What is passed is never changed: the dicts and lists along the path are copied, one level each, and everything
    beside the path is shared with the body that came in. Missing dicts are created; a None body or a None on the
    way becomes a dict. `UnprocessableError` is raised for a body that is not a dict, for a value on the way
    that can't be written into, and for a list index out of range.

    Raises:
        GraphError: the path is not a string or has an empty part.
    """
    if path is None:
        return None
    parts = _split(path, "result_path")
    if len(parts) == 1:
        return _put_one(parts, path)
    if len(parts) == 2:
        return _put_two(parts, path)
    return lambda body, result: _put(body, parts, path, result)


def _split(path: object, what: str) -> tuple[_Part, ...]:
    if not isinstance(path, str):
        raise GraphError(f"{what} must be a dotted string such as 'inputs.0.x', not {type(path).__name__}")
    keys = [part.replace("\\.", ".") for part in _SEPARATOR.split(path)]
    if "" in keys:
        raise GraphError(
            f"{what} {path!r} has an empty part (part {keys.index('') + 1} of {len(keys)}); "
            f"write 'a.b', with '\\.' for a dot inside a key, and leave the path out to mean the whole body"
        )
    return tuple(_Part(key, int(key) if _INDEX.fullmatch(key) else None) for key in keys)


def _pick_one(parts: tuple[_Part, ...], path: str) -> InputPath:
    key = parts[0].key

    def pick(body: Any) -> Any:
        if type(body) is dict:
            return body.get(key)
        return _pick(body, parts, path)

    return pick


def _pick_two(parts: tuple[_Part, ...], path: str) -> InputPath:
    first, second = parts[0].key, parts[1].key

    def pick(body: Any) -> Any:
        if type(body) is dict:
            inner = body.get(first)
            if type(inner) is dict:
                return inner.get(second)
        return _pick(body, parts, path)

    return pick


def _pick(body: Any, parts: tuple[_Part, ...], path: str) -> Any:
    value = body
    for depth, part in enumerate(parts):
        if isinstance(value, dict):
            value = value.get(part.key)
        elif isinstance(value, (list, tuple)):
            inside = part.position is not None and part.position < len(value)
            value = value[part.position] if inside else None  # type: ignore[index]
        elif value is None and depth:
            return None
        else:
            value = _pick_from_other(value, part, parts[:depth], path)
    return value


def _pick_from_other(value: Any, part: _Part, before: tuple[_Part, ...], path: str) -> Any:
    """The part of a value that is no dict, list or tuple: a data frame, an array, a mapping of the user's own."""
    if isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__getitem__"):
        _refuse("input_path", path, before, value, ", which holds no parts; a dict or list is needed there")
    key = part.key if part.position is None or isinstance(value, Mapping) else part.position
    try:
        return value[key]
    except LookupError:
        return None
    except TypeError as error:
        raise UnprocessableError(
            f"input_path {path!r}: {_place(before)} is {_kind(value)}, which has no part {key!r} ({error})"
        ) from error


def _put_one(parts: tuple[_Part, ...], path: str) -> ResultPath:
    key = parts[0].key

    def put(body: Any, result: Any) -> Any:
        if type(body) is dict:
            return {**body, key: result}
        return _put(body, parts, path, result)

    return put


def _put_two(parts: tuple[_Part, ...], path: str) -> ResultPath:
    first, second = parts[0].key, parts[1].key

    def put(body: Any, result: Any) -> Any:
        if type(body) is dict:
            inner = body.get(first)
            if type(inner) is dict:
                return {**body, first: {**inner, second: result}}
            if inner is None:
                return {**body, first: {second: result}}
        return _put(body, parts, path, result)

    return put


def _put(body: Any, parts: tuple[_Part, ...], path: str, result: Any) -> Any:
    if body is not None and not isinstance(body, dict):
        _refuse("result_path", path, (), body, ", but a result can only be written into a dict")
    whole = _writable(body, (), path)
    target: Any = whole
    for depth, part in enumerate(parts[:-1], start=1):
        key = _slot(target, part, parts[: depth - 1], path)
        inner = target.get(key) if isinstance(target, dict) else target[key]
        target[key] = _writable(inner, parts[:depth], path)
        target = target[key]
    target[_slot(target, parts[-1], parts[:-1], path)] = result
    return whole


def _writable(value: Any, before: tuple[_Part, ...], path: str) -> Any:
    """A value's own copy that may be written into, without the values inside it being copied."""
    if value is None:
        return {}
    if not isinstance(value, (dict, list)):
        _refuse("result_path", path, before, value, ", which a result can't be written into")
    return copy.copy(value)


def _slot(target: Any, part: _Part, before: tuple[_Part, ...], path: str) -> str | int:
    """What to index a dict or list with for a part of a path."""
    if isinstance(target, dict):
        return part.key
    if part.position is None or part.position >= len(target):
        _refuse("result_path", path, before, target, f" of length {len(target)}, which has no index {part.key!r}")
    return part.position


def _refuse(what: str, path: str, before: tuple[_Part, ...], value: Any, why: str) -> NoReturn:
    raise UnprocessableError(f"{what} {path!r}: {_place(before)} is {_kind(value)}{why}")


def _place(before: tuple[_Part, ...]) -> str:
    return f"the body's part {'.'.join(p.key for p in before)!r}" if before else "the body"


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
