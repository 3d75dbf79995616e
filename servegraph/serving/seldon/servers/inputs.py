"""Payloads as models take them: matrices and tables, columns in the model's order, and answers that can be encoded."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException

if TYPE_CHECKING:
    import numpy as np


def as_array(features: Any) -> np.ndarray[Any, Any]:
    """The payload as an array: it was one, or is a list; a text is one sample of a model of texts.

    Raises:
        SeldonMicroserviceException: it is something else, or a list with parts of different lengths.
    """
    numpy = import_extra("numpy", feature="a packaged server", extra="numpy")
    if isinstance(features, str):
        features = [features]
    if isinstance(features, numpy.ndarray):
        array: np.ndarray[Any, Any] = features
        return array
    if not isinstance(features, (list, tuple)):
        raise SeldonMicroserviceException(
            f"the model takes an array (data, or a list as jsonData), not {kind_of(features)}"
        )
    try:
        made: np.ndarray[Any, Any] = numpy.asarray(features)
    except ValueError as exc:
        raise SeldonMicroserviceException(f"the payload is no array: {exc}") from exc
    return made


def as_numbers(features: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
    """The payload as an array of numbers.

    Raises:
        SeldonMicroserviceException: it is no array, or one that holds something else than numbers.
    """
    array = as_array(features)
    if dtype is None and array.dtype.kind in "biuf":
        return array
    try:
        return array.astype(float if dtype is None else dtype)
    except (TypeError, ValueError) as exc:
        raise SeldonMicroserviceException(f"the model takes numbers: {exc}") from exc


def columns_for(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Which of the request's columns the model's are; ``None`` when the request goes by position.

    Raises:
        SeldonMicroserviceException: the request has some of the model's columns by name, but not all.
    """
    index = {name: i for i, name in enumerate(names)}
    found = [name for name in wanted if name in index]
    if not found:
        return None
    missing = [name for name in wanted if name not in index]
    if missing:
        shown = ", ".join(missing[:20])
        raise SeldonMicroserviceException(f"the model also needs the columns {shown}; the request has {list(names)}")
    return [index[name] for name in wanted]


def in_order(array: np.ndarray[Any, Any], names: Sequence[str], wanted: Sequence[str]) -> np.ndarray[Any, Any]:
    """The array with its columns as the model wants them.

    Raises:
        SeldonMicroserviceException: it has other columns, or another number of them.
    """
    if array.ndim == 2 and len(names) == array.shape[1]:
        columns = columns_for(names, wanted)
        if columns is not None and columns != list(range(array.shape[1])):
            return array[:, columns]
    check_width(array, len(wanted))
    return array


def check_width(array: np.ndarray[Any, Any], wanted: int) -> None:
    """Let pass samples with as many features as the model takes.

    Raises:
        SeldonMicroserviceException: it has another number of them.
    """
    if array.ndim == 2 and array.shape[1] != wanted:
        raise SeldonMicroserviceException(f"the model takes {wanted} features, and the request has {array.shape[1]}")


def as_table(features: Any, names: Sequence[str], wanted: Sequence[str]) -> Any:
    """The payload as a pandas table with the columns that the model wants.

    Raises:
        SeldonMicroserviceException: it is no table, or has other columns.
    """
    pandas = import_extra("pandas", feature="a model that was fitted on a table", extra="pandas")
    if isinstance(features, list) and features and all(isinstance(row, Mapping) for row in features):
        # Rows as objects keep a type for each column, which an array of them all would not.
        table = pandas.DataFrame(features)
        if columns_for(list(table.columns), wanted) is None:
            raise SeldonMicroserviceException(
                f"the model takes the columns {list(wanted)}; the request has none of them"
            )
        return table[list(wanted)]
    array = as_array(features)
    if array.ndim != 2:
        raise SeldonMicroserviceException(f"the model takes rows of features; the array has {array.ndim} dimensions")
    return pandas.DataFrame(in_order(array, names, wanted), columns=list(wanted)).infer_objects()


def has_pandas() -> bool:
    """Whether tables can be made."""
    return importlib.util.find_spec("pandas") is not None


def kind_of(value: Any) -> str:
    """A payload in a message, without its content."""
    names = {"dict": "a JSON object", "str": "a text", "bytes": "bytes", "NoneType": "nothing", "list": "a list"}
    return names.get(type(value).__name__, type(value).__name__)


def plain(value: Any) -> Any:
    """An answer as plain JSON values: arrays and numpy's numbers are what they stand for, NaN is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
