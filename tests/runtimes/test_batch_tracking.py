"""Batches and tracking: every row's record is written, then one that says that the batch is complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import servegraph
from servegraph import jsoncodec
from servegraph.errors import SettingsError

WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00"


class Sum(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        return [sum(row) for row in request["inputs"]]


def tracked(path: Path, **options: Any) -> servegraph.ServingFunction:
    fn = servegraph.new_function("sums", project="shop")
    fn.add_model("sum:v1", class_name=Sum, model_endpoint_uid="uid-1")
    fn.set_tracking(f"file://{path}", **options)
    return fn


def records(path: Path) -> list[Any]:
    return [jsoncodec.loads(line) for line in path.read_bytes().splitlines()]


def test_batch_complete_record_has_the_times_of_the_named_column(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    times = pd.to_datetime(["2024-01-02", "2024-01-01", None, "2024-01-03"])
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "when": times})
    result = tracked(path).to_job().run(frame, timestamp_column="when")
    *predictions, complete = records(path)
    assert result.outputs == [1, 2, 3, 4]
    # The rows run at the same time, and each is recorded when it ends.
    assert sorted(p["resp"]["outputs"] for p in predictions) == [[1], [2], [3], [4]]
    assert re.fullmatch(WHEN, complete.pop("batch_completion_time"))
    assert complete == {
        "kind": "batch_complete",
        "project": "shop",
        "function_uri": "shop/sums",
        "first_timestamp": "2024-01-01 00:00:00.000000+00:00",
        "last_timestamp": "2024-01-03 00:00:00.000000+00:00",
        "endpoint_id": "uid-1",
        "model": "sum",
        "version": "v1",
    }


def test_batch_complete_record_of_a_single_row_has_the_times_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tracked(path).to_job().run(pd.DataFrame({"a": [1]}))
    prediction, complete = records(path)
    assert complete["first_timestamp"] <= prediction["when"] <= complete["last_timestamp"]
    assert complete["last_timestamp"] <= complete["batch_completion_time"]


def test_batch_complete_record_comes_for_the_model_that_got_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    fn = tracked(path)
    fn.add_model("other", class_name=Sum)
    fn.to_job().run([[1]], model="other", body="inputs")
    fn.to_job().run([[1]], body="inputs")
    completed = [r["model"] for r in records(path) if r.get("kind") == "batch_complete"]
    assert completed == ["other", "sum", "other"]


def test_batch_of_a_flow_without_models_completes_too(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    fn = servegraph.new_function("plain")
    fn.set_topology("flow").to(handler=lambda body: body).respond()
    fn.set_tracking(f"file://{path}")
    fn.to_job().run([1])
    assert [(r["kind"], r["endpoint_id"]) for r in records(path)] == [("batch_complete", "")]


def test_batch_that_fails_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(servegraph.errors.RequestFailedError):
        tracked(path).to_job().run([["x", 1]], body="inputs")
    assert ["error" in r for r in records(path)] == [True]


def test_batch_faster_than_its_stream_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    fn = tracked(path, max_queue=64)
    result = fn.to_job().run([[i] for i in range(3000)], body="inputs")
    assert result.untracked == 0
    assert len(records(path)) == 3001


@pytest.mark.slow
def test_batch_whose_stream_is_away_ends_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    fn = tracked(blocked / "records.jsonl")  # a file where a folder has to be
    result = fn.to_job().run([[1]], body="inputs")
    assert (result.ok, result.untracked) == (1, 1)
    assert "the batch is complete could not be written" in caplog.text


def test_batch_without_track_models_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tracked(path).to_job(track_models=False).run([[1]], body="inputs")
    assert not path.exists()


def test_batch_that_tracks_without_a_stream_says_what_is_missing() -> None:
    fn = servegraph.new_function("sums")
    fn.add_model("sum", class_name=Sum)
    fn.set_tracking()
    with pytest.raises(SettingsError, match="names no stream"):
        fn.to_job().run([[1]])
