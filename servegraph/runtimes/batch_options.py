"""`BatchOptions`: how a batch run reads, sends, answers for and writes its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from servegraph.errors import SettingsError, closest
from servegraph.streams import OutputStream

BODIES: Final = ("row", "list", "inputs")
ON_ERROR: Final = ("fail", "record", "skip")
OUTPUTS: Final = ("rows", "answers")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of `BatchJob.run`. Made by `checked`, which looks at every value."""

    path: str | None = None
    """The path that events are sent to; ``/``, or that of ``model``, where none is given."""
    model: str | None = None
    """The model that gets the rows, ``model`` or ``model:version``, in place of a path."""
    body: str | Callable[[Any], Any] | None = None
    """What an event's body is: ``row``, ``list`` (of rows), ``inputs`` (``{"inputs": [[…], …]}``), or what a function
    makes of the row (of the rows where ``rows_per_request`` is above 1). ``None``: what the first step takes."""
    columns: Sequence[str] | None = None
    """The columns that go into the body, in order; all of them where none are named."""
    rows_per_request: int = 1
    """Rows of one event."""
    max_in_flight: int = 16
    """Events that have been read and whose outputs are not written yet, at most."""
    output: str | Path | OutputStream | None = None
    """Where outputs go: a ``.jsonl``, ``.csv`` or ``.parquet`` file, the URI of a stream, or an open stream; ``None``
    keeps them in the result."""
    outputs: str | None = None
    """``rows``: one output for each row, taken out of the answer's list; ``answers``: one for each event, the whole
    answer. ``None``: ``rows`` for bodies that are lists or ``inputs``."""
    on_error: str = "fail"
    """What a failed row means: ``fail`` ends the run, ``record`` keeps its number and message, ``skip`` counts it."""
    progress: bool | Callable[[Any], Any] | None = None
    """``True`` for a bar, ``False`` for nothing, a function that is called with a `Progress`; ``None``: a bar on a
    terminal and in a notebook, else a line in the log every few seconds."""
    timestamp_column: str | None = None
    """The column with the time of each row: a datetime or ISO 8601 text, UTC where it names no zone."""
    read_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of ``pandas.read_csv``, for CSV files."""

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Self:
        """Options with these values.

        Raises:
            SettingsError: an option is unknown, has a value it cannot take, or does not go with another one.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise SettingsError(f"run() has no option {name!r}; {closest(name, known)}")
        made = cls(**options)
        for name in ("rows_per_request", "max_in_flight"):
            value = getattr(made, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} must be a whole number of at least 1, not {value!r}")
        made._check_choices()
        if made.model is not None and made.path is not None:
            raise SettingsError(f"model={made.model!r} and path={made.path!r} both say where rows go: give one of them")
        if made.path is not None and not made.path.startswith("/"):
            raise SettingsError(f"path must begin with '/', not {made.path!r}")
        if isinstance(made.columns, str) or (made.columns is not None and not made.columns):
            raise SettingsError(f"columns must be a list of names, not {made.columns!r}")
        if made.body == "row" and made.rows_per_request > 1:
            raise SettingsError(
                f"body='row' sends one row, and rows_per_request is {made.rows_per_request}: use 'list'"
            )
        return made

    def _check_choices(self) -> None:
        _check("on_error", self.on_error, ON_ERROR)
        if self.outputs is not None:
            _check("outputs", self.outputs, OUTPUTS)
        if self.body is not None and not callable(self.body):
            _check("body", self.body, BODIES)
        if not (self.progress is None or isinstance(self.progress, bool) or callable(self.progress)):
            raise SettingsError(f"progress must be True, False, None or a function, not {self.progress!r}")


def _check(name: str, value: object, valid: Sequence[str]) -> None:
    if value not in valid:
        raise SettingsError(f"{name} is {value!r}; {closest(str(value), valid)}")
