"""`process_batch`: sends each line of a file to a Seldon deployment, and writes one line of answer for each."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servegraph.errors import SettingsError
from servegraph.runtimes.batch_progress import Display, Progress, make_display
from servegraph.runtimes.seldon.batch_calls import Caller, Outcome
from servegraph.runtimes.seldon.batch_options import SeldonBatchOptions
from servegraph.runtimes.seldon.batch_output import Output
from servegraph.runtimes.seldon.batch_rows import Row, read_row
from servegraph.serving.seldon.client import SeldonCallCredentials, SeldonClient
from servegraph.serving.seldon.client.urls import deployment_url

logger = logging.getLogger("servegraph.seldon.batch")

_WINDOW: Final = 4  # requests in memory for each worker, so that one slow answer does not stop the others at once
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """How a run ended."""

    rows: int
    """Lines of the input, and of the output."""
    failed: int
    """Those of them that failed."""
    seconds: float
    """How long this run took."""
    batch_id: str
    """Name of the run in the tags of each line."""
    output: Path
    """The file that was written."""


def process_batch(options: SeldonBatchOptions) -> BatchSummary:
    """Send every line and write every answer; the output appears when all of it is there.

    The order of the output is that of the input, and each line of the input has one line there. A run that is
    stopped leaves ``<output>.part``, from which one with ``resume`` goes on.

    Raises:
        SettingsError: the input cannot be read or the output cannot be written.
        SeldonClientException: the deployment cannot be called as it is asked for.
        MissingExtraError: the transport or the progress bar needs a package that is not installed.
    """
    display = make_display(options.progress)
    started = time.monotonic()
    with _client(options) as client, _opened(options.input_data_path) as lines:
        deployment_url(client.options, "predict")  # raises here what would fail every line
        output = Output(options.output_data_path, options.resume)
        batch_id = options.named(output.kept.batch_id)
        run = _Run(options, output, display, started)
        try:
            run.skip(lines)
            run.process(lines, client, batch_id)
            output.finish()
        except BaseException:
            output.give_up()
            logger.warning("stopped after %d lines: they are in %s, and resume goes on", run.rows, output.part)
            raise
        finally:
            display.close(run.progress())
    return BatchSummary(run.rows, run.failed, time.monotonic() - started, batch_id, options.output_data_path)


class _Run:
    """Where a run is."""

    def __init__(self, options: SeldonBatchOptions, output: Output, display: Display, started: float) -> None:
        self._options = options
        self._output = output
        self._display = display
        self._started = started
        self._total = _line_count(options.input_data_path) if options.progress is not False else None
        self.rows = output.kept.rows
        self.failed = output.kept.failed

    def skip(self, lines: Iterator[bytes]) -> None:
        """Pass over the lines whose answers are there.

        Raises:
            SettingsError: there are fewer.
        """
        if sum(1 for _ in itertools.islice(lines, self.rows)) < self.rows:
            raise SettingsError(f"{self._output.part} has more lines than {self._options.input_data_path}")

    def process(self, lines: Iterator[bytes], client: SeldonClient, batch_id: str) -> None:
        """Send the lines that are left; few of them are in memory at a time."""
        stop = threading.Event()
        caller = Caller(client, self._options, batch_id, stop)
        pool = ThreadPoolExecutor(self._options.workers, thread_name_prefix="servegraph-seldon-batch")
        waiting: deque[Future[list[Outcome]]] = deque()
        most = _WINDOW * self._options.workers
        try:
            for rows in self._chunks(lines):
                waiting.append(pool.submit(caller.outcomes, rows))
                while waiting and (len(waiting) >= most or waiting[0].done()):
                    self._settle(waiting.popleft().result())
            while waiting:
                self._settle(waiting.popleft().result())
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def progress(self) -> Progress:
        """Where the run is."""
        return Progress(self.rows, self._total, self.failed, time.monotonic() - self._started)

    def _chunks(self, lines: Iterator[bytes]) -> Iterator[list[Row]]:
        numbered = enumerate(lines, self.rows)
        while chunk := list(itertools.islice(numbered, self._options.batch_size)):
            yield [read_row(index, line, self._options.data_type) for index, line in chunk]

    def _settle(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._output.write(outcome.line)
            self.rows += 1
            self.failed += outcome.failed
        self._display.update(self.progress())


def _client(options: SeldonBatchOptions) -> SeldonClient:
    token = options.call_credentials_token
    return SeldonClient(
        gateway=options.gateway_type,
        gateway_endpoint=options.host,
        deployment_name=options.deployment_name,
        namespace=options.namespace,
        transport=options.transport,
        payload_type=options.payload_type,
        client_return_type="dict",
        call_credentials=SeldonCallCredentials(token) if token else None,
        ssl=True if options.use_ssl else None,
        max_connections=options.workers,
        timeout_s=options.timeout_s,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        file = path.open("rb")
    except OSError as exc:
        raise SettingsError(f"the input {path} cannot be read: {exc.strerror}") from exc
    with file:
        yield iter(file)


def _line_count(path: Path) -> int | None:
    """How many lines a file has; ``None`` for what can be read only once."""
    if not path.is_file():
        return None
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")
