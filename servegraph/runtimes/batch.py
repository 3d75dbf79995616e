"""`BatchJob`: a function run over a frame, an iterable or files, in this process.

The caller's thread reads rows and writes outputs, in order; the events run on an event loop in a thread beside it.
No more than ``max_in_flight`` events are between the two, so the input is read no faster than outputs are written.
"""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import datetime as dt
import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

from servegraph.errors import RequestFailedError, ServegraphError, SettingsError, StepError, summary
from servegraph.graph.engine import NoResult, Outcome
from servegraph.graph.events import DROP, Event, Response, Trigger
from servegraph.graph.resolve import Namespace
from servegraph.runtimes.batch_bodies import Request, Shaper, check_columns
from servegraph.runtimes.batch_options import BatchOptions
from servegraph.runtimes.batch_outputs import FileSink, MemorySink, Sink, make_sink
from servegraph.runtimes.batch_progress import Display, Progress, logger, make_display
from servegraph.runtimes.batch_result import BatchResult, RowError
from servegraph.runtimes.batch_sources import Source, open_source
from servegraph.runtimes.batch_target import Target, find_target
from servegraph.runtimes.batch_tracking import BatchTracking
from servegraph.runtimes.batch_window import EventLoop, Slot, wait_for_all
from servegraph.runtimes.server import GraphServer

if TYPE_CHECKING:
    from servegraph.runtimes.function import ServingFunction

_FLUSH_EVERY_S: Final = 1.0


class BatchJob:
    """Runs a function over many rows; made by `ServingFunction.to_job`. Each `run` loads the models and closes them."""

    def __init__(
        self,
        function: ServingFunction,
        namespaces: Sequence[Namespace],
        *,
        track: bool = True,
        workdir: str | None = None,
        threads: int = 8,
    ) -> None:
        self.function = function
        self._namespaces = namespaces
        self._track = track
        self._workdir = workdir
        self._threads = threads
        self.result: BatchResult | None = None
        """The result of the last run, also of one that failed or was stopped."""

    def run(self, inputs: Any, **options: Any) -> BatchResult:
        """Send every row through the graph and return counts, errors and outputs.

        Args:
            inputs: a pandas frame; an iterable of bodies, which is read only as far as it is needed; or files (a path,
                a pattern such as ``data/*.csv``, or a list of them): CSV, JSON lines, JSON, Parquet.
            **options: fields of `BatchOptions`: ``path``, ``model``, ``body``, ``columns``, ``rows_per_request``,
                ``max_in_flight``, ``output``, ``outputs``, ``on_error``, ``progress``, ``timestamp_column``,
                ``read_options``.

        Raises:
            SettingsError: an option, a column or a file is not what it should be.
            ModelLoadError: a model could not be loaded.
            RequestFailedError: a row failed, and ``on_error`` is ``fail``; the message has its number.
            StreamError: an output could not be written.
        """
        checked = BatchOptions.checked(options)
        source = open_source(inputs, checked.read_options)
        display = make_display(checked.progress)
        sink = make_sink(checked.output, errors=checked.on_error == "record")
        _check_ends(source, sink, checked)
        self.result = result = BatchResult(output=sink.name, _index=source.index)
        server = self._server()
        try:
            server.load()
            target = find_target(server, checked, bodies=source.bodies)
            if wait_for_all(server.plan):
                logger.warning("batch: no step of %s responds, so its rows give no outputs", self.function.uri)
            with EventLoop(server) as loop:
                _Run(server, loop, checked, target, _Ends(source, sink, display), result).run()
        finally:
            server.close()
        return result

    def _server(self) -> GraphServer:
        # A batch has nothing to do before its models are there.
        function = copy.copy(self.function)
        function.spec = dataclasses.replace(self.function.spec, load_mode="sync")
        context = self.function.new_context()
        if self._workdir is not None:
            context.workdir = self._workdir
        return GraphServer(function, self._namespaces, context, threads=self._threads, track=self._track)

    def __repr__(self) -> str:
        return f"<BatchJob {self.function.uri}>"


def _check_ends(source: Source, sink: Sink, options: BatchOptions) -> None:
    """Find what is wrong before models are loaded."""
    if isinstance(sink, FileSink) and sink.path.exists() and any(sink.path.samefile(p) for p in source.paths):
        raise SettingsError(f"output {sink.name!r} is one of the inputs")
    if source.columns is not None:
        check_columns([*(options.columns or ()), *filter(None, [options.timestamp_column])], source.columns)


@dataclasses.dataclass(frozen=True, slots=True)
class _Ends:
    """What stands at both ends of a run."""

    source: Source
    sink: Sink
    display: Display


class _Run:
    """One run, from its first row to its last."""

    def __init__(
        self,
        server: GraphServer,
        loop: EventLoop,
        options: BatchOptions,
        target: Target,
        ends: _Ends,
        result: BatchResult,
    ) -> None:
        self._server = server
        self._loop = loop
        self._options = options
        self._target = target
        self._ends = ends
        self._sink = ends.sink
        self._result = result
        self._shaper = Shaper(target.shape)
        self._tracking = BatchTracking(server)
        self._trigger = Trigger("batch", server.context.name)
        self._clock = time.monotonic()
        self._flush_at = self._clock + _FLUSH_EVERY_S
        self._began = dt.datetime.now(dt.UTC)

    def run(self) -> None:
        """Read, run and write all rows; what is written is closed in any case."""
        result = self._result
        self._sink.open()
        requests = self._shaper.requests(self._ends.source)
        try:
            self._drive(requests)
            result.finished = True
        finally:
            requests.close()
            self._ends.source.close()
            try:
                self._sink.close()
            finally:
                result.seconds = time.monotonic() - self._clock
                if isinstance(self._sink, MemorySink):
                    result.output_rows, result._outputs = self._sink.rows, self._sink.outputs
                self._server.flush()
                result.untracked = self._tracking.lost
                self._ends.display.close(self._progress())
        first, last = self._shaper.first or self._began, self._shaper.last or dt.datetime.now(dt.UTC)
        self._tracking.complete(first, last, self._target.model)
        result.untracked = self._tracking.lost

    # -- reading and starting ---------------------------------------------------------------------------------------

    def _drive(self, requests: Generator[Request]) -> None:
        """Keep the window full, and settle its oldest events as they end."""
        pending: deque[Slot] = deque()
        try:
            self._fill(pending, requests)
        except KeyboardInterrupt:
            # Nothing more is waited for; what has ended is kept, up to the first row that has not.
            while pending and pending[0].done and pending[0].request.row == self._result.rows:
                self._settle(pending.popleft())
            raise

    def _fill(self, pending: deque[Slot], requests: Generator[Request]) -> None:
        failure: Exception | None = None
        reading = True
        while True:
            if reading and len(pending) < self._options.max_in_flight:
                try:
                    request = next(requests, None)
                except Exception as exc:  # noqa: BLE001 - raised below, once what was read before is written
                    failure, request = exc, None
                if request is None:
                    reading = False
                    continue
                slot = self._slot(request)
                pending.append(slot)
                if slot.event is not None:
                    self._loop.start(slot)
            elif pending:
                pending[0].wait()
            else:
                break
            while pending and pending[0].done:
                self._settle(pending.popleft())
        if failure is not None:
            raise failure

    def _slot(self, request: Request) -> Slot:
        if request.error is not None:
            slot = Slot(request, None)
            slot.outcome.set_exception(request.error)
            return slot
        event = Event(
            request.body,
            method="POST",
            path=self._target.path,
            trigger=self._trigger,
            offset=request.row,
            time=request.time,
        )
        return Slot(request, event)

    # -- settling ---------------------------------------------------------------------------------------------------

    def _settle(self, slot: Slot) -> None:
        """Write the outcome of an event that has ended."""
        request = slot.request
        result = self._result
        try:
            records = self._encoded(request, slot.outcome.result())
        except concurrent.futures.CancelledError:
            self._fail(request, StepError("the event was cancelled by a step"))
        except Exception as exc:  # noqa: BLE001 - a failed row; the policy says what that means
            self._fail(request, exc)
        else:
            for record in records:
                self._sink.write(record)
            result.ok += request.rows
            if not records:
                result.unanswered += request.rows
        result.rows += request.rows
        self._tracking.pace(request.rows)
        progress = self._progress()
        self._ends.display.update(progress)
        now = self._clock + progress.seconds
        if now >= self._flush_at:
            self._flush_at = now + _FLUSH_EVERY_S
            self._sink.flush()

    def _encoded(self, request: Request, outcome: Outcome) -> list[Any]:
        """The outputs of an event as they are written; none where nothing answered."""
        if isinstance(outcome, NoResult) or outcome.body is DROP:
            return []
        answer = outcome.body
        if isinstance(answer, Response):
            if answer.status_code >= 300:
                raise RequestFailedError(answer.status_code, answer.body)
            answer = answer.body
        outputs = self._target.outputs(answer, request.rows)
        try:
            return [self._sink.encode(request.row + i, output) for i, output in enumerate(outputs)]
        except (TypeError, ValueError, RecursionError) as exc:
            raise StepError(f"the output cannot be written: {exc}") from exc

    def _fail(self, request: Request, exc: Exception) -> None:
        result, options = self._result, self._options
        status = exc.status if isinstance(exc, ServegraphError) else 500
        message = str(exc) if isinstance(exc, ServegraphError) else summary(exc)
        step = exc.step if isinstance(exc, ServegraphError) else None
        result.failed += request.rows
        if options.on_error == "fail":
            result.rows += request.rows
            last = request.row + request.rows - 1
            where = f"row {last}" if request.rows == 1 else f"rows {request.row} to {last}"
            body = RowError(request.row, message, status, step).to_dict()
            raise RequestFailedError(status, body, f"{where} failed ({status}): {message}") from exc
        if options.on_error == "record":
            for row in range(request.row, request.row + request.rows):
                error = RowError(row, message, status, step)
                result.errors.append(error)
                self._sink.write(self._sink.encode_error(error))

    def _progress(self) -> Progress:
        result = self._result
        return Progress(result.rows, self._ends.source.total, result.failed, time.monotonic() - self._clock)
