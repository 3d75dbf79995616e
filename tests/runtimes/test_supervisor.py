from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest
from supervised_server import SupervisedServer, is_gone, wait_until

from servegraph.errors import SettingsError
from servegraph.runtimes.supervisor import Supervisor
from servegraph.settings import ServerSettings, load_settings


def test_supervisor_with_two_workers_answers_and_exits_with_zero() -> None:
    with SupervisedServer(workers=2) as server:
        server.wait_ready(2)
        assert len(server.children()) == 2
        assert server.who()["starts"] == 1
        assert server.get("/ready")[0] == 200
        pids = server.children()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert server.refuses()
        assert all(is_gone(pid) for pid in pids)


def test_supervisor_on_sigterm_finishes_requests_in_flight(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    with SupervisedServer({"closed_file": str(closed)}, workers=2) as server, ThreadPoolExecutor(8) as pool:
        server.wait_ready(2)
        pending = [pool.submit(server.get, "/sleep/1.0") for _ in range(8)]
        idle = server.connect()
        time.sleep(0.3)  # the requests are on their way: nothing tells when the last has arrived
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        wait_until(server.refuses)
        assert server.wait_exit() == 0
        assert time.monotonic() - began < 15.0
        assert [future.result()[0] for future in pending] == [200] * 8
        assert idle.recv(1) == b""
        idle.close()
        assert closed.read_text() == "closed"


def test_supervisor_that_can_write_no_temporary_folder_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(**_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("servegraph.runtimes.supervisor.tempfile.mkdtemp", no_folder)
    with pytest.raises(SettingsError, match="set TMPDIR to one that can be written"):
        Supervisor(ServerSettings(http_port=0), "nowhere:build", "nothing").run()


def test_supervisor_during_drain_delay_still_takes_requests_but_is_not_ready() -> None:
    with SupervisedServer(timeouts={"drain_delay_s": 1.0}) as server:
        server.wait_ready()
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/ready")[0] == 503, 0.5)
        assert server.get("/who")[0] == 200
        assert server.wait_exit() == 0


def test_supervisor_when_drain_runs_out_answers_503_and_exits_with_one() -> None:
    with (
        SupervisedServer(timeouts={"drain_timeout_s": 0.5}) as server,
        ThreadPoolExecutor(1) as pool,
        server.connect() as slow,
    ):
        server.wait_ready()
        pending = pool.submit(server.get, "/sleep/30")
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.3)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 1
        assert time.monotonic() - began < 15
        assert pending.result()[0] == 503
        assert "cut off at the end of the drain: GET /sleep/30" in server.log()


def test_supervisor_on_second_sigterm_exits_at_once_with_one() -> None:
    with SupervisedServer(workers=2) as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready(2)
        pending = pool.submit(server.get, "/sleep/30")
        time.sleep(0.2)
        pids = server.children()
        server.signal(signal.SIGINT)
        wait_until(server.refuses)
        server.signal(signal.SIGTERM)
        assert server.wait_exit(1.0) == 1
        assert pending.exception() is not None
        assert all(is_gone(pid) for pid in pids)


def test_supervisor_takes_a_signal_that_comes_twice_at_once_as_one() -> None:
    with SupervisedServer() as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready()
        pending = pool.submit(server.get, "/sleep/0.6")
        time.sleep(0.2)  # the request is on its way
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)
        assert pending.result()[0] == 200
        assert server.wait_exit() == 0


@pytest.mark.slow
def test_supervisor_when_workers_are_killed_replaces_them_and_refuses_nobody() -> None:
    errors: list[Exception] = []
    statuses: list[int] = []
    stop = threading.Event()
    with SupervisedServer(workers=2) as server:
        server.wait_ready(2)

        def load() -> None:
            while not stop.is_set():
                try:
                    statuses.append(server.get("/who")[0])
                except (OSError, HTTPException) as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for kill in range(2):
            os.kill(server.children()[0], signal.SIGKILL)
            server.wait_ready(2, times=kill + 2)
        stop.set()
        for thread in threads:
            thread.join()
        assert not [exc for exc in errors if isinstance(exc, ConnectionRefusedError)]
        assert len(errors) <= 4  # no more than what was in flight
        assert set(statuses) == {200}
        assert "signal SIGKILL" in server.log()


def test_supervisor_when_all_workers_are_killed_keeps_connections_until_they_are_back() -> None:
    with SupervisedServer() as server:
        first = server.wait_ready().who()
        os.kill(first["pid"], signal.SIGKILL)
        second = server.who()
        metrics = server.get("/metrics")[1]
        assert b"\nrequests_total 3\n" in metrics  # counted on by the worker that took the place
        assert b"\nservegraph_workers_lost_total 1\n" in metrics
        assert (second["slot"], second["starts"]) == (0, 2)
        assert second["pid"] != first["pid"]


@pytest.mark.slow
def test_supervisor_replaces_stopped_worker() -> None:
    with SupervisedServer() as server:
        pid = server.wait_ready().who()["pid"]
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: is_gone(pid), 4.0)
        server.wait_ready(times=2)
        assert server.who()["starts"] == 2
        assert "no heartbeat for 1 s" in server.log()


@pytest.mark.slow
def test_supervisor_replaces_worker_whose_loop_is_blocked_and_shows_where() -> None:
    with SupervisedServer() as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready()
        lost = pool.submit(server.get, "/block/60")
        server.wait_ready(times=2)
        assert lost.exception() is not None
        assert "in answer" in server.log()  # the trace of the blocked thread


def test_supervisor_replaces_worker_that_reports_stuck_calls() -> None:
    with SupervisedServer() as server:
        server.wait_ready()
        server.get("/stuck")
        server.wait_ready(times=2)
        assert server.who()["starts"] == 2
        assert "1 model call(s) are stuck" in server.log()


def test_supervisor_killed_takes_its_workers_along_and_frees_the_port() -> None:
    with SupervisedServer(workers=2) as server:
        server.wait_ready(2)
        pids = server.children()
        server.process.kill()
        wait_until(lambda: all(is_gone(pid) for pid in pids), 2.0)
        assert server.refuses()


def test_supervisor_with_taken_port_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with SupervisedServer(http_port=port) as server:
            assert server.wait_exit() == 2
            assert f"cannot listen on 127.0.0.1:{port}: another program listens there" in server.first_line
            assert "--http-port" in server.first_line


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"fail": "no such file: model.py"}, "cannot be started: ValueError: no such file: model.py"),
        ({"fail_startup": "model iris: bad file"}, "cannot be started: model iris: bad file"),
        ({"exit": 7}, "cannot be started: exit code 7"),
    ],
)
def test_supervisor_with_failing_application_exits_with_its_message(target: dict[str, str], message: str) -> None:
    with SupervisedServer(target, workers=2) as server:
        assert server.wait_exit() == 1
        assert message in server.log()


@pytest.mark.slow
def test_supervisor_reload_takes_up_changes_and_survives_broken_ones(tmp_path: Path) -> None:
    code, text = tmp_path / "code.py", tmp_path / "text.json"
    code.write_text("")
    text.write_text("one")
    target = {"python_file": str(code), "file": str(text)}
    with SupervisedServer(target, watch=(str(tmp_path),), reload=True) as server:
        server.wait_ready()
        assert server.get("/text") == (200, b"one")
        text.write_text("second")
        server.wait_ready(times=2)
        assert server.get("/text") == (200, b"second")
        code.write_text("def")
        wait_until(lambda: "waiting for a change of the files" in server.log())
        assert "SyntaxError" in server.log()
        code.write_text("# python")
        server.wait_ready(times=3)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


@pytest.mark.slow
def test_supervisor_on_sighup_replaces_workers_one_after_the_other() -> None:
    with SupervisedServer(workers=2) as server:
        server.wait_ready(2)
        before = set(server.children())
        server.signal(signal.SIGHUP)
        while before & set(server.children()):
            assert server.get("/who")[0] == 200
        server.wait_ready(2, times=2)
        assert "ERROR" not in server.log()


def test_supervisor_restarts_with_growing_delays_and_tells_of_crash_loop() -> None:
    with SupervisedServer() as server:
        server.wait_ready()
        for _ in range(2):
            with pytest.raises((OSError, HTTPException)):
                server.get("/exit/3")
        wait_until(lambda: "exit code 3; replaced in 1 s" in server.log())
        assert "exit code 3; replaced in 0.5 s" in server.log()


def test_supervisor_with_reload_but_nothing_to_watch_is_refused(tmp_path: Path) -> None:
    settings = load_settings(environ={}, overrides={"reload": True})
    with pytest.raises(SettingsError, match="no files to watch"):
        Supervisor(settings, factory="a:b", target="x")
    with pytest.raises(SettingsError, match=r"cannot watch .*missing"):
        Supervisor(settings, factory="a:b", target="x", watch=[tmp_path / "missing"])


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [("no.such.host.invalid", 0, "is no name or address"), ("192.0.2.1", 0, "this machine has no such address")],
)
def test_supervisor_bind_with_unusable_host_says_why(host: str, port: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Supervisor(ServerSettings(host=host, http_port=port), factory="a:b", target="x").bind()
