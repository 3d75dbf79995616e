"""Random requests that keep a contract."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from servegraph.serving.seldon.contract import Column, Contract

Array = np.ndarray[Any, Any]

_DECIMALS: Final = 3


def make_batch(contract: Contract, rows: int, random: np.random.Generator) -> Array:
    """An array of rows whose columns are as the features say.

    Numbers are rounded to three decimals, but never out of their range. An array with texts in it keeps its numbers:
    it is one of objects.
    """
    parts = [_part(column, rows, random) for column in contract.features for _ in range(column.repeat)]
    if any(part.dtype == object for part in parts):
        parts = [part.astype(object) for part in parts]
    return np.concatenate(parts, axis=1)


def _part(column: Column, rows: int, random: np.random.Generator) -> Array:
    shape = (rows, *column.shape)
    if column.ftype == "categorical":
        return _categorical(column, shape, random)
    if column.dtype == "INT":
        return _whole(column, shape, random)
    return _rounded(_continuous(column, shape, random), column)


def _categorical(column: Column, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    numbers = all(type(value) in (int, float) for value in column.values)
    if numbers:
        return np.array(column.values)[random.integers(len(column.values), size=shape)]
    choices = np.empty(len(column.values), dtype=object)
    choices[:] = column.values
    return choices[random.integers(len(choices), size=shape)]


def _whole(column: Column, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if math.isfinite(column.low) and math.isfinite(column.high):
        return random.integers(math.ceil(column.low), math.floor(column.high), size=shape, endpoint=True)
    # Some standard deviations wide, so that the numbers are not all 0 and 1.
    steps: Array = np.floor(10 * np.abs(random.normal(size=shape)))
    if math.isfinite(column.low):
        steps = math.ceil(column.low) + steps
    elif math.isfinite(column.high):
        steps = math.floor(column.high) - steps
    else:
        steps = steps * random.choice((-1, 1), size=shape)
    return steps.astype(np.int64)


def _continuous(column: Column, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    low, high = column.low, column.high
    if math.isfinite(low) and math.isfinite(high):
        part = random.random(size=shape)
        return low * (1 - part) + high * part  # the difference of the two may be too large for a float
    distance: Array = random.lognormal(size=shape)
    if math.isfinite(low):
        return low + distance
    if math.isfinite(high):
        return high - distance
    return random.normal(size=shape)


def _rounded(values: Array, column: Column) -> Array:
    return np.clip(np.round(values, _DECIMALS), column.low, column.high)
