"""The benchmark beside Seldon Core: its loads, what it takes for a right answer, what it makes of the rounds."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from concurrent import futures
from typing import Any

import grpc
import pytest

from benchmarks import environments, load
from benchmarks.environments import NotRun
from benchmarks.http.measure import Level, await_ready
from benchmarks.http.processes import Memory, running
from benchmarks.http.servers import SERVEGRAPH
from benchmarks.seldon import compare, grpc_load, measure, payloads, tables
from benchmarks.seldon.sides import LAYOUTS, SELDON, SIDES, TREE_IN_PROCESS, TREE_OVER_REST, tree_server

SAID = """
finished in 2.00s, 50.00 req/s, 4.00KB/s
requests: 100 total, 110 started, 100 done, 100 succeeded, 0 failed, 3 errored, 2 timeout
status codes: 100 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 10.00KB (10240) total, 1.00KB (1024) headers (space savings 96.28%), 3.00KB (2999) data
"""
needs_h2load = pytest.mark.skipif(
    not grpc_load.has_h2load(), reason="needs h2load: on Debian and Ubuntu apt-get install nghttp2-client"
)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason=load.INSTALL_HINT)


# -- payloads ---------------------------------------------------------------------------------------------------------


def test_frame_is_a_zero_byte_the_length_and_the_message() -> None:
    assert payloads.frame(b"abc") == b"\0\0\0\0\x03abc"


def test_wrong_rest_with_the_same_rows_is_empty_and_with_others_tells_them() -> None:
    content = payloads.body(False)
    assert payloads.wrong_rest(200, content, payloads.SMALL) == ""
    assert payloads.wrong_rest(200, content, ((5.1, 3.5, 1.4, 0.3),)).startswith("wrong answer")
    assert payloads.wrong_rest(200, b"{}", payloads.SMALL).startswith("wrong answer")
    assert payloads.wrong_rest(500, b"oh", payloads.SMALL) == "status 500: oh"


def test_wrong_message_with_the_same_rows_is_empty_and_with_others_tells_them() -> None:
    assert payloads.wrong_message(payloads.message(False), payloads.SMALL) == ""
    assert payloads.wrong_message(payloads.message(False), ((1.0,),)).startswith("wrong answer")
    assert payloads.wrong_message(b"\xff", payloads.SMALL).startswith("wrong answer")


def test_large_payload_has_a_thousand_rows_of_a_hundred_and_stays_below_the_limit_of_grpc() -> None:
    rows = payloads.large()
    assert (len(rows), {len(row) for row in rows}) == (1000, {100})
    assert len(payloads.message(True)) < 4 * 1024**2


# -- load over gRPC ---------------------------------------------------------------------------------------------------


def test_parsed_counts_calls_without_a_whole_answer_as_failed() -> None:
    seen = grpc_load.parsed(SAID, [1.0, 2.0, 3.0], frame_bytes=30, cpu_seconds=0.5)
    assert seen.requests_per_second == 50.0
    assert seen.failed_statuses == 1  # 2999 bytes are 99 answers of 30
    assert seen.socket_errors == 5
    assert seen.p50_ms == 2.0


def test_parsed_with_all_bytes_has_no_failures() -> None:
    assert grpc_load.parsed(SAID, [1.0], frame_bytes=29, cpu_seconds=0.5).failed_statuses == 0


def test_parsed_without_a_result_is_not_run() -> None:
    with pytest.raises(NotRun, match="h2load gave no result: connection refused"):
        grpc_load.parsed("connection refused", [], frame_bytes=1, cpu_seconds=0.0)


def _server(refuses: bool) -> tuple[Any, int]:
    def answer(data: bytes, context: Any) -> bytes:
        if refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        return data

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer) if details.method == payloads.PREDICT else None

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


@pytest.mark.parametrize("client", [pytest.param("h2load", marks=needs_h2load), "python"])
@pytest.mark.parametrize("refuses", [False, True])
def test_run_counts_answers_and_failures(client: str, refuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_load, "has_h2load", lambda: client == "h2load")
    server, port = _server(refuses)
    message = payloads.message(False)
    try:
        seen = grpc_load.run(port, payloads.PREDICT, message, 2, 2, 0.3, len(message))
    finally:
        server.stop(0).wait()
    assert seen.requests > 0
    assert seen.failed_statuses == (seen.requests if refuses else 0)


# -- sides ------------------------------------------------------------------------------------------------------------


def test_every_side_names_a_known_environment() -> None:
    assert {side.environment for side in SIDES.values()} - {None} <= set(environments.PEERS)


@pytest.mark.slow
@needs_wrk
def test_component_under_two_loads_is_measured_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "IDLE_SECONDS", 0)
    loads = (measure.Case("REST", 10, 1), measure.Case("gRPC", 2, 1, streams=1))
    monkeypatch.setattr(measure, "cases", lambda connections: loads)
    taken = measure.measure(SERVEGRAPH, (1,), 0.2)
    assert [level.load.requests > 0 for level in taken.levels] == [True, True]
    assert [level.load.failed_statuses for level in taken.levels] == [0, 0]
    assert taken.idle.processes == 1
    assert 0 < taken.idle.proportional_mib <= taken.idle.resident_mib


@pytest.mark.slow
@needs_wrk
@pytest.mark.parametrize(("layout", "processes"), [(TREE_IN_PROCESS, 2), (TREE_OVER_REST, 8)])
def test_tree_gives_the_same_answer_wherever_its_nodes_run(
    layout: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "IDLE_SECONDS", 0)
    taken = measure.measure(layout, (2,), 0.2)  # refuses any other answer than the right one
    assert taken.levels[0].load.requests > 0
    assert taken.idle.processes == processes


@pytest.mark.slow
def test_wrong_tree_with_another_request_tells_its_answer() -> None:
    with running(tree_server({}, pinned=True)) as root:
        await_ready(root, lambda: measure.wrong_tree(root))
        root.server = dataclasses.replace(root.server, body=payloads.body(True))
        assert measure.wrong_tree(root).startswith("wrong answer")


def test_side_that_ends_at_once_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(
        SIDES[SERVEGRAPH], name="broken", command=(sys.executable, "-c", "raise SystemExit(3)")
    )
    monkeypatch.setitem(SIDES, SERVEGRAPH, broken)
    with pytest.raises(NotRun, match="status 3"):
        measure.measure(SERVEGRAPH, (1,), 0.2)


# -- rounds -----------------------------------------------------------------------------------------------------------


def _taken(*requests_per_second: float) -> measure.Taken:
    levels = [Level(1, load.Load(rate, 1.0, 2.0, 1, 2, 100, 0.5), 30.0, 40.0, 0.01) for rate in requests_per_second]
    return measure.Taken(0.5, Memory(1, 40.0, 50.0), Memory(1, 60.0, 70.0), tuple(levels))


def test_rows_take_ratios_within_a_round_and_medians_over_rounds() -> None:
    rounds = [
        {SERVEGRAPH: _taken(100.0), SELDON: _taken(10.0)},
        {SERVEGRAPH: _taken(300.0), SELDON: _taken(20.0)},
        {SERVEGRAPH: _taken(200.0), SELDON: _taken(5.0)},
    ]
    row = compare.component_row(rounds, 0)
    assert row["times"] == 15.0
    assert row["sides"][SERVEGRAPH]["requests_per_second"] == 200.0
    assert row["sides"][SELDON]["failed"] == 9


def test_rows_without_the_other_side_have_no_ratio() -> None:
    row = compare.component_row([{SERVEGRAPH: _taken(100.0)}], 0)
    assert row["times"] is None
    assert row["sides"][SELDON] is None


def test_report_shows_ratios_memory_and_what_was_not_run() -> None:
    rounds = [
        {SERVEGRAPH: _taken(1000.0), SELDON: _taken(50.0), **{name: _taken(400.0) for name in LAYOUTS}},
    ]
    rounds[0][TREE_OVER_REST] = _taken(10.0)
    text = tables.text(
        {
            "component": [{"load": "REST", "connections": "8", "asked": 10, **compare.component_row(rounds, 0)}],
            "tree": [{"connections": 8, **compare.tree_row(rounds, 0)}],
            "sides": [compare.side_row(rounds, name) for name in (SERVEGRAPH, SELDON, TREE_IN_PROCESS)],
            "not_run": {"seldon": "no Python"},
            "notes": {"servegraph": "as it is"},
        }
    )
    assert "20.0x" in text
    assert "40.0x" in text
    assert "seldon not run: no Python" in text
    assert "tree, in process" in text


def test_report_of_a_part_that_measured_nothing_says_why() -> None:
    result: dict[str, Any] = {"component": [], "tree": [], "sides": [], "notes": {}, "not_run": {"tree": "no wrk"}}
    assert tables.text(result) == "tree not run: no wrk"
