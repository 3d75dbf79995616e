"""The benchmark of tracking: its streams, what it takes for a right answer, what it makes of the rounds."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import urllib.parse

import pytest

from benchmarks import load
from benchmarks.environments import NotRun
from benchmarks.http.measure import Level
from benchmarks.load import Load
from benchmarks.tracking import compare, measure, tables
from benchmarks.tracking.measure import AWAY, CASES, FILE, OFF, SILENT, Taken, name_of

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason=load.INSTALL_HINT)


def taken(rate: float, p99: float = 2.0, recorded: float | None = None, failed: int = 0) -> Taken:
    seen = Load(rate, 1.0, p99, failed, 0, int(rate), 0.1)
    return Taken(Level(8, seen, 100.0, 50.0, 0.01), recorded)


def test_row_takes_ratios_within_a_round_and_medians_over_rounds() -> None:
    case = CASES[0]
    off, on = name_of(case, OFF), name_of(case, FILE)
    rounds = [
        {off: taken(100.0), on: taken(90.0, 3.0, 1.0)},
        {off: taken(200.0), on: taken(100.0, 2.0, 0.9, failed=2)},
        {off: taken(50.0), on: taken(47.5, 4.0, 1.0)},
    ]
    row = compare.row(rounds, case, FILE)
    assert (row["requests_per_second"], row["throughput_of_off"], row["p99_of_off"]) == (90.0, 0.9, 1.5)
    assert (row["recorded"], row["failed"], row["requests"]) == (0.9, 2, 237)
    assert compare.row(rounds, case, OFF)["throughput_of_off"] is None
    table = tables.text({"rows": [compare.row(rounds, case, stream) for stream in (OFF, FILE)], "not_run": {"x": "y"}})
    assert "0.900  >= 0.9" in table
    assert "90.0%" in table
    assert table.endswith("x not run: y")


def test_row_whose_side_without_tracking_dropped_out_has_no_ratio() -> None:
    rounds = [{name_of(CASES[0], FILE): taken(90.0)}]
    row = compare.row(rounds, CASES[0], FILE)
    assert (row["throughput_of_off"], row["p99_of_off"]) == (None, None)


def test_dead_streams_refuse_or_never_answer() -> None:
    for stream, refused in ((AWAY, True), (SILENT, False)):
        with measure._opened(stream) as (uri, folder), socket.socket() as client:
            assert folder is None
            client.settimeout(5)
            assert (client.connect_ex(("127.0.0.1", urllib.parse.urlsplit(uri).port or 0)) != 0) is refused


@pytest.mark.slow
@needs_wrk
def test_case_with_a_file_is_measured_with_all_its_records() -> None:
    seen = measure.measure(dataclasses.replace(CASES[1], streams=(FILE,)), FILE, 1.0)
    assert seen.level.load.requests > 100
    assert (seen.level.load.failed_statuses, seen.level.load.socket_errors) == (0, 0)
    assert seen.recorded is not None
    assert seen.recorded > 0.5


@pytest.mark.slow
def test_model_that_is_unknown_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.http.measure.READY_SECONDS", 3)
    with pytest.raises(NotRun, match="status 404"):
        measure.measure(dataclasses.replace(CASES[1], model="nobody"), OFF, 1.0)
