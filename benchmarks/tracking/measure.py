"""One model under load, with its predictions recorded to one stream or to none."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import socket
import tempfile
from collections.abc import Iterator

from benchmarks import load
from benchmarks.http.measure import WARM_UP_CONNECTIONS, WARM_UP_SECONDS, Level, await_ready, post, under_load
from benchmarks.http.processes import Running, running
from benchmarks.http.servers import Server

MODELS = pathlib.Path(__file__).resolve().parent / "models"
BODY = json.dumps({"inputs": [[round(0.55 + 0.01 * n, 2) for n in range(20)]]}).encode()
ANSWER = [1]
CONNECTIONS = 8

OFF = "off"
FILE = "file"
AWAY = "away"
SILENT = "silent"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What is measured with tracking off and with each of several streams."""

    title: str
    """What the table calls it."""
    model: str
    """Name of the model that is asked."""
    streams: tuple[str, ...]
    """The streams beside `OFF`."""
    asked_throughput: float | None = None
    """The least share of the throughput without tracking."""
    asked_p99: float | None = None
    """The most that p99 may be, as a multiple of that without tracking."""
    is_outage: bool = False
    """Whether it takes the time of an outage."""


CASES = (
    Case("scikit-learn model", "classifier", (FILE,), asked_throughput=0.9),
    Case("model that does nothing", "constant", (FILE,)),
    Case("scikit-learn model, stream dead", "classifier", (AWAY, SILENT), asked_p99=1.1, is_outage=True),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """What was seen of one case and stream in one round."""

    level: Level
    """Throughput, latency and errors."""
    recorded: float | None
    """Share of the answers that have a record in the stream; ``None`` where there is nothing to read them from."""


def name_of(case: Case, stream: str) -> str:
    """What a case with a stream is called in the lines that tell how far the benchmark is."""
    return f"{case.title}, {stream}"


def measure(case: Case, stream: str, seconds: float) -> Taken:
    """Start the server, load it, end it, count the records.

    Raises:
        NotRun: it did not start, was not ready in time, or answered something else.
    """
    with _opened(stream) as (uri, folder):
        answers = 0
        with running(_server(case, uri)) as process:
            await_ready(process, lambda: _wrong_answer(process))
            answers += load.run(process.url, BODY, WARM_UP_CONNECTIONS, WARM_UP_SECONDS).requests
            level = under_load(
                [process],
                CONNECTIONS,
                lambda: load.run(process.url, BODY, CONNECTIONS, seconds),
                lambda: _wrong_answer(process),
            )
            answers += level.load.requests
        return Taken(level, None if folder is None else _records(folder) / answers)


def _server(case: Case, uri: str) -> Server:
    return Server(
        "tracked",
        ("{bin}/servegraph", "serve", "{models}/tracked.py", "--http-port", "{http}", "--workers", "1"),
        "as a user starts it, with its defaults",
        path=f"/v2/models/{case.model}/infer",
        body=BODY,
        variables={"BENCH_STREAM": uri},
        models=MODELS,
    )


@contextlib.contextmanager
def _opened(stream: str) -> Iterator[tuple[str, pathlib.Path | None]]:
    """The stream's URI, empty for none, and the folder that its records are in."""
    if stream == OFF:
        yield "", None
    elif stream == FILE:
        with tempfile.TemporaryDirectory() as folder:
            yield f"file://{folder}/records.jsonl", pathlib.Path(folder)
    else:
        with socket.socket() as end:
            end.bind(("127.0.0.1", 0))  # held, so that nobody else listens there meanwhile
            if stream == SILENT:
                end.listen()  # takes connections, and never answers
            yield f"http://127.0.0.1:{end.getsockname()[1]}/records", None


def _records(folder: pathlib.Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.iterdir())


def _wrong_answer(process: Running) -> str:
    status, content = post(process, BODY)
    try:
        right = status == 200 and json.loads(content)["outputs"] == ANSWER
    except (ValueError, KeyError, TypeError):
        right = False
    return "" if right else f"status {status}: {content[:150].decode(errors='replace')}"
