from __future__ import annotations

import base64
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from servegraph import jsoncodec
from servegraph.errors import StreamError
from servegraph.streams import PushError, Record, open_stream


class Server(ThreadingHTTPServer):
    """Keeps what was posted: (path, headers, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: list[tuple[str, Any, bytes]] = []
        self.connections: set[Any] = set()
        self.answers: list[int] = []

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def values(self) -> list[object]:
        return [jsoncodec.loads(body) for _, _, body in self.posts]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posts.append((self.path, self.headers, body))
        self.server.connections.add(self.client_address)
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    yield from running(Server())


def test_push_posts_an_object_or_an_array(server: Server) -> None:
    with open_stream(f"http://{server.where}/in", headers={"X-Project": "p"}) as stream:
        stream.push([Record({"n": 1})])
        stream.push([Record({"n": 2}), Record({"n": 3})])
    assert server.values == [{"n": 1}, [{"n": 2}, {"n": 3}]]
    path, headers, _ = server.posts[0]
    assert (path, headers["content-type"], headers["x-project"]) == ("/in", "application/json", "p")
    assert len(server.connections) == 1


def test_push_with_batch_off_posts_one_by_one(server: Server) -> None:
    with open_stream(f"http://{server.where}/", batch=False) as stream:
        stream.push([Record(n) for n in range(3)])
    assert server.values == [0, 1, 2]


def test_push_keeps_bytes_and_headers_apart(server: Server) -> None:
    with open_stream(f"http://{server.where}/") as stream:
        stream.push(
            [
                Record(1),
                Record(b"2", is_json=True),
                Record(b"\xff\x00"),
                Record(3, headers={"A": "b"}),
                Record(4, headers={"A": "b"}),
            ]
        )
    assert [body for _, _, body in server.posts] == [b"[1,2]", b"\xff\x00", b"[3,4]"]
    assert [h["content-type"] for _, h, _ in server.posts] == [
        "application/json",
        "application/octet-stream",
        "application/json",
    ]
    assert [h["a"] for _, h, _ in server.posts] == [None, None, "b"]


def test_own_content_type_goes_first(server: Server) -> None:
    with open_stream(f"http://{server.where}/", headers={"Content-Type": "application/x-ours"}) as stream:
        stream.push([Record(1)])
    assert server.posts[0][1].get_all("content-type") == ["application/x-ours"]


@pytest.mark.parametrize("status", [302, 401, 404, 429, 500, 503])
def test_answer_other_than_success_raises_with_the_status(server: Server, status: int) -> None:
    records = [Record(1), Record(2)]
    server.answers = [status]
    with open_stream(f"http://{server.where}/in") as stream:
        with pytest.raises(PushError, match=rf"/in answered {status}") as caught:
            stream.push(records)
        assert (caught.value.undelivered, caught.value.retryable) == (tuple(records), True)
        stream.push(records)


def test_answer_that_refuses_content_tells_which_records(server: Server) -> None:
    one, two, three = Record(1), Record(b"2"), Record(3)
    server.answers = [400, 204, 422]
    with open_stream(f"http://{server.where}/") as stream:
        with pytest.raises(PushError) as caught:
            stream.push([one, three])
        assert (caught.value.undelivered, caught.value.refused, caught.value.retryable) == ((one, three), (), False)
        with pytest.raises(PushError) as caught:
            stream.push([one, two, three])
        assert (caught.value.undelivered, caught.value.refused, caught.value.retryable) == ((three,), (two,), True)


def test_server_that_is_away_raises_with_the_reason() -> None:
    with open_stream("http://u:secret@127.0.0.1:1/x?token=secret") as stream:
        with pytest.raises(PushError, match=r"ConnectError.*refused") as caught:
            stream.push([Record(1)])
        assert len(caught.value.undelivered) == 1
        assert "secret" not in str(caught.value)


def test_server_that_does_not_answer_raises_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and serves nobody
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with open_stream(uri, timeout=0.05) as stream, pytest.raises(PushError, match="ReadTimeout"):
            stream.push([Record(1)])


def test_header_that_http_cannot_carry_refuses_its_record(server: Server) -> None:
    with open_stream(f"http://{server.where}/") as stream, pytest.raises(PushError, match="header") as caught:
        stream.push([Record(1, headers={"a": "\u20ac"}), Record(2)])
    assert [r.data for r in caught.value.refused] == [1]
    assert [r.data for r in caught.value.undelivered] == [2]


def test_credentials_reach_the_server_and_no_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        caplog.at_level(logging.DEBUG, "httpx"),
        open_stream(f"http://us%40er:pass%2Fword@{server.where}/in?token=hush") as stream,
    ):
        stream.push([Record(1)])
        server.answers = [500]
        with pytest.raises(PushError) as caught:
            stream.push([Record(1)])
    path, headers, _ = server.posts[0]
    assert path == "/in?token=hush"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"us@er:pass/word").decode()
    shown = caplog.text + str(caught.value) + repr(stream)
    assert "HTTP Request" in shown
    for secret in ("hush", "pass%2Fword", "pass/word", headers["authorization"].split()[1]):
        assert secret not in shown


@pytest.mark.parametrize("uri", ["http://", "http:///path", "http://h:port/", "http://h/#part"])
def test_address_that_is_no_url_is_told(uri: str) -> None:
    with pytest.raises(StreamError, match=r"is not a URL|must have a host"):
        open_stream(uri)


def test_timeout_of_a_wrong_kind_is_told() -> None:
    with pytest.raises(StreamError, match="timeout must be a number above 0, not 0"):
        open_stream("http://h/", timeout=0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_https_verifies_the_certificate(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run([*command.split(), *files.split()], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for running_server in running(server):
        uri = f"https://{running_server.where}/"
        with open_stream(uri) as stream, pytest.raises(PushError, match="certificate verify failed"):
            stream.push([Record(1)])
        with open_stream(uri, ca_file=str(tmp_path / "cert.pem")) as stream:
            stream.push([Record(2)])
        assert running_server.values == [2]
    with open_stream(uri, ca_file=str(tmp_path / "none.pem")) as stream, pytest.raises(StreamError, match="ca_file"):
        stream.push([Record(1)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_child_has_a_connection_of_its_own(server: Server) -> None:
    with open_stream(f"http://{server.where}/") as stream:
        stream.push([Record("parent")])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                stream.push([Record("child")])
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        stream.push([Record("parent again")])
    assert server.values == ["parent", "child", "parent again"]
    assert len(server.connections) == 2
