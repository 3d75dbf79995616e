from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from servegraph import jsoncodec
from servegraph.errors import SettingsError, StreamError
from servegraph.graph.context import GraphContext, Prediction
from servegraph.monitoring.tracking import Tracking, TrackingRecorder
from servegraph.streams import MemoryStream, OutputStream, register_scheme
from servegraph.streams.base import Encoded

WAIT_S = 10.0
_names = itertools.count()


class Stuck(OutputStream):
    """A stream that takes nothing until it is let."""

    let = threading.Event()

    def _write(self, batch: Sequence[Encoded]) -> None:
        assert self.let.wait(WAIT_S)


class Away(OutputStream):
    """A stream that is not there until it is back."""

    back = threading.Event()

    def _write(self, batch: Sequence[Encoded]) -> None:
        if not self.back.is_set():
            raise StreamError("away: nobody is there")


register_scheme("stuck", Stuck)
register_scheme("away", Away)


def prediction(number: int = 0, **changes: Any) -> Prediction:
    fields: dict[str, Any] = {
        "model": "m1",
        "version": "",
        "model_class": "M",
        "endpoint_uid": "uid-1",
        "op": "infer",
        "request": {"inputs": [[number]]},
        "response": {"outputs": [number]},
        "when_ns": time.time_ns(),
        "microsec": 1,
        "error": None,
        "metrics": None,
        "labels": None,
        "key": "uid-1",
        "request_id": f"r{number}",
        **changes,
    }
    return Prediction(**fields)


Make = Callable[..., TrackingRecorder]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[TrackingRecorder] = []

    def make_one(stream_path: str | None = None, **options: Any) -> TrackingRecorder:
        options.setdefault("flush_interval_s", 0.05)
        tracking = Tracking.checked(stream_path=stream_path or f"dummy://tracking-{next(_names)}", **options)
        made.append(TrackingRecorder(tracking, GraphContext(name="srv", project="shop", worker_id=3)))
        return made[-1]

    yield make_one
    Stuck.let.set()
    Away.back.set()
    for recorder in made:
        recorder.close()
    Stuck.let.clear()
    Away.back.clear()


def events(recorder: TrackingRecorder) -> list[Any]:
    assert recorder.flush(WAIT_S)
    assert isinstance(recorder.stream, MemoryStream)
    return recorder.stream.event_list


# -- what a user asks for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"btch": 3}, "set_tracking has no option 'btch'; did you mean 'batch'?"),
        ({"batch": 0}, "batch must be a whole number of at least 1, not 0"),
        ({"batch": 2.0}, "batch must be a whole number of at least 1, not 2.0"),
        ({"sample": -1}, "sample must be a whole number of at least 1, not -1"),
        ({"sample": True}, "sample must be a whole number of at least 1, not True"),
        ({"sampling_percentage": 0}, "sampling_percentage must be a number above 0 and at most 100, not 0"),
        ({"sampling_percentage": 100.1}, "sampling_percentage must be a number above 0 and at most 100, not 100.1"),
        (
            {"sampling_percentage": float("nan")},
            "sampling_percentage must be a number above 0 and at most 100, not nan",
        ),
        ({"sampling_percentage": "50"}, "sampling_percentage must be a number above 0 and at most 100, not '50'"),
        ({"stream_path": "kafak://a/b"}, "unknown stream scheme 'kafak'; did you mean 'kafka'?"),
        ({"stream_path": "records.jsonl"}, "has no scheme"),
        ({"stream_path": 7}, "stream_path must be the URI of a stream, not 7"),
        ({"stream_path": "dummy://", "stream_args": {"shards": 1}}, "dummy:// streams have no option 'shards'"),
        ({"stream_args": [1]}, "stream_args must be an object"),
        ({"enabled": "yes"}, "enabled must be true or false, not 'yes'"),
        ({"max_queue": 0}, "max_queue must be a whole number of at least 1, not 0"),
        ({"max_queue_bytes": None}, "max_queue_bytes must be a whole number of at least 1, not None"),
        ({"flush_interval_s": 0}, "flush_interval_s must be a number above 0 and at most 3600, not 0"),
    ],
)
def test_checked_tracking_refuses_a_wrong_option(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Tracking.checked(**options)
    assert text in str(caught.value)
    assert "set_tracking" in str(caught.value)


def test_checked_tracking_creates_no_file(tmp_path: Path) -> None:
    Tracking.checked(stream_path=f"file://{tmp_path}/logs/{{project}}.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enabled": False},
        {"stream_path": "dummy://{project}", "batch": 3, "sample": 2, "sampling_percentage": 12.5},
        {"stream_path": "dummy://", "stream_args": {"max_records": 5}, "max_queue": 9, "flush_interval_s": 0.5},
    ],
)
def test_tracking_survives_its_spec(options: dict[str, Any]) -> None:
    tracking = Tracking.checked(**options)
    data = tracking.to_dict()
    assert data == options
    assert Tracking.from_dict(jsoncodec.loads(jsoncodec.dumps(data))) == tracking


def test_tracking_is_read_from_the_names_of_mlrun() -> None:
    data = {"log_stream": "dummy://x", "log_stream_batch": 2, "log_stream_sample": 3, "sampling_percentage": 50}
    assert Tracking.from_dict(data) == Tracking.checked(
        stream_path="dummy://x", batch=2, sample=3, sampling_percentage=50.0
    )


def test_tracking_with_a_field_under_both_names_is_refused() -> None:
    with pytest.raises(SettingsError, match="stream_path is given twice"):
        Tracking.from_dict({"log_stream": "dummy://x", "stream_path": "dummy://x"})


# -- recording --------------------------------------------------------------------------------------------------------


def test_recorder_without_a_stream_keeps_records_in_the_mock_only() -> None:
    recorder = TrackingRecorder(Tracking(), GraphContext(name="srv", is_mock=True))
    recorder.record(prediction())
    assert recorder.uri == "dummy://"
    assert len(events(recorder)) == 1
    recorder.close()
    with pytest.raises(SettingsError, match="function 'srv' tracks predictions but names no stream"):
        TrackingRecorder(Tracking(), GraphContext(name="srv"))


def test_recorder_writes_records_to_a_file_with_the_projects_name(make: Make, tmp_path: Path) -> None:
    recorder = make(f"file://{tmp_path}/{{project}}.jsonl")
    recorder.record(prediction(4))
    recorder.record(prediction(5, error=ValueError("x")))
    recorder.close()
    lines = (tmp_path / "shop.jsonl").read_bytes().splitlines()
    first, second = map(jsoncodec.loads, lines)
    assert recorder.uri == f"file://{tmp_path}/shop.jsonl"
    assert (first["request"], first["resp"], first["worker"]) == ({"inputs": [[4]], "id": "r4"}, {"outputs": [4]}, 3)
    assert (first["function_uri"], first["effective_sample_count"]) == ("shop/srv", 1)
    assert second["error"] == "ValueError: x"


def test_recorder_uses_the_predictions_key(make: Make) -> None:
    recorder = make()
    recorder.record(prediction())
    recorder.record(prediction(key=None))
    events(recorder)
    assert isinstance(recorder.stream, MemoryStream)
    assert [record.key for record in recorder.stream.records] == ["uid-1", None]


def test_recorder_samples_every_nth_prediction_of_each_model_and_every_error(make: Make) -> None:
    recorder = make(sample=3)
    for number in range(9):
        for model in ("a", "b"):
            recorder.record(prediction(number, model=model))
        recorder.record(prediction(100 + number, model="a", error=ValueError("x")))
    got = events(recorder)
    for model in ("a", "b"):
        assert [e["resp"]["outputs"] for e in got if e["model"] == model and "resp" in e] == [[2], [5], [8]]
    assert sum("error" in e for e in got) == 9


def test_recorder_batches_predictions_and_flushes_the_rest_on_close(make: Make) -> None:
    recorder = make(batch=3, flush_interval_s=30.0)
    for number in range(7):
        recorder.record(prediction(number))
    recorder.record(prediction(7, error=ValueError("x")))
    recorder.close()
    assert isinstance(recorder.stream, MemoryStream)
    got: list[Any] = recorder.stream.event_list
    assert [len(e.get("values", [])) for e in got] == [3, 3, 0, 1]
    assert [row[2]["outputs"] for e in got for row in e.get("values", [])] == [[n] for n in range(7)]
    assert recorder.stats.delivered == 4


def test_recorder_that_nobody_closes_writes_its_batches_at_exit(tmp_path: Path) -> None:
    script = tmp_path / "unclosed.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_tracking import GraphContext, Tracking, TrackingRecorder, prediction\n"
        f"tracking = Tracking.checked(stream_path='file://{tmp_path}/r.jsonl', batch=5)\n"
        "recorder = TrackingRecorder(tracking, GraphContext(name='srv'))\n"
        "for number in range(7):\n"
        "    recorder.record(prediction(number))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    records = [jsoncodec.loads(line) for line in (tmp_path / "r.jsonl").read_bytes().splitlines()]
    assert [len(record["values"]) for record in records] == [5, 2]


def test_recorder_whose_queue_is_full_drops_and_counts(make: Make) -> None:
    recorder = make("stuck://", max_queue=10)
    for number in range(100):
        recorder.record(prediction(number))
    stats = recorder.stats
    assert stats.accepted + stats.dropped == 100
    assert 10 <= stats.accepted <= 20
    Stuck.let.set()
    assert recorder.flush(WAIT_S)
    assert recorder.stats.delivered == stats.accepted


def test_recorder_whose_queue_is_full_makes_no_record(make: Make) -> None:
    made: list[str] = []

    def logged(request: Any, response: Any, op: str) -> Any:
        made.append(op)
        return None, None

    recorder = make("stuck://", max_queue=1)
    for number in range(100):
        recorder.record(prediction(number, logged=logged))
    assert len(made) == recorder.stats.accepted <= 2


@pytest.mark.parametrize("batch", [1, 2])
def test_recorder_keeps_what_was_and_not_what_becomes_of_it(make: Make, batch: int) -> None:
    recorder = make(batch=batch, flush_interval_s=30.0)
    given = prediction(request={"inputs": [[5]]}, response={"outputs": [6]}, labels={"a": "x"}, metrics={"n": [1]})
    recorder.record(given)
    given.request["inputs"][0][0] = -1
    given.response["outputs"].clear()
    given.labels["a"] = "y"  # type: ignore[index]
    given.metrics["n"].append(2)  # type: ignore[index]
    data = events(recorder)[0]
    request, response, metrics = (
        (data["request"], data["resp"], data["metrics"])
        if batch == 1
        else (data["values"][0][0], data["values"][0][2], data["values"][0][5])
    )
    assert (request["inputs"], response["outputs"], metrics) == ([[5]], [6], {"n": [1]})
    assert data["labels"] == {"a": "x"}


@pytest.mark.parametrize("batch", [1, 2])
def test_recorder_bounds_the_bytes_of_waiting_records(make: Make, batch: int) -> None:
    recorder = make("stuck://", max_queue_bytes=1_000_000, batch=batch)
    rows = [[0.123456789] * 100 for _ in range(100)]
    for _ in range(100):
        recorder.record(prediction(request={"inputs": rows}))
    stats = recorder.stats
    assert 91 <= stats.dropped <= 99
    assert 1 <= stats.accepted <= 9
    Stuck.let.set()
    assert recorder.flush(WAIT_S)
    recorder.close()
    assert recorder._budget.held == 0


def test_recorder_of_a_stream_that_is_away_costs_the_request_nothing(make: Make) -> None:
    recorder = make("away://", max_queue=100)
    longest = 0.0
    started = time.perf_counter()
    for number in range(5000):
        before = time.perf_counter()
        recorder.record(prediction(number))
        longest = max(longest, time.perf_counter() - before)
    mean = (time.perf_counter() - started) / 5000
    assert mean < 1e-3
    assert longest < 5
    assert recorder.stats.delivered == 0
    assert recorder.stats.dropped >= 4000


def test_recorder_counts_and_logs_what_logged_results_breaks(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Any, response: Any, op: str) -> Any:
        raise ZeroDivisionError("in the hook")

    recorder = make()
    with caplog.at_level(logging.WARNING):
        recorder.record(prediction(logged=broken))
        recorder.record(prediction(1))
        assert len(events(recorder)) == 1
    assert (recorder.stats.failed, recorder.stats.delivered) == (1, 1)
    assert "a prediction could not be recorded: ZeroDivisionError: in the hook" in caplog.text


def test_recorder_survives_objects_that_cannot_be_read(make: Make) -> None:
    class Hostile:
        @property
        def shape(self) -> Any:
            raise RuntimeError("no shape")

    recorder = make()
    recorder.record(prediction(request={"inputs": Hostile()}))
    recorder.record(prediction(1))
    assert len(events(recorder)) == 1
    assert recorder.stats.failed == 1


def test_recorder_records_an_error_that_cannot_be_shown(make: Make) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    recorder = make()
    recorder.record(prediction(error=Hostile()))
    assert events(recorder)[0]["error"] == "Hostile: (its text cannot be read)"


def test_recorder_survives_a_hook_whose_failure_cannot_be_shown(make: Make) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def broken(request: Any, response: Any, op: str) -> Any:
        raise Hostile

    recorder = make()
    recorder.record(prediction(logged=broken))
    assert events(recorder) == []
    assert recorder.stats.failed == 1


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["labels", "metrics"])
def test_recorder_refuses_labels_and_metrics_that_are_no_dict(
    make: Make, name: str, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = make(batch=batch)
    with caplog.at_level(logging.WARNING):
        changes: dict[str, Any] = {name: ["a"]}
        recorder.record(prediction(**changes))
        assert events(recorder) == []
    assert recorder.stats.failed == 1
    assert f"M.{name} must be a dict, not list" in caplog.text


def test_recorder_whose_queue_is_full_counts_only_what_sampling_picks(make: Make) -> None:
    recorder = make("stuck://", max_queue=1, sampling_percentage=1.0)
    for number in range(1000):
        recorder.record(prediction(number))
    assert recorder.stats.accepted + recorder.stats.dropped < 100


def test_recorder_logs_that_its_queue_is_full(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    recorder = make("stuck://", max_queue=10)
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            recorder.record(prediction(number))
        Stuck.let.set()
        assert recorder.flush(WAIT_S)
        recorder.close()
    assert "the queue is full, records are dropped" in caplog.text


def test_recorder_after_close_drops_and_counts(make: Make) -> None:
    recorder = make()
    recorder.close()
    recorder.record(prediction())
    assert recorder.stats.dropped == 1


def test_recorder_shows_no_password(make: Make) -> None:
    assert "geheim" not in repr(make("http://me:geheim@127.0.0.1:1/x"))
