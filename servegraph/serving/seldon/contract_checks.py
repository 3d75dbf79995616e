"""What is wrong with an answer, by its contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from servegraph.serving.seldon.contract import Column, Contract, columns_width
from servegraph.serving.seldon.message import Message

Array = np.ndarray[Any, Any]

_SHOWN: Final = 3


def check_answer(contract: Contract, answer: Message, rows: int, *, names: bool = True) -> list[str]:
    """What an answer has that its contract's targets do not allow; nothing of a contract without targets.

    Args:
        contract: what was agreed.
        answer: the message.
        rows: how many rows the request had.
        names: whether names are checked; those that the runtime makes up (``t:0``) and none at all are always good.
    """
    if not contract.targets:
        return []
    if answer.kind != "data":
        return [f"the answer holds {answer.kind or 'no data'}: the targets are columns of data"]
    array = np.asarray(answer.value)
    wanted = _shape(contract, rows)
    found = _names(contract, answer.names, array) if names else []
    if array.shape != wanted and not (columns_width(contract.targets) == 1 and array.shape == (rows,)):
        return [f"the answer has the shape {list(array.shape)}: the targets make {list(wanted)}", *found]
    return [*_values(contract, array.reshape(wanted)), *found]


def _shape(contract: Contract, rows: int) -> tuple[int, ...]:
    return (rows, columns_width(contract.targets), *contract.targets[0].shape[1:])


def _names(contract: Contract, names: list[str], array: Array) -> list[str]:
    made_up = [f"t:{i}" for i in range(len(names))]
    if not names or list(names) == made_up:
        return []
    wanted = contract.target_names
    if list(names) != wanted:
        return [f"the names are {_listed(names)}: the targets are {_listed(wanted)}"]
    return []


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(str, names[:20]))
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _values(contract: Contract, array: Array) -> Iterator[str]:
    first = 0
    for column in contract.targets:
        part = array[:, first : first + column.width]
        yield from _column(column, part, first)
        first += column.width


def _column(column: Column, part: Array, first: int) -> Iterator[str]:
    """One line for each kind of fault in a column, with the first places."""
    if column.ftype == "categorical":
        allowed = {*map(str, column.values)}
        yield from _faults(column, part, first, lambda v: not _is_one_of(v, allowed), "is none of its values")
        return
    yield from _faults(column, part, first, lambda v: not _is_number(v), "is no number")
    yield from _faults(
        column,
        part,
        first,
        lambda v: _is_number(v) and not column.low <= v <= column.high,
        f"is outside of {_bound(column.low)} to {_bound(column.high)}",
    )
    if column.dtype == "INT":
        yield from _faults(column, part, first, lambda v: _is_number(v) and v != math.floor(v), "is not whole")


def _faults(column: Column, part: Array, first: int, is_wrong: Callable[[Any], bool], fault: str) -> Iterator[str]:
    wrong = [(at, value) for at, value in np.ndenumerate(part) if is_wrong(value)]
    if wrong:
        shown = ", ".join(
            f"{_plain(value)!r:.40} (row {at[0]}, column {at[1] + first})" for at, value in wrong[:_SHOWN]
        )
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        yield f"{column.name} {fault}: {shown}{more}"


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _is_one_of(value: Any, allowed: set[str]) -> bool:
    """Whether a value is allowed; as text, and a whole float as an integer too, for that is what gRPC makes of one."""
    plain = _plain(value)
    if str(plain) in allowed:
        return True
    return isinstance(plain, (int, float)) and _is_number(plain) and _texts(plain) & allowed != set()


def _texts(number: float) -> set[str]:
    return {str(float(number)), str(int(number))} if number == math.floor(number) else {str(float(number))}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _bound(value: float) -> str:
    return f"{value:g}"
