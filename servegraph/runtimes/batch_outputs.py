"""Where the outputs of a batch go: memory, JSON lines, CSV, Parquet, a stream."""

from __future__ import annotations

import csv
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any, Final

from servegraph import jsoncodec
from servegraph.errors import SettingsError, StreamError, closest
from servegraph.importing import import_extra
from servegraph.runtimes.batch_result import RowError
from servegraph.streams import OutputStream, PushError, Record, open_stream

FILE_FORMATS: Final = (".jsonl", ".ndjson", ".csv", ".parquet")
FIRST_ROWS: Final = 1000
"""The columns of a table are those of this many first records."""
_PUSH_ROWS: Final = 500
_ATTEMPTS: Final = 5


class Sink(ABC):
    """Takes outputs in order."""

    name = ""
    """The file or address that is written to."""

    def open(self) -> None:  # noqa: B027 - not every sink has something to do
        """Get ready to write; what a file held is gone."""

    @abstractmethod
    def encode(self, row: int, output: Any) -> Any:
        """An output as it is written; raises `TypeError` or `ValueError` for one that cannot be."""

    @abstractmethod
    def encode_error(self, error: RowError) -> Any:
        """A failed row as it is written."""

    @abstractmethod
    def write(self, record: Any) -> None:
        """Write what was encoded; raises `StreamError` when that fails."""

    def flush(self) -> None:  # noqa: B027 - not every sink has something to do
        """Let readers see what was written so far."""

    def close(self) -> None:  # noqa: B027 - not every sink has something to do
        """Write what is left."""


def make_sink(output: str | Path | OutputStream | None, errors: bool) -> Sink:
    """The sink of the option ``output``.

    Args:
        output: as in `BatchOptions`.
        errors: whether failed rows are written as well.

    Raises:
        SettingsError: the file's format is unknown, or its folder is a file.
        StreamError: the address is none of a stream.
        MissingExtraError: the format needs a package that is not installed.
    """
    if output is None:
        return MemorySink()
    if isinstance(output, OutputStream):
        return StreamSink(output, mine=False)
    if "://" in str(output):
        return StreamSink(open_stream(str(output)), mine=True)
    path = Path(output)
    suffix = path.suffix.lower()
    if suffix not in FILE_FORMATS:
        raise SettingsError(
            f"output={str(output)!r} has no format that is written; {closest(suffix, FILE_FORMATS)}, or a stream's URI"
        )
    if path.is_dir():
        raise SettingsError(f"output={str(output)!r} is a folder")
    if suffix == ".csv":
        return CsvSink(path, errors)
    return ParquetSink(path, errors) if suffix == ".parquet" else JsonLinesSink(path)


class MemorySink(Sink):
    """Keeps outputs as they are."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.outputs: list[Any] = []

    def encode(self, row: int, output: Any) -> Any:
        """The pair of both."""
        return row, output

    def encode_error(self, error: RowError) -> Any:
        """Nothing: the result keeps errors itself."""
        return None

    def write(self, record: Any) -> None:
        """Keep it."""
        if record is not None:
            self.rows.append(record[0])
            self.outputs.append(record[1])


class StreamSink(Sink):
    """Pushes ``{"row": …, "output": …}``, several at a time."""

    def __init__(self, stream: OutputStream, mine: bool) -> None:
        self.name = stream.uri
        self._stream = stream
        self._mine = mine
        self._waiting: list[Record] = []

    def encode(self, row: int, output: Any) -> Any:
        """A record of plain values."""
        return Record({"row": row, "output": _plain(output)})

    def encode_error(self, error: RowError) -> Any:
        """A record with ``error`` and ``status`` in place of ``output``."""
        return Record(error.to_dict())

    def write(self, record: Any) -> None:
        """Push when there are enough."""
        self._waiting.append(record)
        if len(self._waiting) >= _PUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Push what waits, in up to five attempts."""
        attempt = 0
        while self._waiting:
            try:
                self._stream.push(self._waiting)
            except PushError as exc:
                attempt += 1
                if exc.refused or not exc.retryable or attempt == _ATTEMPTS:
                    raise StreamError(f"output: {exc}") from exc
                self._waiting = list(exc.undelivered)
                time.sleep(0.1 * 2**attempt)
            else:
                self._waiting = []

    def close(self) -> None:
        """Push what waits; close the stream if it was opened here."""
        try:
            self.flush()
        finally:
            if self._mine:
                self._stream.close()


class FileSink(Sink):
    """Writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def open(self) -> None:
        """Make the folder."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StreamError(f"output {self.path}: {exc.strerror or exc}") from exc


class JsonLinesSink(FileSink):
    """One line for each output: ``{"row": …, "output": …}``."""

    _file: IO[bytes] | None = None

    def open(self) -> None:
        """Open the file."""
        super().open()
        self._file = self.path.open("wb")

    def encode(self, row: int, output: Any) -> Any:
        """The line."""
        return jsoncodec.dumps({"row": row, "output": output}) + b"\n"

    def encode_error(self, error: RowError) -> Any:
        """A line with ``error`` and ``status`` in place of ``output``."""
        return jsoncodec.dumps(error.to_dict()) + b"\n"

    def write(self, record: Any) -> None:
        """Write the line."""
        assert self._file is not None
        self._file.write(record)

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class TableSink(FileSink):
    """Writes records under columns, which are those of the first thousand records; ``row`` comes first."""

    def __init__(self, path: Path, errors: bool) -> None:
        super().__init__(path)
        self._own = ("row", "error") if errors else ("row",)
        self._records: list[dict[str, Any]] = []
        self._has_output = False
        self._is_open = False
        self.columns: tuple[str, ...] | None = None

    def open(self) -> None:
        """Open the file."""
        super().open()
        self._is_open = True

    def encode(self, row: int, output: Any) -> Any:
        """A record of plain values; an output that is no object is the column ``output``."""
        plain = _plain(output)
        if not isinstance(plain, dict):
            return {"row": row, "output": plain}
        for name in self._own:
            if name in plain:
                raise ValueError(f"its field {name!r} is a column of the file's own; a .jsonl file takes it")
        return {"row": row, **plain}

    def encode_error(self, error: RowError) -> Any:
        """A record with ``error``."""
        return {"row": error.row, "error": error.message}

    def write(self, record: Any) -> None:
        """Write when there are enough."""
        self._has_output = self._has_output or "error" not in self._own or "error" not in record
        self._records.append(record)
        if self.columns is not None and record.keys() - self.columns:
            extra = sorted(record.keys() - self.columns)
            raise StreamError(
                f"output {self.path}: row {record['row']} has the column {extra[0]!r}, which none of the first "
                f"{FIRST_ROWS} had; a .jsonl file takes outputs of any form"
            )
        # Where all of the first rows failed, nothing tells the columns yet.
        if len(self._records) >= FIRST_ROWS and (self._has_output or self.columns is not None):
            self._put()

    def close(self) -> None:
        """Write what is left."""
        if self._is_open:
            self._put()

    def _put(self) -> None:
        if self.columns is None:
            seen = dict.fromkeys(name for record in self._records for name in record)
            self.columns = (*self._own, *(n for n in seen if n not in self._own))
            self._begin()
        records, self._records = self._records, []
        if records:
            self._append(records)

    @abstractmethod
    def _begin(self) -> None:
        """Write what comes before the first record."""

    @abstractmethod
    def _append(self, records: list[dict[str, Any]]) -> None:
        """Write records."""


class CsvSink(TableSink):
    """Comma-separated values with a header; lists and objects in them are JSON, missing values are empty."""

    _file: IO[str] | None = None

    def open(self) -> None:
        """Open the file."""
        super().open()
        self._file = self.path.open("w", encoding="utf-8", newline="")

    def flush(self) -> None:
        """Write the records so far, once the columns are known."""
        if self.columns is not None and self._file is not None:
            self._put()
            self._file.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._file is not None:
            try:
                super().close()
            finally:
                self._file.close()

    def _begin(self) -> None:
        csv.writer(self._file or _closed()).writerow(self.columns or ())

    def _append(self, records: list[dict[str, Any]]) -> None:
        rows = ([_cell(record.get(name)) for name in self.columns or ()] for record in records)
        csv.writer(self._file or _closed()).writerows(rows)


class ParquetSink(TableSink):
    """A Parquet file with a row group for each thousand records."""

    def __init__(self, path: Path, errors: bool) -> None:
        super().__init__(path, errors)
        self._arrow = import_extra("pyarrow", feature="writing Parquet files", extra="pandas")
        self._parquet = import_extra("pyarrow.parquet", feature="writing Parquet files", extra="pandas")
        self._writer: Any = None
        self._schema: Any = None

    def close(self) -> None:
        """Write what is left and the file's footer."""
        try:
            super().close()
        finally:
            if self._writer is not None:
                self._writer.close()

    def _begin(self) -> None:
        own = {"row": self._arrow.int64(), "error": self._arrow.string()}
        found = []
        for name in self.columns or ():
            kind = own.get(name) if name in self._own else None
            found.append((name, kind or self._array(name, [r.get(name) for r in self._records], None).type))
        self._schema = self._arrow.schema(found)
        self._writer = self._parquet.ParquetWriter(self.path, self._schema)

    def _append(self, records: list[dict[str, Any]]) -> None:
        arrays = [self._array(f.name, [r.get(f.name) for r in records], f.type) for f in self._schema]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))

    def _array(self, name: str, values: list[Any], kind: Any) -> Any:
        try:
            return self._arrow.array(values, type=kind)
        except (self._arrow.ArrowException, OverflowError) as exc:
            raise StreamError(
                f"output {self.path}: the column {name!r} holds values of several types ({exc}); "
                "a .jsonl file takes outputs of any form"
            ) from exc


def _plain(output: Any) -> Any:
    """An output as plain Python values, the same as in JSON."""
    if output.__class__ in (str, int, bool, type(None)):
        return output
    return jsoncodec.loads(jsoncodec.dumps(output))


def _cell(value: Any) -> Any:
    return jsoncodec.dumps(value).decode() if isinstance(value, (list, dict)) else value


def _closed() -> IO[str]:
    raise StreamError("the output file is not open")
