"""Recording predictions: what a user asks for (`Tracking`), and the recorder that does it (`TrackingRecorder`)."""

from __future__ import annotations

import itertools
import math
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NoReturn, Self

from servegraph.errors import MissingExtraError, SettingsError, StreamError, closest
from servegraph.graph.context import GraphContext, Prediction
from servegraph.monitoring.batches import Batches
from servegraph.monitoring.budget import Budget, Charge
from servegraph.monitoring.records import Origin, Row, batch_of, record_of, row_of, short_summary
from servegraph.monitoring.tap import Tap, TapStats
from servegraph.streams import OutputStream, Record, open_stream, redact

MOCK_URI = "dummy://"
CLOSE_S = 3.0
BATCH_MAX_AGE_S = 30.0
CHARGED_FROM = 4096
"""Records of fewer bytes are bounded well enough by their number."""

_MLRUN_NAMES = {"log_stream": "stream_path", "log_stream_batch": "batch", "log_stream_sample": "sample"}


@dataclass(frozen=True, slots=True)
class Tracking:
    """How predictions are recorded. Made by `checked` or `from_dict`, which look at every value."""

    stream_path: str | None = None
    """URI of the stream; ``{project}`` in it stands for the function's project. ``None``: only fit for the mock."""
    batch: int | None = None
    """Predictions of one record; ``None`` or 1 for records of one prediction."""
    sample: int | None = None
    """Every n-th prediction of a model is recorded; ``None`` or 1 for all."""
    sampling_percentage: float | None = None
    """Share of the rows of each prediction that is recorded, above 0 and at most 100; ``None`` for all."""
    stream_args: dict[str, Any] = field(default_factory=dict)
    """Options of the stream's transport."""
    enabled: bool = True
    """Whether anything is recorded."""
    max_queue: int = 10_000
    """Records that may wait for the stream; further ones are dropped and counted."""
    max_queue_bytes: int = 64 * 1024 * 1024
    """Bytes that waiting records of large predictions may hold together; further ones are dropped and counted."""
    flush_interval_s: float = 1.0
    """The longest time in seconds that a record waits before it is written."""

    @classmethod
    def checked(cls, **options: Any) -> Self:
        """Tracking with these fields.

        Raises:
            SettingsError: a field is unknown or has a value it cannot take, or the stream's URI or options are wrong.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise SettingsError(f"set_tracking has no option {name!r}; {closest(name, known)}")
        for name in ("batch", "sample"):
            if options.get(name) is not None:
                _check_count(name, options[name])
        for name in ("max_queue", "max_queue_bytes"):
            if name in options:
                _check_count(name, options[name])
        if options.get("sampling_percentage") is not None:
            options["sampling_percentage"] = _number("sampling_percentage", options["sampling_percentage"], 100.0)
        if "flush_interval_s" in options:
            options["flush_interval_s"] = _number("flush_interval_s", options["flush_interval_s"], 3600.0)
        if not isinstance(options.get("enabled", True), bool):
            _refuse("enabled", options["enabled"], "must be true or false")
        args = options.get("stream_args")
        if args is not None and not (isinstance(args, Mapping) and all(isinstance(name, str) for name in args)):
            _refuse("stream_args", type(args).__name__, "must be an object of the stream's options by name")
        options["stream_args"] = dict(args or {})
        _check_stream(options.get("stream_path"), options["stream_args"])
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as a spec holds them."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        default = Tracking()
        return {name: value for name, value in given.items() if value != getattr(default, name)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`; takes ``log_stream``, ``log_stream_batch`` and ``log_stream_sample`` as well.

        Raises:
            SettingsError: as `checked`, or a field is given under both of its names.
        """
        if not isinstance(data, Mapping):
            raise SettingsError(f"tracking must be an object, not {type(data).__name__}")
        options: dict[str, Any] = {}
        for given, value in data.items():
            name = _MLRUN_NAMES.get(given, given)
            if name in options:
                raise SettingsError(f"tracking: {name} is given twice, under its own name and as in MLRun")
            options[name] = value
        return cls.checked(**options)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _refuse(name, value, "must be a whole number of at least 1")


def _number(name: str, value: object, most: float) -> float:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not 0 < value <= most:  # type: ignore[operator]
        _refuse(name, value, f"must be a number above 0 and at most {most:g}")
    return float(value)  # type: ignore[arg-type]


def _check_stream(path: object, args: Mapping[str, Any]) -> None:
    if path is None:
        return
    if not isinstance(path, str) or not path:
        _refuse("stream_path", path, "must be the URI of a stream")
    try:
        # Transports connect at the first push, so this looks at the address and the options and nothing else.
        open_stream(path.replace("{project}", "project"), **args).close()
    except MissingExtraError:
        pass  # it has to be installed where the function runs, which may be elsewhere
    except StreamError as exc:
        raise SettingsError(f"set_tracking: {exc}") from exc


def _refuse(name: str, value: object, why: str) -> NoReturn:
    raise SettingsError(f"set_tracking: {name} {why}, not {value!r}")


class TrackingRecorder:
    """Writes a record of every prediction to a stream, behind the requests.

    `record` makes the record and appends it to a bounded queue; the stream may be slow or away.
    What is not recorded for that reason is counted in `stats`.

    Args:
        tracking: what is recorded, and where.
        context: of the server whose predictions are recorded.

    Raises:
        SettingsError: outside of the mock, when there is no stream to write to.
    """

    def __init__(self, tracking: Tracking, context: GraphContext) -> None:
        path = tracking.stream_path
        if path is None:
            if not context.is_mock:
                raise SettingsError(
                    f"function {context.name!r} tracks predictions but names no stream: "
                    "set_tracking('file:///path/records.jsonl'), kafka://broker/topic or http(s)://… "
                    "(without one they are only kept in the mock)"
                )
            path = MOCK_URI
        self.uri = path.replace("{project}", context.project)
        self.stream: OutputStream | None = None
        """The stream itself where records stay in memory (``dummy://``), for tests to look at."""
        open_it = partial(open_stream, self.uri, **tracking.stream_args)
        if self.uri.startswith("dummy://"):
            self.stream = stream = open_it()
            self._tap = Tap(lambda: stream, max_queue=tracking.max_queue, flush_interval_s=tracking.flush_interval_s)
        else:
            self._tap = Tap(open_it, max_queue=tracking.max_queue, flush_interval_s=tracking.flush_interval_s)
        share = 100.0 if tracking.sampling_percentage is None else tracking.sampling_percentage
        host = context.stream.hostname or socket.gethostname()
        self._is_whole = share >= 100.0
        """Whether each prediction that is due has a record."""
        self._origin = Origin(context.worker_id, host, context.function_uri, share)
        self._every = tracking.sample or 1
        self._counts: dict[tuple[str, str], Iterator[int]] = {}
        self._budget = Budget(tracking.max_queue_bytes)
        batch = tracking.batch or 1
        # After the tap: what is handed on at exit must still be taken in.
        self._batches = Batches(batch, self._put_batch, BATCH_MAX_AGE_S) if batch > 1 else None

    def record(self, prediction: Prediction) -> None:
        """Keep a prediction and let it be written later. Never waits, never raises.

        Takes a few microseconds for a row of twenty features, and grows with what the request and response hold.
        """
        try:
            failed = prediction.error is not None
            if self._every > 1 and not failed and not self._is_due(prediction):
                return
            if self._batches is not None and not failed:
                row = row_of(prediction, self._origin)
                if row is not None:
                    self._add(self._batches, row)
            elif self._is_whole and self._tap.is_full():
                self._tap.drop()
            else:
                text = record_of(prediction, self._origin)
                if text is not None:
                    self._put(text, prediction.key)
        except Exception as exc:  # noqa: BLE001 - user code in logged_results, or objects that cannot be read
            self._tap.put(_Unrecorded(short_summary(exc)))

    def flush(self, timeout_s: float) -> bool:
        """Whether all that was recorded so far, incomplete batches too, is written or counted as lost in time."""
        if self._batches is not None:
            self._batches.flush()
        return self._tap.flush(timeout_s)

    def close(self) -> None:
        """Write what is left, incomplete batches too, for up to three seconds; then close the stream."""
        if self._batches is not None:
            self._batches.flush()
        self._tap.close(CLOSE_S)

    @property
    def stats(self) -> TapStats:
        """Counts of records; a batch is one record, and a prediction that found no room in one counts as dropped."""
        stats = self._tap.stats()
        return replace(stats, dropped=stats.dropped + self._budget.refused)

    def _is_due(self, prediction: Prediction) -> bool:
        """Whether this is the n-th prediction of its model."""
        model = (prediction.model, prediction.version)
        count = self._counts.get(model)
        if count is None:
            count = self._counts.setdefault(model, itertools.count(1))
        return next(count) % self._every == 0

    def _put(self, text: bytes, key: str | None) -> None:
        if len(text) < CHARGED_FROM:
            self._tap.put(Record(text, key, None, True))
            return
        charge = self._budget.charge(len(text))
        if charge is not None:
            self._tap.put(_Charged(text, key, None, True, charge))

    def _add(self, batches: Batches, row: Row) -> None:
        row.charge = self._budget.charge(len(row.text))
        if row.charge is not None:
            batches.add(row)
        else:
            batches.flush()  # those that are open may hold all the room that there is

    def _put_batch(self, batch: list[Row]) -> None:
        self._tap.put(_Batch(batch))

    def __repr__(self) -> str:
        return f"<TrackingRecorder {redact(self.uri)}>"


@dataclass(slots=True, eq=False)
class _Charged(Record):
    """A record that gives back its share of a budget when it is written or given up."""

    charge: Charge | list[Charge | None] | None = None
    """The shares; nobody reads them, they end with the record."""


@dataclass(slots=True)
class _Batch:
    """Several predictions of a model on their way to the stream."""

    batch: list[Row]

    def to_record(self) -> Record:
        charges = [row.charge for row in self.batch]
        return _Charged(batch_of(self.batch), self.batch[0].key, None, True, charges)


@dataclass(slots=True)
class _Unrecorded:
    """A prediction that could not be kept: the tap counts it as failed, and logs why."""

    reason: str

    def to_record(self) -> Record:
        raise StreamError(f"a prediction could not be recorded: {self.reason}")
