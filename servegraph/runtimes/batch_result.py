"""What a batch run gives: counts, errors and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from servegraph.errors import SettingsError
from servegraph.importing import import_extra


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that failed."""

    row: int
    """Its number in the input, from 0."""
    message: str
    """Why, in words."""
    status: int
    """The HTTP status that a server would have answered with."""
    step: str | None = None
    """The step that failed."""

    def to_dict(self) -> dict[str, Any]:
        """The error as it is written to files and streams."""
        given = {"row": self.row, "error": self.message, "status": self.status}
        return given if self.step is None else {**given, "step": self.step}


@dataclass(slots=True)
class BatchResult:
    """The outcome of `BatchJob.run`. ``rows == ok + failed``."""

    rows: int = 0
    """Rows that were read and settled."""
    ok: int = 0
    """Rows that no step failed for."""
    failed: int = 0
    """Rows that failed; of an event that failed, all of its rows."""
    unanswered: int = 0
    """Of the rows that are ``ok``, those that nothing answered, such as ones that a filter dropped."""
    seconds: float = 0.0
    """How long the rows took, without loading models."""
    finished: bool = False
    """Whether the input was read to its end; ``False`` for a run that failed or was stopped."""
    errors: list[RowError] = field(default_factory=list)
    """The failed rows, in order, with ``on_error="record"``."""
    output: str = ""
    """The file or stream that outputs went to; empty where they are kept here."""
    untracked: int = 0
    """Tracking records that could not be written."""
    output_rows: list[int] = field(default_factory=list)
    """For each of ``outputs`` the number of its (first) row."""
    _outputs: list[Any] = field(default_factory=list)
    _index: Any = None

    @property
    def rows_per_second(self) -> float:
        """Settled rows per second."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def outputs(self) -> list[Any]:
        """The outputs in input order; rows that failed or that nothing answered have none.

        Raises:
            SettingsError: they went to a file or stream.
        """
        if self.output:
            raise SettingsError(f"the outputs are in {self.output}; a run without output= keeps them here")
        return self._outputs

    def to_dataframe(self) -> Any:
        """The outputs as a pandas frame, one row for each.

        Outputs that are objects give their fields as columns; others the column ``output``. The index holds row
        numbers, or what stood at these rows in the index of the input frame, so that it joins to the input. Rows
        that are in ``errors`` are there with what went wrong in a column ``error``.
        """
        pandas = import_extra("pandas", feature="to_dataframe()", extra="pandas")
        records = [o if isinstance(o, dict) else {"output": o} for o in self.outputs]
        numbers = list(self.output_rows)
        frame = pandas.DataFrame.from_records(records) if records else pandas.DataFrame()
        if self.errors:
            if "error" in frame.columns:
                raise SettingsError("outputs have a field 'error' of their own: look at outputs and errors instead")
            failed = pandas.DataFrame({"error": [e.message for e in self.errors]})
            frame = pandas.concat([frame, failed], ignore_index=True)
            numbers += [e.row for e in self.errors]
        frame.index = pandas.Index(numbers, dtype="int64")
        frame = frame.sort_index(kind="stable")
        if self._index is not None:
            frame.index = self._index[frame.index.to_numpy()]
        return frame

    def __repr__(self) -> str:
        return (
            f"<BatchResult {self.rows} rows, {self.failed} failed, {self.seconds:.1f} s"
            f"{'' if self.finished else ', not finished'}{f', in {self.output}' if self.output else ''}>"
        )
