"""Rows of numbers from a file, for detectors that are fitted to what is usual."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra

if TYPE_CHECKING:
    from servegraph.serving.seldon.outliers.base import Rows


def read_reference(path: Path) -> Rows:
    """The rows of a ``.csv`` file (with or without a line of names), a ``.npy`` file or a ``.npz`` file.

    Of several arrays in a ``.npz`` file the one called ``X`` is taken.

    Raises:
        ModelLoadError: it is none of these, or it holds something else than rows of finite numbers.
    """
    np = import_extra("numpy", feature="reference rows", extra="numpy")
    readers = {".csv": _csv, ".npy": _numpy, ".npz": _numpy}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ModelLoadError(f"{path}: reference rows are in a file that ends in {', '.join(readers)}")
    try:
        rows = np.asarray(read(path, np), dtype=np.float64)
    except (OSError, ValueError, TypeError, csv.Error, zipfile.BadZipFile, UnicodeDecodeError) as exc:
        raise ModelLoadError(f"{path}: these are no rows of numbers: {exc}") from exc
    if rows.ndim != 2 or not rows.size:
        raise ModelLoadError(f"{path}: these are no rows of numbers, but an array of shape {rows.shape}")
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise ModelLoadError(f"{path}: row {row + 1}, column {column + 1} is {rows[row, column]}, not a finite number")
    return rows  # type: ignore[no-any-return]


def _csv(path: Path, np: Any) -> Any:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if lines and not any(_is_number(cell) for cell in lines[0]):
        lines = lines[1:]
    return [[float(cell) for cell in line] for line in lines]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numpy(path: Path, np: Any) -> Any:
    loaded = np.load(path, allow_pickle=False)
    if path.suffix.lower() == ".npy":
        return loaded
    with loaded:
        names = loaded.files
        if "X" not in names and len(names) != 1:
            raise ValueError(f"the file holds the arrays {', '.join(names)}; the rows are to be called X")
        return loaded["X" if "X" in names else names[0]]
