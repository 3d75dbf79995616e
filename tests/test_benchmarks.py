"""The benchmark's harness: what it starts it ends, and it measures nothing that is wrong."""

from __future__ import annotations

import dataclasses
import socket
import time
from typing import Any

import pytest

from benchmarks import environments, report
from benchmarks.environments import Environment, NotRun
from benchmarks.http import compare, measure, processes
from benchmarks.http.servers import BARE, SERVEGRAPH, SERVERS, Server
from benchmarks.inprocess import compare as inprocess_compare
from benchmarks.inprocess.timing import measure as time_call
from benchmarks.load import Load


def test_refuse_listener_on_a_port_shared_with_reuseport_raises() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(NotRun, match=f"already listens on port {port}"):
            processes.refuse_listener(port)
    processes.refuse_listener(port)


def test_find_interpreter_for_a_missing_version_says_which() -> None:
    with pytest.raises(NotRun, match=r"no Python 3\.1 on PATH or in pyenv"):
        environments.find_interpreter("3.1")


def test_environment_with_an_interpreter_that_is_missing_is_not_run() -> None:
    with pytest.raises(NotRun, match="no Python"):
        Environment("nobody", ("nothing",), python="3.1").ensure()


def test_every_server_names_a_known_environment() -> None:
    assert {server.environment for server in SERVERS.values()} - {None} <= set(environments.PEERS)


@pytest.mark.slow
def test_bare_app_is_ready_answers_right_and_leaves_nothing_behind() -> None:
    with processes.running(SERVERS[BARE]) as process:
        ready = measure.await_ready(process)
        assert 0 < ready < measure.READY_SECONDS
        assert process.memory_mib() > 1
        assert process.cpu_seconds() > 0
    assert process.process_ids() == []
    processes.refuse_listener(process.ports["http"])


@pytest.mark.slow
def test_server_whose_workers_leave_its_session_is_ended_whole() -> None:
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    server = Server("scattered", ("{python}", "-c", code), "", ends_on_sigterm=False)
    with processes.running(server) as process:
        deadline = time.monotonic() + 20
        while len(process.process_ids()) < 2 and time.monotonic() < deadline:
            process.refuse_ended()
        assert len(process.process_ids()) == 2
    assert process.process_ids() == []


def test_server_that_ends_at_once_is_not_run_with_its_last_line() -> None:
    server = Server("broken", ("{python}", "-c", "raise SystemExit('no such model')"), "")
    with processes.running(server) as process, pytest.raises(NotRun, match="status 1: no such model"):
        measure.await_ready(process)


def test_wrong_answer_is_told_with_what_came() -> None:
    with processes.running(SERVERS[BARE]) as process:
        measure.await_ready(process)
        process.server = dataclasses.replace(process.server, sums=lambda answer: [1.0, 2.0])
        assert measure.wrong_answer(process).startswith('wrong answer {"model_name":"rowsums"')
        process.server = dataclasses.replace(process.server, body=b"[]")
        assert measure.wrong_answer(process).startswith("status 500")


def test_rows_take_ratios_within_a_round_and_medians_over_rounds() -> None:
    rounds = [
        {BARE: _measurement(1000.0), SERVEGRAPH: _measurement(500.0)},
        {BARE: _measurement(100.0), SERVEGRAPH: _measurement(80.0)},
        {BARE: _measurement(2000.0), SERVEGRAPH: _measurement(1200.0)},
    ]
    row = compare.row(rounds, SERVEGRAPH, 0)
    assert row["requests_per_second"] == 500.0
    assert row["of_bare"] == pytest.approx(0.6)
    assert compare.row(rounds, BARE, 0)["servegraph_times"] == pytest.approx(0.6)


def _measurement(requests_per_second: float) -> measure.Measurement:
    load = Load(requests_per_second, 1.0, 2.0, 0, 0, 100, 0.5)
    return measure.Measurement(0.5, (measure.Level(8, load, 30.0, 40.0, 0.01),))


def test_report_lists_figures_and_the_peers_that_were_not_run() -> None:
    rounds = [{BARE: _measurement(1000.0)}]
    http: dict[str, Any] = {
        "rows": [compare.row(rounds, BARE, 0)],
        "not_run": {"mlserver": "no Python"},
        "notes": {BARE: "the ceiling"},
    }
    inprocess = {
        "rows": [inprocess_compare.row("router", "a router", [{"best_us": 1.0, "median_us": 2.0}], [])],
        "versions": {"servegraph": "1"},
        "not_run": {"mlrun": "pip failed"},
    }
    machine = {"processor": "p", "cores": 2, "memory_kib": 1, "kernel": "k", "python": "3", "pinned": True}
    text = report.text({"machine": machine | {"load_average": 0.1}, "http": http, "inprocess": inprocess})
    assert "1,000" in text
    assert "mlserver not run: no Python" in text
    assert "mlrun not run: pip failed" in text


def test_timing_of_a_call_is_its_microseconds() -> None:
    seen = time_call(lambda: sum(range(100)), 0.01)
    assert 0 < seen["best_us"] <= seen["median_us"] < 1000
