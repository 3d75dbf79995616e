"""From rows to the bodies of events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from servegraph.errors import RequestError, SettingsError, closest, summary
from servegraph.runtimes.batch_sources import BadRow, Source

Row = Any


@dataclass(slots=True)
class Request:
    """One event that is to be sent."""

    row: int
    """The number of its first row, from 0."""
    rows: int
    """How many rows it holds."""
    body: Any = None
    time: dt.datetime | None = None
    """When its first row happened."""
    error: Exception | None = None
    """Why there is no body."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What bodies look like; `BatchOptions` with everything that was left open filled in."""

    body: str | Callable[[Any], Any]
    """``as_is``, ``row``, ``list``, ``inputs`` or a function."""
    rows_per_request: int = 1
    columns: tuple[str, ...] | None = None
    timestamp_column: str | None = None
    inputs_key: str = "inputs"
    """What a request's list of rows is called."""
    named: bool = False
    """Whether ``inputs`` holds rows by name, as objects, in place of lists."""
    chosen: bool = False
    """Whether the body's shape was asked for, and not found by what the first step takes."""


class Shaper:
    """Makes requests of rows, and takes note of their times."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.first: dt.datetime | None = None
        """The earliest time of all rows so far."""
        self.last: dt.datetime | None = None
        """The latest time of all rows so far."""
        self._as_list = shape.body == "inputs" and not shape.named
        self._known = shape.columns
        """The names of the values of a list row; those of the first row where none were given."""

    def requests(self, source: Source) -> Generator[Request]:
        """The requests of all rows, in order; a row that has none is a request with an error.

        Raises:
            SettingsError: a table lacks a column that the options name.
        """
        size = self.shape.rows_per_request
        group: list[Row] = []
        time: dt.datetime | None = None
        number = 0
        for row, when, error in self._rows(source):
            if error is not None:
                if group:
                    yield self._request(number - len(group), group, time)
                    group = []
                yield Request(number, 1, error=error)
            else:
                time = time if group else when
                group.append(row)
                if len(group) == size:
                    yield self._request(number - size + 1, group, time)
                    group = []
            number += 1
        if group:
            yield self._request(number - len(group), group, time)

    def _request(self, row: int, group: list[Row], time: dt.datetime | None) -> Request:
        shape = self.shape.body
        if callable(shape):
            try:
                body = shape(group[0] if self.shape.rows_per_request == 1 else group)
            except Exception as exc:  # noqa: BLE001 - the user's function; the row fails for this
                error = RequestError(f"the body could not be made: {summary(exc)}")
                error.__cause__ = exc
                return Request(row, len(group), error=error)
        elif shape == "inputs":
            body = {self.shape.inputs_key: group}
        elif shape == "list":
            body = group
        else:
            body = group[0]
        return Request(row, len(group), body, time)

    # -- rows -------------------------------------------------------------------------------------------------------

    def _rows(self, source: Source) -> Iterator[tuple[Row, dt.datetime | None, Exception | None]]:
        for chunk in source.chunks:
            if chunk.columns is None:
                read: Callable[[Any], tuple[Row, dt.datetime | None]] = self._value
            else:
                read = self._table(chunk.columns)
            for item in chunk.rows:
                if item.__class__ is BadRow:
                    yield None, None, item.error
                    continue
                try:
                    row, when = read(item)
                except RequestError as exc:
                    yield None, None, exc
                else:
                    yield row, when, None

    def _table(self, columns: tuple[str, ...]) -> Callable[[Any], tuple[Row, dt.datetime | None]]:
        """What reads the rows of a table with these columns."""
        stamp = self.shape.timestamp_column
        check_columns([*(self._known or ()), *((stamp,) if stamp else ())], columns)
        wanted = self._known
        if wanted is None:
            wanted = tuple(c for c in columns if c != stamp) if self._as_list else columns
            if self._as_list:
                self._known = wanted  # files that follow must have the same
        at = [columns.index(c) for c in wanted]
        straight = at == list(range(len(columns)))
        stamp_at = None if stamp is None else columns.index(stamp)

        def read(values: Sequence[Any]) -> tuple[Row, dt.datetime | None]:
            when = None if stamp_at is None else self._note(values[stamp_at])
            picked = values if straight else [values[i] for i in at]
            return (list(picked) if self._as_list else dict(zip(wanted, picked, strict=True))), when

        return read

    def _value(self, row: Any) -> tuple[Row, dt.datetime | None]:
        """Read a row that brings its own names, or has none."""
        stamp = self.shape.timestamp_column
        when = None
        if stamp is not None:
            when = self._note(_field(row, stamp))
        if not isinstance(row, dict):
            if self.shape.columns is not None:
                raise RequestError(f"columns= is for rows that are objects, and this is {type(row).__name__}")
            return row, when
        if self.shape.body == "inputs":
            self._refuse_whole_request(row)
        if self._as_list:
            if self._known is None:
                self._known = tuple(c for c in row if c != stamp)
            return [_field(row, c) for c in self._known], when
        if self.shape.columns is not None:
            return {c: _field(row, c) for c in self.shape.columns}, when
        return row, when

    def _refuse_whole_request(self, row: dict[str, Any]) -> None:
        if not self.shape.chosen and isinstance(row.get(self.shape.inputs_key), list):
            raise RequestError(
                f"the row has {self.shape.inputs_key!r} and looks like a whole request: body='row' sends it as it is "
                "(body='inputs' takes it for a column)"
            )

    def _note(self, value: Any) -> dt.datetime | None:
        """The time of a row; remembered when it is the earliest or latest."""
        when = _time(value, self.shape.timestamp_column)
        if when is not None:
            if self.first is None or when < self.first:
                self.first = when
            if self.last is None or when > self.last:
                self.last = when
        return when


def check_columns(wanted: Iterable[str], columns: Sequence[str]) -> None:
    """Raise `SettingsError` for a column that a table does not have."""
    for name in wanted:
        if str(name) not in columns:
            raise SettingsError(f"there is no column {name!r}; {closest(str(name), columns)}")


def _field(row: Any, name: str) -> Any:
    if not isinstance(row, dict):
        raise RequestError(f"the row is {type(row).__name__} and has no column {name!r}")
    if name not in row:
        raise RequestError(f"the row has no column {name!r}; {closest(name, row)}")
    return row[name]


def _time(value: Any, column: str | None) -> dt.datetime | None:
    """A row's time in UTC; ``None`` where the row has none."""
    if value is None or value != value:  # NaN and NaT differ from themselves
        return None
    when = value
    if hasattr(when, "to_pydatetime"):
        when = when.to_pydatetime(warn=False)
    if isinstance(when, str):
        try:
            when = dt.datetime.fromisoformat(when)
        except ValueError:
            raise RequestError(f"column {column!r} holds {value!r}, which is no ISO 8601 time") from None
    elif isinstance(when, dt.date) and not isinstance(when, dt.datetime):
        when = dt.datetime.combine(when, dt.time())
    if not isinstance(when, dt.datetime):
        raise RequestError(f"column {column!r} holds {value!r}, which is no time: give a datetime or ISO 8601 text")
    return when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)
