from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest
from supervised_server import SupervisedServer

LIMITS = {
    "header_timeout_s": 0.3,
    "keep_alive_s": 3,
    "header_block_bytes": 4096,
    "request_line_bytes": 1024,
    "header_count": 20,
}


@pytest.fixture(scope="module")
def server() -> Iterator[SupervisedServer]:
    with SupervisedServer(limits=LIMITS, timeouts={"hang_s": 10.0}) as running:
        yield running.wait_ready()


KEPT = [["host", "x"], ["content-length", "2"]]


def head(*fields: bytes, path: bytes = b"/who", method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"host: x", *fields, b"", b""])


def exchange(server: SupervisedServer, *pieces: bytes) -> bytes:
    """All that the server answers until it closes the connection."""
    with contextlib.closing(server.connect()) as client:
        for piece in pieces:
            client.sendall(piece)
        return b"".join(iter(lambda: client.recv(65536), b""))


def read_answer(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    top, _, body = data.partition(b"\r\n\r\n")
    length = int(top.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65536)
    return top.split(b"\r\n")[0], body


def seconds_until_closed(client: socket.socket) -> float:
    began = time.monotonic()
    assert client.recv(65536) == b""
    return time.monotonic() - began


@pytest.mark.parametrize(
    "first",
    [b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nhost: x", b"GET / HTTP/1.1\r\nhost: x\r\n"],
)
def test_connection_with_half_a_head_is_closed_after_the_header_timeout(server: SupervisedServer, first: bytes) -> None:
    with contextlib.closing(server.connect()) as client:
        client.sendall(first)
        assert 0.2 < seconds_until_closed(client) < 10


@pytest.mark.parametrize("after", [b"\r\n", b"G", head()[:-2]])
def test_connection_whose_second_head_is_late_is_closed(server: SupervisedServer, after: bytes) -> None:
    with contextlib.closing(server.connect()) as client:
        client.sendall(head())
        assert read_answer(client)[0] == b"HTTP/1.1 200 OK"
        client.sendall(after)
        assert 0.2 < seconds_until_closed(client) < 10


def test_connection_that_drips_a_head_is_closed_although_it_sends(server: SupervisedServer) -> None:
    with contextlib.closing(server.connect()) as client:
        began = time.monotonic()
        client.settimeout(0.05)
        answer = None
        for byte in head(b"a: " + b"b" * 100):
            client.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1)
                break
        assert answer == b""
        assert time.monotonic() - began < 4.5


def test_requests_that_take_longer_than_the_header_timeout_are_answered(server: SupervisedServer) -> None:
    with contextlib.closing(server.connect()) as client:
        for _ in range(2):
            client.sendall(head(path=b"/sleep/0.6"))
            assert read_answer(client)[0] == b"HTTP/1.1 200 OK"


def test_bodies_that_take_longer_than_the_header_timeout_are_read(server: SupervisedServer) -> None:
    with contextlib.closing(server.connect()) as client:
        client.sendall(head(b"content-length: 4", path=b"/echo", method=b"POST"))
        for byte in (b"a", b"b", b"c", b"d"):
            time.sleep(0.15)  # it is the slowness itself that is tested
            client.sendall(byte)
        assert json.loads(read_answer(client)[1])["size"] == 4


def test_idle_connection_is_kept_for_the_keep_alive_time(server: SupervisedServer) -> None:
    with contextlib.closing(server.connect()) as client:
        client.sendall(head())
        read_answer(client)
        time.sleep(0.6)  # longer than the header timeout, shorter than the keep-alive time
        client.sendall(head())
        assert read_answer(client)[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        pytest.param([head(b"a: " + b"b" * 5000)], b"431", id="one large field"),
        pytest.param([head(*(b"a%d: b" % i for i in range(25)))], b"431", id="too many fields"),
        pytest.param([head(b"a: " + b"b" * 300_000)], b"431", id="larger than a read"),
        pytest.param([b"GET / HTTP/1.1\r\na: ", *[b"b" * 1000] * 10], b"431", id="never complete, in pieces"),
        pytest.param([head(b"a: " + b"b" * 4090)[:50], head(b"a: " + b"b" * 4090)[50:]], b"431", id="in two pieces"),
        pytest.param([head(path=b"/" + b"x" * 2000)], b"414", id="long target"),
        pytest.param([b"GET /" + b"x" * 2000], b"414", id="long target, never complete"),
        pytest.param([b"\r\n" * 200_000], b"431", id="nothing but line ends"),
        pytest.param([head(), head(b"a: " + b"b" * 5000)], b"431", id="second request"),
    ],
)
def test_head_that_is_too_long_is_refused_and_the_connection_closed(
    server: SupervisedServer, pieces: list[bytes], status: bytes
) -> None:
    answer = exchange(server, *pieces)
    line = answer[answer.rindex(b"HTTP/1.1 ") :].split(b"\r\n")[0]
    assert line.split()[1] == status
    assert b"connection: close" in answer


def test_heads_within_the_limits_are_answered_also_after_large_bodies(server: SupervisedServer) -> None:
    body = b"x" * 200_000
    post = head(b"content-length: 200000", b"a: " + b"b" * 3900, path=b"/echo", method=b"POST")
    with contextlib.closing(server.connect()) as client:
        for _ in range(2):
            # The next head arrives in the same reads as the end of the body, and in two parts.
            client.sendall(post + body + post[:100])
            assert json.loads(read_answer(client)[1])["size"] == 200_000
            client.sendall(post[100:] + body)
            assert json.loads(read_answer(client)[1])["size"] == 200_000


def test_fields_after_a_chunked_body_do_not_reach_the_application(server: SupervisedServer) -> None:
    with contextlib.closing(server.connect()) as client:
        client.sendall(head(b"transfer-encoding: chunked", path=b"/echo", method=b"POST"))
        client.sendall(b"2\r\nab\r\n")
        time.sleep(0.1)  # the application has read the first part when the rest comes
        client.sendall(b"0\r\nx-role: admin\r\n\r\n")
        answer = json.loads(read_answer(client)[1])
    assert answer["size"] == 2
    assert "x-role" not in [name for name, _ in answer["headers"]]


def test_request_that_offers_an_upgrade_is_answered_as_http_1(server: SupervisedServer) -> None:
    fields = [b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"]
    with contextlib.closing(server.connect()) as client:
        for _ in range(2):
            client.sendall(head(b"content-length: 2", *fields, path=b"/echo", method=b"POST") + b"a")
            time.sleep(0.05)  # the rest of the body comes in another read
            client.sendall(b"b")
            assert json.loads(read_answer(client)[1]) == {"size": 2, "headers": KEPT}


def test_connect_request_is_refused(server: SupervisedServer) -> None:
    assert exchange(server, head(path=b"x:443", method=b"CONNECT")).startswith(b"HTTP/1.1 400 ")


def test_malformed_request_is_answered_400(server: SupervisedServer) -> None:
    assert exchange(server, b"NO SUCH THING\r\n\r\n").startswith(b"HTTP/1.1 400 ")
