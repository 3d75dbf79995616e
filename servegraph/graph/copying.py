"""A fast deep copy of an event body, so that parallel branches never see each other's changes.

The meaning is that of `copy.deepcopy`; the speed comes from how bodies look: few containers at the top, and
thousands of like rows of plain values at the bottom. Rows are copied and looked at in bulk, by functions that
loop in C, and only what is found to need it is visited one by one. Everything that is not a plain container
goes to `copy.deepcopy` itself, with the same memo, so ``__deepcopy__`` is honoured and references that are shared
between the two stay shared.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import fractions
import gc
import uuid
from collections.abc import Callable
from gc import get_referents
from operator import itemgetter
from sys import getrefcount
from typing import Any

from servegraph.errors import StepError, UnprocessableError

_Memo = dict[int, Any]

_ATOMS: frozenset[type] = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes,
        dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone,
        decimal.Decimal, fractions.Fraction, uuid.UUID, range, type(Ellipsis),
    }
)  # fmt: skip
"""Types (not their subclasses) whose values can't change and are shared between the copies."""

_BULK = 8
"""From how many items on the bulk way is quicker than one item at a time."""

_CHUNK = 1024
"""How many rows are handled at a time, so that the second and third look at them find them in the processor's cache."""


def _references_of_a_lone_row() -> int:
    rows: list[list[int]] = [[]]
    copied = rows.copy()
    return next(map(getrefcount, copied))


_LONE = _references_of_a_lone_row()
"""What `getrefcount` says, mapped over a copied list, of a row that nothing but the list and its copy refers to."""


def isolate(body: Any) -> Any:  # any body in, one of the same type out
    """A deep copy of a body: what is done to either of the two is not seen in the other.

    Values that can't change (numbers, strings, datetimes) are shared. References that are shared inside the body,
    and cycles, are the same in the copy; types are kept.

    Raises:
        UnprocessableError: the body is nested too deeply.
        StepError: the body holds something that can't be copied (a lock, a generator, an open file).
    """
    try:
        return _copy(body, {})
    except RecursionError:
        # The chained traceback would be a thousand lines that say nothing more.
        raise UnprocessableError(
            "the body is nested too deeply to be copied for parallel branches; send a flatter one"
        ) from None
    except (TypeError, copy.Error) as error:
        raise StepError(
            f"the body cannot be copied for parallel branches: {error}; let the step before them "
            "return plain values, or objects with a __deepcopy__ of their own"
        ) from error


def _copy(value: Any, memo: _Memo) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    copier = _COPIERS.get(kind)
    if copier is None:
        return copy.deepcopy(value, memo)
    done = memo.get(id(value))
    if done is not None:
        return done
    return copier(value, memo)


def _copy_list(value: list[Any], memo: _Memo) -> list[Any]:
    new = value.copy()
    memo[id(value)] = new  # before its items: one of them may refer back to it
    _fill_list(new, memo)
    return new


def _copy_dict(value: dict[Any, Any], memo: _Memo) -> dict[Any, Any]:
    new = value.copy()
    memo[id(value)] = new
    _fill_dict(new, memo)
    return new


def _copy_tuple(value: tuple[Any, ...], memo: _Memo) -> tuple[Any, ...]:
    items = list(value)
    _fill_list(items, memo)
    done: tuple[Any, ...] | None = memo.get(id(value))
    if done is not None:  # an item refers back to the tuple, which was copied on that way
        return done
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    memo[id(value)] = new = tuple(items)
    return new


def _copy_set(value: set[Any], memo: _Memo) -> Any:
    if set(map(type, value)) <= _ATOMS:
        memo[id(value)] = new = value.copy()
        return new
    return copy.deepcopy(value, memo)


def _copy_frozenset(value: frozenset[Any], memo: _Memo) -> Any:
    return value if set(map(type, value)) <= _ATOMS else copy.deepcopy(value, memo)


def _copy_bytearray(value: bytearray, memo: _Memo) -> bytearray:
    memo[id(value)] = new = value[:]
    return new


_COPIERS: dict[type, Callable[[Any, _Memo], Any]] = {
    list: _copy_list,
    dict: _copy_dict,
    tuple: _copy_tuple,
    set: _copy_set,
    frozenset: _copy_frozenset,
    bytearray: _copy_bytearray,
}
"""How the plain containers are copied; their subclasses are not among them and keep their type by `copy.deepcopy`."""


def _fill_list(new: list[Any], memo: _Memo) -> None:
    """Turn a shallow copy into a deep one."""
    if len(new) >= _BULK and (_fill_many(new, memo) or _all_atoms(list(map(type, new)))):
        return
    for index, item in enumerate(new):
        if type(item) not in _ATOMS:
            new[index] = _copy(item, memo)


def _fill_dict(new: dict[Any, Any], memo: _Memo) -> None:
    """Turn a shallow copy into a deep one."""
    keys_are_atoms = True
    for key, item in new.items():
        if type(item) not in _ATOMS:
            new[key] = _copy(item, memo)
        if type(key) not in _ATOMS:
            keys_are_atoms = False
    if not keys_are_atoms:
        items = list(new.items())
        new.clear()
        for key, item in items:
            new[_copy(key, memo)] = item


def _fill_many(new: list[Any], memo: _Memo) -> bool:
    """`_fill_with_rows`, with the garbage collector held off while thousands of rows are made.

    None of them is garbage, and its rounds would be 2 of 5 milliseconds of 20,000 rows.
    """
    if len(new) < _CHUNK or not gc.isenabled():
        return _fill_with_rows(new, _LONE, memo)
    gc.disable()
    try:
        return _fill_with_rows(new, _LONE, memo)
    finally:
        gc.enable()


def _fill_with_rows(new: list[Any], references: int, memo: _Memo) -> bool:
    """Replace lists, or dicts, by their deep copies; False, and nothing is done, if they need a look one by one.

    ``references`` is what `getrefcount` says of a row that nothing else refers to.
    """
    kind = type(new[0])
    if kind is not list and kind is not dict:
        return False
    rows: list[Any] = []
    others = 0
    lone = True
    for start in range(0, len(new), _CHUNK):
        part = new[start : start + _CHUNK]
        if list(map(type, part)).count(kind) != len(part):
            return False
        copies = list(map(kind.copy, part))
        # What a list refers to are its items; a dict its values, and those of its keys that are not plain strings.
        held = list(map(type, get_referents(*copies)))
        if not _all_atoms(held):
            others += sum(held.count(other) for other in set(held) - _ATOMS)
        # The slice is one more reference to each row.
        lone = lone and list(map(getrefcount, part)).count(references + 1) == len(part)
        rows += copies
    # A row of plain values that nothing else refers to is not met again: its copy need not be remembered.
    if others or not lone:
        found = dict(zip(map(id, new), rows, strict=True))
        if len(found) != len(new) or not memo.keys().isdisjoint(found):
            return False
        memo.update(found)
    new[:] = rows
    if others and not _fill_columns(rows, others, memo):
        fill: Callable[[Any, _Memo], None] = _fill_list if kind is list else _fill_dict
        for row in rows:
            fill(row, memo)
    return True


def _fill_columns(rows: list[Any], others: int, memo: _Memo) -> bool:
    """Deepen rows whose ``others`` (the items that are no plain values) all sit in the same columns; else False."""
    first = rows[0]
    names = [n for n in (first if type(first) is dict else range(len(first))) if type(first[n]) not in _ATOMS]
    if len(names) * len(rows) != others:
        return False
    columns: list[list[Any]] = []
    for name in names:
        try:
            column = list(map(itemgetter(name), rows))
        except LookupError:
            return False
        # An item is in its row, in the row's copy and in the column.
        if not _fill_with_rows(column, _LONE + 1, memo):
            return False
        columns.append(column)
    # Only now that every column is known to be good: a row is either deepened as a whole or not touched.
    for name, column in zip(names, columns, strict=True):
        for row, item in zip(rows, column, strict=True):
            row[name] = item
    return True


def _all_atoms(kinds: list[type]) -> bool:
    if not kinds:
        return True
    # Counting compares pointers and is quicker than a set, which only mixed types need.
    first = kinds[0]
    return first in _ATOMS if kinds.count(first) == len(kinds) else set(kinds) <= _ATOMS
