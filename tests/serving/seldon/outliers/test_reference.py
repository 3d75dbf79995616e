"""Reference rows are read from files, and what is wrong with a file is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.outliers.reference import read_reference

ROWS = [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4.5\n", "1,2\r\n3,4.5", "\ufeffa,b\n\n1,2\n3,4.5\n\n"])
def test_csv_is_read_with_or_without_names(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_reference(path).tolist() == ROWS


def test_arrays_of_numpy_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    np.savez(tmp_path / "one.npz", rows=ROWS)
    np.savez(tmp_path / "two.npz", X=ROWS, y=[0, 1])
    for name in ("rows.npy", "one.npz", "two.npz"):
        assert read_reference(tmp_path / name).tolist() == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"a,b\n1,x\n", "no rows of numbers"),
        ("rows.csv", b"1,2\n3\n", "no rows of numbers"),
        ("rows.csv", b"a,b\n", "array of shape"),
        ("rows.csv", b"1,2\n3,nan\n", "row 2, column 2 is nan, not a finite number"),
        ("rows.csv", b"\xff\xfe\xff", "no rows of numbers"),
        ("rows.npz", b"no zip", "no rows of numbers"),
        ("rows.parquet", b"", r"ends in \.csv, \.npy, \.npz"),
    ],
)
def test_file_that_holds_no_rows_is_told_of(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        read_reference(path)


def test_arrays_that_are_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    with pytest.raises(ModelLoadError, match="no rows of numbers"):
        read_reference(tmp_path / "rows.npy")


def test_arrays_of_which_none_is_called_x_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", a=ROWS, b=ROWS)
    with pytest.raises(ModelLoadError, match="the arrays a, b; the rows are to be called X"):
        read_reference(tmp_path / "rows.npz")
