"""Contracts of components: which columns a request has, and what an answer to it holds.

A contract is a ``contract.json`` with ``features`` and ``targets``; how requests are made of it is in
`contract_batches`, how answers are checked against it in `contract_checks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from servegraph import jsoncodec
from servegraph.errors import ServegraphError, closest

LARGEST_INT: Final = 2**53
"""Largest whole number that a float, which gRPC makes of it, tells from the next one."""
_FTYPES: Final = ("continuous", "categorical")
_DTYPES: Final = {"FLOAT": "FLOAT", "INT": "INT", "INTEGER": "INT"}
_KEYS: Final = frozenset(("name", "ftype", "dtype", "range", "shape", "values", "repeat"))


class SeldonTesterException(ServegraphError):  # noqa: N818 - the name that callers import
    """A contract cannot be read, or no request can be made of it."""

    status_code = 400


@dataclass(frozen=True, slots=True)
class Column:
    """One feature or target."""

    name: str
    ftype: Literal["continuous", "categorical"]
    dtype: Literal["FLOAT", "INT"] = "FLOAT"
    """Of a continuous column: numbers with a fraction, or whole ones."""
    low: float = -math.inf
    """Least value of a continuous column."""
    high: float = math.inf
    """Largest value of a continuous column."""
    values: tuple[Any, ...] = ()
    """What a categorical column may hold."""
    shape: tuple[int, ...] = (1,)
    """Shape of its part of one row."""
    repeat: int = 1
    """How many such columns there are in a row."""

    @property
    def width(self) -> int:
        """How many entries of axis 1 it takes."""
        return self.shape[0] * self.repeat


@dataclass(frozen=True, slots=True)
class Contract:
    """What a component takes and what it answers."""

    features: tuple[Column, ...]
    targets: tuple[Column, ...] = ()

    @property
    def feature_names(self) -> list[str]:
        """The names that a request has: ``name1``, ``name2`` for repeated features."""
        return [
            f"{column.name}{i + 1}" if column.repeat > 1 else column.name
            for column in self.features
            for i in range(column.repeat)
        ]

    @property
    def target_names(self) -> list[str]:
        """The names that an answer is to have: ``name:0``, ``name:1`` for repeated targets."""
        return [
            f"{column.name}:{i}" if column.repeat > 1 else column.name
            for column in self.targets
            for i in range(column.repeat)
        ]

    @classmethod
    def read(cls, path: str | Path) -> Contract:
        """The contract of a JSON file.

        Raises:
            SeldonTesterException: the file cannot be read, or it is no contract; the message names the place.
        """
        try:
            raw = Path(path).read_bytes()
        except OSError as exc:
            raise SeldonTesterException(f"{path} cannot be read: {exc.strerror}") from exc
        try:
            return cls.of(jsoncodec.loads(raw))
        except jsoncodec.JSONDecodeError as exc:
            raise SeldonTesterException(f"{path} is not JSON: {exc}") from exc
        except SeldonTesterException as exc:
            raise SeldonTesterException(f"{path}: {exc}") from exc

    @classmethod
    def of(cls, document: Any) -> Contract:
        """The contract of a decoded document.

        Raises:
            SeldonTesterException: it is none; the message names the place.
        """
        if not isinstance(document, dict):
            raise SeldonTesterException("a contract is an object with features and targets")
        features = _columns(document, "features")
        if not features:
            raise SeldonTesterException("features is empty: there is nothing to send")
        return cls(features, _columns(document, "targets"))


def _columns(document: Mapping[str, Any], part: str) -> tuple[Column, ...]:
    raw = document.get(part, [])
    if not isinstance(raw, list):
        raise SeldonTesterException(f"{part} must be a list")
    columns = tuple(_column(column, f"{part}[{i}]") for i, column in enumerate(raw))
    if len({column.shape[1:] for column in columns}) > 1:
        shapes = ", ".join(f"{column.name} {list(column.shape)}" for column in columns)
        raise SeldonTesterException(f"{part} cannot stand beside each other in one array: {shapes}")
    return columns


def _column(raw: Any, place: str) -> Column:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise SeldonTesterException(f"{place} must be an object with a name")
    place = f"{place} ({raw['name']})"
    # A generated file may give null for what a column does not have.
    given = {key: value for key, value in raw.items() if value is not None}
    for key in given:
        if key not in _KEYS:
            raise SeldonTesterException(f"{place} has the unknown key {key!r}; {closest(key, _KEYS)}")
    ftype = _choice(given.get("ftype"), "ftype", {name: name for name in _FTYPES}, place)
    shape, repeat = _shape(given.get("shape", [1]), place), given.get("repeat", 1)
    if type(repeat) is not int or repeat < 1:
        raise SeldonTesterException(f"{place}: repeat must be a whole number from 1, not {repeat!r}")
    if ftype == "categorical":
        values = given.get("values")
        if not isinstance(values, list) or not values:
            raise SeldonTesterException(f"{place}: a categorical column needs values, a list of what it may hold")
        return Column(given["name"], "categorical", values=tuple(values), shape=shape, repeat=repeat)
    dtype = _choice(given.get("dtype", "FLOAT"), "dtype", _DTYPES, place)
    low, high = _range(given.get("range", ["inf", "inf"]), place)
    if dtype == "INT":
        _check_whole(low, high, place)
    return Column(given["name"], "continuous", dtype, low, high, (), shape, repeat)  # type: ignore[arg-type]


def _choice(value: Any, key: str, choices: Mapping[str, str], place: str) -> str:
    for name, meaning in choices.items():
        if isinstance(value, str) and value.lower() == name.lower():
            return meaning
    raise SeldonTesterException(f"{place}: {key}={value!r} is unknown; {closest(str(value), choices)}")


def _shape(value: Any, place: str) -> tuple[int, ...]:
    if isinstance(value, list) and value and all(type(n) is int and n > 0 for n in value):
        return tuple(value)
    raise SeldonTesterException(f"{place}: shape must be a list of whole numbers from 1, not {value!r}")


def _range(value: Any, place: str) -> tuple[float, float]:
    """The bounds of a range; ``inf`` is no bound, on either side."""
    if not isinstance(value, list) or len(value) != 2:
        raise SeldonTesterException(f"{place}: range must be [least, largest], not {value!r}")
    low, high = (_bound(bound, sign, place) for bound, sign in zip(value, (-1, 1), strict=True))
    if low > high:
        raise SeldonTesterException(f"{place}: the range {value!r} is the wrong way round")
    return low, high


def _check_whole(low: float, high: float, place: str) -> None:
    finite = [bound for bound in (low, high) if math.isfinite(bound)]
    if any(abs(bound) > LARGEST_INT for bound in finite):
        raise SeldonTesterException(f"{place}: whole numbers beyond {LARGEST_INT} are not told apart on gRPC")
    if len(finite) == 2 and math.ceil(low) > math.floor(high):
        raise SeldonTesterException(f"{place}: there is no whole number from {low:g} to {high:g}")


def _bound(value: Any, sign: int, place: str) -> float:
    if isinstance(value, str) and value.lower().lstrip("+-") in ("inf", "infinity"):
        return sign * math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SeldonTesterException(f"{place}: a bound of the range is a number or 'inf', not {value!r}")
    return float(value)


def columns_width(columns: Sequence[Column]) -> int:
    """How many entries of axis 1 columns take together."""
    return sum(column.width for column in columns)
