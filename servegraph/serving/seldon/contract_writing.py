"""Contracts made of data frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegraph import jsoncodec
from servegraph.importing import import_extra
from servegraph.serving.seldon.contract import SeldonTesterException

if TYPE_CHECKING:
    import pandas as pd


def create_seldon_api_testing_file(data: pd.DataFrame, target: str, output_path: str | Path) -> bool:
    """Write a ``contract.json`` that the rows of a data frame keep; ``True`` when it is written.

    Columns of numbers become continuous ones with the range that they have, others categorical ones with their
    values; missing values are left out of both.

    Args:
        data: features and target.
        target: the target's column.
        output_path: the file to write.

    Raises:
        SeldonTesterException: there is no such column, or a column without numbers is empty.
    """
    import_extra("pandas", feature="a contract of a data frame", extra="pandas")
    if target not in data.columns:
        raise SeldonTesterException(f"the data has no column {target!r}; it has {', '.join(map(str, data.columns))}")
    columns = {str(name): _described(str(name), data[name]) for name in data.columns}
    wanted = columns.pop(str(target))
    document = {"features": list(columns.values()), "targets": [wanted]}
    Path(output_path).write_bytes(jsoncodec.dumps(document, indent=True) + b"\n")
    return True


def _described(name: str, column: pd.Series[Any]) -> dict[str, Any]:
    from pandas.api import types

    present = column.dropna()
    if types.is_bool_dtype(column.dtype) or not types.is_numeric_dtype(column.dtype):
        if present.empty:
            raise SeldonTesterException(f"the column {name!r} has no values")
        return {"name": name, "ftype": "categorical", "values": present.unique().tolist()}
    described: dict[str, Any] = {
        "name": name,
        "ftype": "continuous",
        "dtype": "INT" if types.is_integer_dtype(column.dtype) else "FLOAT",
    }
    if not present.empty:
        described["range"] = [present.min().item(), present.max().item()]
    return described
