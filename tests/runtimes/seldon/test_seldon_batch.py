"""The batch processor against a real server, as a function and as a command."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from seldon_peer import Answer, Asked, Peer, echo, seldon_peer

from servegraph.cli.main import main
from servegraph.cli.seldon_batch import command
from servegraph.errors import MissingExtraError, SettingsError
from servegraph.runtimes.batch_progress import Progress
from servegraph.runtimes.seldon import batch_calls, batch_processor
from servegraph.runtimes.seldon.batch_calls import Caller, Outcome
from servegraph.runtimes.seldon.batch_options import SeldonBatchOptions
from servegraph.runtimes.seldon.batch_processor import BatchSummary, process_batch
from servegraph.runtimes.seldon.batch_rows import cut, grouped, read_row
from servegraph.serving.seldon.client import SeldonClient

ENVELOPE = {"status": {"code": -1, "info": "bad row", "reason": "X", "status": 1}}
both = pytest.mark.parametrize("transport", ["rest", "grpc"])


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_calls, "_FIRST_WAIT_S", 0.001)


def options(tmp_path: Path, peer: Peer | None, transport: str = "rest", **more: Any) -> SeldonBatchOptions:
    address = "127.0.0.1:1" if peer is None else peer.grpc if transport == "grpc" else peer.http
    told: dict[str, Any] = {
        "deployment_name": "iris",
        "input_data_path": tmp_path / "in.txt",
        "output_data_path": tmp_path / "out.txt",
        "host": address,
        "transport": transport,
        "batch_id": "b1",
    }
    return SeldonBatchOptions(**{**told, **more})


def write(tmp_path: Path, lines: Sequence[Any]) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def outputs(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()]


def run(tmp_path: Path, peer: Peer, lines: Sequence[Any], transport: str = "rest", **more: Any) -> BatchSummary:
    write(tmp_path, lines)
    return process_batch(options(tmp_path, peer, transport, **more))


def check_meta(found: list[dict[str, Any]]) -> None:
    """Every line has the same shape of meta, with its own number."""
    for index, body in enumerate(found):
        tags = body["meta"]["tags"]
        assert tags["batch_id"] == "b1"
        assert tags["batch_index"] == index
        assert isinstance(tags["batch_instance_id"], str)
    assert len({body["meta"]["tags"]["batch_instance_id"] for body in found}) == len(found)


# -- order and completeness ------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("size", [1, 4])
def test_output_has_the_order_of_the_input(tmp_path: Path, transport: str, size: int) -> None:
    with seldon_peer() as peer:
        summary = run(tmp_path, peer, [[[n, n + 1]] for n in range(50)], transport, workers=4, batch_size=size)
    assert (summary.rows, summary.failed) == (50, 0)
    found = outputs(tmp_path)
    assert [body["data"]["ndarray"] for body in found] == [[[n, n + 1]] for n in range(50)]
    check_meta(found)
    assert len(peer.asked) == (50 if size == 1 else 13)
    assert not (tmp_path / "out.txt.part").exists()


def test_late_answer_does_not_change_the_order(tmp_path: Path) -> None:
    others = threading.Semaphore(0)

    def first_is_last(asked: Asked) -> Answer:
        if asked.json["data"]["ndarray"] == [[0]]:
            for _ in range(5):  # the window is wide enough for the others to pass
                assert others.acquire(timeout=20)
        else:
            others.release()
        return echo(asked)

    with seldon_peer(first_is_last) as peer:
        run(tmp_path, peer, [[[n]] for n in range(20)], workers=2)
    assert [body["data"]["ndarray"] for body in outputs(tmp_path)] == [[[n]] for n in range(20)]


def test_memory_holds_a_window_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    ahead: list[int] = []

    def counted(index: int, line: bytes, data_type: str) -> Any:
        read.append(index)
        return read_row(index, line, data_type)

    monkeypatch.setattr(batch_processor, "read_row", counted)
    with seldon_peer() as peer:
        seen = [0]

        def look(progress: Progress) -> None:
            seen[0] = progress.rows
            ahead.append(len(read) - progress.rows)

        monkeypatch.setattr("servegraph.runtimes.batch_progress.CALL_EVERY_S", 0.0)
        run(tmp_path, peer, [[[n]] for n in range(100)], workers=2, progress=look)
    assert seen == [100]
    assert max(ahead) <= 8


def test_every_line_of_the_input_has_a_line_of_the_output(tmp_path: Path) -> None:
    def picky(asked: Asked) -> Answer:
        return Answer(ENVELOPE, 400) if asked.json["data"]["ndarray"] == [[13]] else echo(asked)

    lines: list[Any] = [[[1]], "", "{", {"a": 1}, [[13]], "null", [[2]]]
    with seldon_peer(picky) as peer:
        summary = run(tmp_path, peer, lines)
    found = outputs(tmp_path)
    assert (summary.rows, summary.failed) == (7, 5)
    reasons = [body.get("status", {}).get("reason", "") for body in found]
    assert reasons[0] == reasons[6] == ""
    assert reasons[1] == "the line is empty"
    assert reasons[2].startswith("the line is not JSON")
    assert reasons[3] == reasons[5] == "the line is not a list"
    assert reasons[4] == "400:Bad Request: bad row"
    assert found[4]["status"] == {"info": "FAILURE", "reason": reasons[4], "status": 1}
    check_meta(found)


def test_empty_input_makes_an_empty_output(tmp_path: Path) -> None:
    with seldon_peer() as peer:
        assert run(tmp_path, peer, []).rows == 0
    assert outputs(tmp_path) == []


def test_last_line_needs_no_line_end(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf[[1]]\r\n[[2]]")
    with seldon_peer() as peer:
        process_batch(options(tmp_path, peer))
    assert [body["data"]["ndarray"] for body in outputs(tmp_path)] == [[[1]], [[2]]]


# -- kinds of lines --------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("data_type", "line", "wire"),
    [
        ("data", [[1.5, "a"]], {"data": {"ndarray": [[1.5, "a"]]}}),
        ("json", {"a": [1.5, None]}, {"jsonData": {"a": [1.5, None]}}),
        ("json", "null", {"jsonData": None}),
        ("str", '"text"', {"strData": "text"}),
        ("str", "bare text", {"strData": "bare text"}),
        ("str", "12", {"strData": "12"}),
        ("raw", {"binData": "aGk="}, {"binData": "aGk="}),
    ],
)
def test_lines_of_each_data_type_arrive(
    tmp_path: Path, transport: str, data_type: str, line: Any, wire: dict[str, Any]
) -> None:
    with seldon_peer() as peer:
        summary = run(tmp_path, peer, [line], transport, data_type=data_type)
    assert summary.failed == 0, outputs(tmp_path)
    [asked] = peer.asked
    body = asked.json
    meta = body.pop("meta")
    assert body == wire
    assert meta["tags"]["batch_id"] == "b1"
    assert meta["tags"]["batch_instance_id"] == asked.headers["seldon-puid"]
    [found] = outputs(tmp_path)
    assert found["meta"]["tags"]["batch_instance_id"] == asked.headers["seldon-puid"]
    assert {k: v for k, v in found.items() if k != "meta"} == wire


@both
def test_raw_lines_keep_their_tags(tmp_path: Path, transport: str) -> None:
    line = {"meta": {"tags": {"mine": "x"}, "puid": "p"}, "strData": "a"}
    with seldon_peer() as peer:
        run(tmp_path, peer, [line], transport, data_type="raw")
    assert peer.asked[0].json["meta"]["tags"]["mine"] == "x"
    assert outputs(tmp_path)[0]["meta"]["puid"] == "p"
    assert outputs(tmp_path)[0]["meta"]["tags"]["mine"] == "x"


@both
def test_feedback_lines_are_sent_as_feedback(tmp_path: Path, transport: str) -> None:
    line = {"request": {"strData": "a"}, "reward": 1.0}
    with seldon_peer() as peer:
        summary = run(tmp_path, peer, [line, "[]"], transport, data_type="raw", method="feedback")
    assert (summary.rows, summary.failed) == (2, 1)
    assert peer.asked[0].path.lower().replace("-", "").endswith("feedback")
    assert peer.asked[0].json["request"]["strData"] == "a"
    found = outputs(tmp_path)
    check_meta(found)
    assert found[1]["status"]["reason"] == "the line is not an object"


# -- mini-batches ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("payload_type", ["ndarray", "tensor"])
def test_mini_batch_answers_each_line(tmp_path: Path, transport: str, payload_type: str) -> None:
    lines = [[[1, 2]], [[3, 4], [5, 6]], [7, 8]]
    with seldon_peer() as peer:
        run(tmp_path, peer, lines, transport, batch_size=3, payload_type=payload_type)
    [asked] = peer.asked
    puid = asked.headers["seldon-puid"]
    found = outputs(tmp_path)
    if payload_type == "ndarray":
        assert [body["data"]["ndarray"] for body in found] == [[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]]
    else:
        assert [body["data"]["tensor"]["shape"] for body in found] == [[1, 2], [2, 2], [1, 2]]
        assert [body["data"]["tensor"]["values"] for body in found] == [[1, 2], [3, 4, 5, 6], [7, 8]]
    check_meta(found)
    assert [body["meta"]["tags"]["batch_instance_id"] for body in found] == [f"{puid}-item-{i}" for i in range(3)]


@pytest.mark.parametrize("kind", ["ndarray", "tensor"])
def test_mini_batch_of_raw_lines_joins_those_that_fit(tmp_path: Path, kind: str) -> None:
    def raw(n: int, name: str = "x") -> dict[str, Any]:
        data = {"ndarray": [[n]]} if kind == "ndarray" else {"tensor": {"shape": [1, 1], "values": [n]}}
        return {"data": {"names": [name], **data}}

    lines = [raw(1), raw(2), raw(3, "y"), {"strData": "s"}, raw(4)]
    with seldon_peer() as peer:
        summary = run(tmp_path, peer, lines, data_type="raw", batch_size=5)
    assert summary.failed == 0
    assert len(peer.asked) == 3
    found = outputs(tmp_path)
    assert [{k: v for k, v in body.items() if k != "meta"} for body in found] == lines
    check_meta(found)


def test_bad_line_of_a_mini_batch_fails_alone(tmp_path: Path) -> None:
    def picky(asked: Asked) -> Answer:
        return Answer(ENVELOPE, 500) if [13] in asked.json["data"]["ndarray"] else echo(asked)

    with seldon_peer(picky) as peer:
        summary = run(tmp_path, peer, [[[1]], [[13]], "oops", [[2]]], batch_size=4)
    found = outputs(tmp_path)
    assert (summary.rows, summary.failed) == (4, 2)
    assert [body.get("data", {}).get("ndarray") for body in found] == [[[1]], None, None, [[2]]]
    assert "bad row" in found[1]["status"]["reason"]
    check_meta(found)


def test_answer_that_cannot_be_cut_is_asked_for_line_by_line(tmp_path: Path) -> None:
    def total(asked: Asked) -> Answer:
        return Answer({"data": {"ndarray": [[sum(row[0] for row in asked.json["data"]["ndarray"])]]}})

    with seldon_peer(total) as peer:
        summary = run(tmp_path, peer, [[[1]], [[2]], [[3]]], batch_size=3)
    assert summary.failed == 0
    assert [body["data"]["ndarray"] for body in outputs(tmp_path)] == [[[1]], [[2]], [[3]]]
    assert len(peer.asked) == 4


INTEGERS = st.integers(-(2**63), 2**64 - 1)
"""Those that JSON carries; larger ones are read as floats."""


@given(st.lists(st.lists(st.lists(INTEGERS, min_size=2, max_size=2), min_size=1, max_size=3), max_size=6))
def test_what_is_joined_can_be_cut_again(lines: list[Any]) -> None:
    rows = [read_row(i, json.dumps(line).encode(), "data") for i, line in enumerate(lines)]
    found: dict[int, Any] = {}
    for group in grouped(rows, "data"):
        parts = cut({"data": {"ndarray": group.value}}, group.counts or [len(group.value)])
        assert parts is not None
        found.update({row.index: part["data"]["ndarray"] for row, part in zip(group.rows, parts, strict=True)})
    assert [found[i] for i in range(len(lines))] == lines


@given(st.binary(max_size=40), st.sampled_from(["data", "json", "str", "raw"]))
def test_any_line_is_read_and_grouped(line: bytes, data_type: str) -> None:
    row = read_row(1, line, data_type)
    if row.problem is None and data_type in ("data", "raw"):
        assert [group.rows for group in grouped([row], data_type)] == [[row]]


# -- retries ---------------------------------------------------------------------------------------------------------


def failing_first(times: int, answer: Answer) -> Callable[[Asked], Answer]:
    left = [times]

    def handle(asked: Asked) -> Answer:
        left[0] -= 1
        return answer if left[0] >= 0 else echo(asked)

    return handle


@both
def test_request_that_may_succeed_is_sent_again(tmp_path: Path, transport: str) -> None:
    answer = Answer(ENVELOPE, 503) if transport == "rest" else Answer("UNAVAILABLE")
    with seldon_peer(failing_first(2, answer)) as peer:
        assert run(tmp_path, peer, [[[1]]], transport, retries=3).failed == 0
    assert len(peer.asked) == 3
    assert len({asked.headers["seldon-puid"] for asked in peer.asked}) == 1


@both
def test_request_that_fails_too_often_is_a_failure(tmp_path: Path, transport: str) -> None:
    answer = Answer(ENVELOPE, 503) if transport == "rest" else Answer("UNAVAILABLE")
    with seldon_peer(lambda asked: answer) as peer:
        assert run(tmp_path, peer, [[[1]], [[2]]], transport, retries=2, batch_size=2).failed == 2
    assert len(peer.asked) == 2  # nothing is sent line by line to a server that is not there


@both
def test_wrong_request_is_not_sent_again(tmp_path: Path, transport: str) -> None:
    answer = Answer(ENVELOPE, 404) if transport == "rest" else Answer("INVALID_ARGUMENT")
    with seldon_peer(lambda asked: answer) as peer:
        assert run(tmp_path, peer, [[[1]]], transport).failed == 1
    assert len(peer.asked) == 1


def test_server_that_is_not_there_fails_every_line(tmp_path: Path) -> None:
    write(tmp_path, [[[1]], [[2]]])
    summary = process_batch(options(tmp_path, None, workers=2))
    assert (summary.rows, summary.failed) == (2, 2)
    check_meta(outputs(tmp_path))


class Waits(threading.Event):
    """Remembers how long it was to be waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


def send(tmp_path: Path, peer: Peer, lines: int, stop: threading.Event, **more: Any) -> list[Outcome]:
    told = options(tmp_path, peer, **more)
    with SeldonClient(gateway="seldon", gateway_endpoint=peer.http, client_return_type="dict") as client:
        caller = Caller(client, told, "b1", stop)
        return [caller.outcomes([read_row(i, b"[[1]]", "data")])[0] for i in range(lines)]


def test_interval_is_kept_between_requests_of_a_worker(tmp_path: Path) -> None:
    stop = Waits()
    with seldon_peer() as peer:
        send(tmp_path, peer, 3, stop, batch_interval=1000.0)
    assert stop.seconds[0] == 0.0
    assert all(500 < wait <= 1000 for wait in stop.seconds[1:])
    assert len(stop.seconds) == 3


def test_waits_grow_between_tries_and_are_what_the_server_asks_for(tmp_path: Path) -> None:
    stop, asked = Waits(), Waits()
    with seldon_peer(lambda _: Answer(ENVELOPE, 503)) as peer:
        send(tmp_path, peer, 1, stop, retries=5)
    with seldon_peer(lambda _: Answer(ENVELOPE, 429, {"Retry-After": "7"})) as peer:
        send(tmp_path, peer, 1, asked, retries=2)
    assert len(stop.seconds) == 4
    assert all(0.001 * 2**i / 2 <= wait <= 0.001 * 2**i for i, wait in enumerate(stop.seconds))
    assert asked.seconds == [7.0]


def test_run_that_is_given_up_tries_no_more(tmp_path: Path) -> None:
    stop = Waits()
    stop.set()
    with seldon_peer(lambda _: Answer(ENVELOPE, 503)) as peer:
        assert send(tmp_path, peer, 1, stop)[0].failed
    assert len(peer.asked) == 1


# -- stopping and going on -------------------------------------------------------------------------------------------


def test_run_that_is_stopped_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servegraph.runtimes.batch_progress.CALL_EVERY_S", 0.0)
    lines = [[[n]] if n != 2 else "bad" for n in range(20)]

    def stop(progress: Progress) -> None:
        if progress.rows == 7:
            raise KeyboardInterrupt

    with seldon_peer() as peer:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, peer, lines, progress=stop)
        part = tmp_path / "out.txt.part"
        assert not (tmp_path / "out.txt").exists()
        assert len(part.read_bytes().splitlines()) == 7
        part.write_bytes(part.read_bytes() + b'{"half a li')
        peer.asked.clear()
        summary = process_batch(options(tmp_path, peer, resume=True, batch_id=None))
    assert (summary.rows, summary.failed, summary.batch_id) == (20, 1, "b1")
    assert [asked.json["data"]["ndarray"] for asked in peer.asked] == [[[n]] for n in range(7, 20)]
    found = outputs(tmp_path)
    check_meta(found)
    assert [body.get("data", {}).get("ndarray") for body in found] == [[[n]] if n != 2 else None for n in range(20)]
    assert not part.exists()


def test_run_without_resume_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "out.txt.part").write_text("old\n", encoding="utf-8")
    with seldon_peer() as peer:
        run(tmp_path, peer, [[[1]]])
    assert len(outputs(tmp_path)) == 1


def test_resume_with_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    part = tmp_path / "out.txt.part"
    with seldon_peer() as peer:
        part.write_text("not ours\n", encoding="utf-8")
        with pytest.raises(SettingsError, match="not from a run"):
            run(tmp_path, peer, [[[1]]], resume=True)
        part.write_text('{"meta":{"tags":{"batch_id":"x"}}}\n' * 2, encoding="utf-8")
        with pytest.raises(SettingsError, match="more lines than"):
            run(tmp_path, peer, [[[1]]], resume=True)
    assert part.read_bytes().count(b"\n") == 2


def test_earlier_output_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.txt").write_text("old", encoding="utf-8")
    monkeypatch.setattr("servegraph.runtimes.batch_progress.CALL_EVERY_S", 0.0)

    def stop(progress: Progress) -> None:
        raise RuntimeError("stop")

    with seldon_peer() as peer:
        with pytest.raises(RuntimeError, match="stop"):
            run(tmp_path, peer, [[[1]], [[2]]], progress=stop)
        assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "old"


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"transport": "http"}, "valid: grpc, rest"),
        ({"data_type": "datas"}, "did you mean 'data'"),
        ({"workers": 0}, "workers=0"),
        ({"batch_interval": -1}, "below 0"),
        ({"method": "feedback"}, "needs data_type=raw"),
        ({"batch_size": 2, "data_type": "json"}, "only arrays join"),
        ({"batch_size": 2, "data_type": "raw", "method": "feedback"}, "only arrays join"),
        ({"batch_size": 2, "payload_type": "tftensor"}, "ndarray or tensor"),
        ({"output_data_path": Path("no/such/folder/out.txt")}, "folder is not there"),
    ],
)
def test_options_that_are_wrong_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        options(tmp_path, None, **more)


def test_input_and_output_cannot_be_the_same_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="same file"):
        options(tmp_path, None, output_data_path=tmp_path / "." / "in.txt")


def test_input_that_is_not_there_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"in\.txt cannot be read: No such file"):
        process_batch(options(tmp_path, None))
    assert list(tmp_path.iterdir()) == []


def test_transport_without_its_package_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httpx", None)
    write(tmp_path, [[[1]], [[2]]])
    with pytest.raises(MissingExtraError, match="servegraph"):
        process_batch(options(tmp_path, None))


def test_token_is_hidden_from_logs(tmp_path: Path) -> None:
    assert "secret" not in repr(options(tmp_path, None, call_credentials_token="secret"))


# -- the command -----------------------------------------------------------------------------------------------------


def invoke(tmp_path: Path, peer: Peer, *arguments: str, **extra: Any) -> Any:
    paths = ["-i", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.txt")]
    return CliRunner().invoke(command, ["-d", "iris", "-h", peer.http, *paths, "--no-progress", *arguments], **extra)


def test_command_writes_the_output_and_says_how_it_went(tmp_path: Path) -> None:
    write(tmp_path, [[[1]], [[2]]])
    with seldon_peer() as peer:
        done = invoke(tmp_path, peer, "-u", "b1", "-w", "2", "-b", "-n", "prod")
    assert done.exit_code == 0, done.output
    assert f"batch b1: 2 lines, none failed, written to {tmp_path / 'out.txt'}" in done.output
    assert "Elapsed time: " in done.output
    assert peer.asked[0].path == "/seldon/prod/iris/api/v1.0/predictions"
    check_meta(outputs(tmp_path))


def test_command_with_failed_lines_exits_with_one(tmp_path: Path) -> None:
    write(tmp_path, [[[1]], "bad"])
    with seldon_peer() as peer:
        done = invoke(tmp_path, peer)
    assert done.exit_code == 1
    assert "2 lines, 1 failed" in done.output


def test_command_reads_its_options_from_the_environment(tmp_path: Path) -> None:
    write(tmp_path, [[[1]], [[2]], [[3]]])
    with seldon_peer() as peer:
        env = {
            "SELDON_BATCH_DEPLOYMENT_NAME": "iris",
            "SELDON_BATCH_GATEWAY_TYPE": "seldon",
            "SELDON_BATCH_HOST": peer.http,
            "SELDON_BATCH_INPUT_DATA_PATH": str(tmp_path / "in.txt"),
            "SELDON_BATCH_OUTPUT_DATA_PATH": str(tmp_path / "out.txt"),
            "SELDON_BATCH_ID": "b1",
            "SELDON_BATCH_SIZE": "2",
            "SELDON_BATCH_MIN_INTERVAL": "0.001",
            "SELDON_BATCH_PAYLOAD_TYPE": "tensor",
            "SELDON_BATCH_USE_SSL": "false",
            "SELDON_BATCH_LOG_LEVEL": "ERROR",
        }
        alone = CliRunner().invoke(command, [], env=env)
        check_meta(outputs(tmp_path))
        inside = CliRunner().invoke(main, ["seldon-batch"], env=env)
    assert (alone.exit_code, inside.exit_code) == (0, 0), alone.output + inside.output
    assert {asked.path for asked in peer.asked} == {"/api/v1.0/predictions"}
    assert len(peer.asked) == 4
    assert "tensor" in peer.asked[0].json["data"]


def test_command_with_options_that_do_not_fit_is_one_line(tmp_path: Path) -> None:
    with seldon_peer() as peer:
        done = invoke(tmp_path, peer, "-m", "feedback")
    assert done.exit_code == 1
    assert done.output.startswith("Error: method=feedback needs")
