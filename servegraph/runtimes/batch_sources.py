"""Where the rows of a batch come from: frames, iterables and files, each read piece by piece."""

from __future__ import annotations

import glob
import gzip
from collections.abc import AsyncIterable, Generator, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import RequestError, SettingsError, closest
from servegraph.importing import import_extra

CHUNK_ROWS: Final = 10_000
FORMATS: Final = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")
_COMPRESSED: Final = (".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows in order."""

    columns: tuple[str, ...] | None
    """The names of the columns; then each row is a tuple. ``None`` for rows that are values of their own."""
    rows: Iterable[Any]
    """The rows; a `BadRow` stands for one that cannot be read."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read."""

    error: RequestError


@dataclass(frozen=True, slots=True)
class Source:
    """All rows of a run."""

    chunks: Iterator[Chunk]
    """Read when they are asked for, never ahead."""
    total: int | None
    """How many rows there are, where that is known without reading them."""
    bodies: bool = False
    """Whether each row is the body of an event already, rather than a record of a table."""
    index: Any = None
    """The index of a pandas frame."""
    columns: tuple[str, ...] | None = None
    """The columns of a frame."""
    paths: tuple[Path, ...] = ()
    """The files that are read."""

    def close(self) -> None:
        """Close the file that is being read."""
        if isinstance(self.chunks, Generator):
            self.chunks.close()


def open_source(inputs: Any, read_options: Mapping[str, Any]) -> Source:
    """The rows of what `BatchJob.run` is given.

    Raises:
        SettingsError: there is no such file, its format is unknown, or the inputs hold no rows.
        MissingExtraError: the format needs a package that is not installed.
    """
    paths = _paths(inputs)
    if paths:
        return _files(paths, read_options)
    if read_options:
        raise SettingsError("read_options are for CSV files; these inputs are no files")
    if hasattr(inputs, "itertuples") and hasattr(inputs, "iloc"):
        return _frame(inputs)
    if hasattr(inputs, "to_pandas") and hasattr(inputs, "columns"):
        return _frame(inputs.to_pandas())
    if isinstance(inputs, (Mapping, bytes, bytearray)):
        raise SettingsError(f"inputs is one body ({type(inputs).__name__}): a list of bodies is wanted, [body]")
    if isinstance(inputs, AsyncIterable) or not isinstance(inputs, Iterable):
        raise SettingsError(
            f"inputs is {type(inputs).__name__}: give a pandas frame, an iterable of bodies, or files "
            f"({', '.join(FORMATS)})"
        )
    total = len(inputs) if isinstance(inputs, Sized) else None
    return Source(iter([Chunk(None, inputs)]), total, bodies=True)


# -- frames -------------------------------------------------------------------------------------------------------


def _frame(frame: Any) -> Source:
    chunk = _frame_chunk(frame)
    return Source(iter([chunk]), len(frame), index=frame.index, columns=chunk.columns)


def _frame_chunk(frame: Any) -> Chunk:
    # Column by column, so that whole numbers do not become floats beside floats.
    return Chunk(_names(frame.columns, "the frame"), frame.itertuples(index=False, name=None))


def _names(columns: Iterable[Any], place: str) -> tuple[str, ...]:
    names = tuple(str(c) for c in columns)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise SettingsError(f"{place} has several columns named {twice[0]!r}")
    return names


# -- files --------------------------------------------------------------------------------------------------------


def _paths(inputs: Any) -> list[Path]:
    """The files that are named: by one path or pattern, or by a list of them; none for any other inputs."""
    if isinstance(inputs, (str, Path)):
        return _expand(inputs)
    if not isinstance(inputs, (list, tuple)) or not inputs:
        return []
    are_paths = all(isinstance(i, Path) for i in inputs)
    if are_paths or all(isinstance(i, str) and _format(Path(i)) is not None for i in inputs):
        return [path for item in inputs for path in _expand(item)]
    return []


def _expand(item: str | Path) -> list[Path]:
    path = Path(item)
    if path.is_file():
        return [path]
    if path.is_dir():
        raise SettingsError(f"inputs: {str(item)!r} is a folder; name the files in it, as in '{path}/*.csv'")
    if glob.has_magic(str(item)):
        found = [Path(name) for name in sorted(glob.glob(str(item), recursive=True))]  # noqa: PTH207 - absolute too
        found = [p for p in found if p.is_file()]
        if found:
            return found
        raise SettingsError(f"inputs: no file matches {str(item)!r}")
    raise SettingsError(f"inputs: there is no file {str(item)!r}")


def _format(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".gz" and Path(path.stem).suffix.lower() in _COMPRESSED:
        return Path(path.stem).suffix.lower()
    return suffix if suffix in FORMATS else None


def _files(paths: list[Path], read_options: Mapping[str, Any]) -> Source:
    formats = []
    for path in paths:
        found = _format(path)
        if found is None:
            raise SettingsError(f"inputs: {path} has no format that is read; {closest(path.suffix, FORMATS)}")
        formats.append(found)
    if read_options and set(formats) != {".csv"}:
        raise SettingsError("read_options are for CSV files, and not all inputs are CSV")
    if ".csv" in formats:
        import_extra("pandas", feature="reading CSV files", extra="pandas")
    total: int | None = None
    if ".parquet" in formats:
        parquet = import_extra("pyarrow.parquet", feature="reading Parquet files", extra="pandas")
        if set(formats) == {".parquet"}:
            total = sum(parquet.read_metadata(path).num_rows for path in paths)
    return Source(_file_chunks(paths, formats, read_options), total, paths=tuple(paths))


def _file_chunks(paths: list[Path], formats: list[str], read_options: Mapping[str, Any]) -> Iterator[Chunk]:
    for path, kind in zip(paths, formats, strict=True):
        if kind == ".csv":
            yield from _csv(path, read_options)
        elif kind == ".parquet":
            yield from _parquet(path)
        elif kind == ".json":
            yield _json(path)
        else:
            yield Chunk(None, _json_lines(path))


def _csv(path: Path, read_options: Mapping[str, Any]) -> Iterator[Chunk]:
    pandas = import_extra("pandas", feature="reading CSV files", extra="pandas")
    try:
        with pandas.read_csv(path, **{"chunksize": CHUNK_ROWS, **read_options}) as reader:
            for frame in reader:
                yield _frame_chunk(frame)
    except pandas.errors.EmptyDataError:
        return
    except (pandas.errors.ParserError, UnicodeDecodeError) as exc:
        raise RequestError(f"{path} is not the CSV it should be: {exc}") from exc
    except (TypeError, ValueError) as exc:
        raise SettingsError(f"{path} cannot be read with these read_options: {exc}") from exc


def _parquet(path: Path) -> Iterator[Chunk]:
    parquet = import_extra("pyarrow.parquet", feature="reading Parquet files", extra="pandas")
    with parquet.ParquetFile(path) as file:
        names = _names(file.schema_arrow.names, str(path))
        for batch in file.iter_batches(batch_size=CHUNK_ROWS):
            yield Chunk(names, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _json(path: Path) -> Chunk:
    try:
        value = jsoncodec.loads(path.read_bytes())
    except jsoncodec.JSONDecodeError as exc:
        raise RequestError(f"{path} is not JSON: {exc}") from None
    return Chunk(None, value if isinstance(value, list) else [value])


def _json_lines(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                yield jsoncodec.loads(line)
            except jsoncodec.JSONDecodeError as exc:
                yield BadRow(RequestError(f"{path}, line {number} is not JSON: {exc}"))
