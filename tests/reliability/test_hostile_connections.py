"""Clients that send without end, out of turn, or take nothing: each costs little, and gets the answers it is owed."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from raw_http import Served, post, read_all, serving

import servegraph


class Echo(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: dict[str, Any]) -> Any:
        rows: list[Any] = request["inputs"]
        return rows


class Wait(Echo):
    async def predict(self, request: dict[str, Any]) -> list[Any]:
        await asyncio.sleep(request["inputs"][0])
        return ["waited"]


class Large(Echo):
    def predict(self, request: dict[str, Any]) -> list[Any]:
        return ["x" * request["inputs"][0]]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    fn = servegraph.new_function("hostile-connections")
    for model in (Echo, Wait, Large):
        fn.add_model(model.__name__.lower(), class_name=model)
    with serving(fn, limits={"body_timeout_s": 2.0, "body_json_bytes": 100_000}) as served:
        for _ in range(30):  # so that it is answered on the short way
            assert served.ask("/v2/models/echo/infer", {"inputs": [1]}).status == 200
        yield served


CHUNKED = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
ECHO = post("/v2/models/echo/infer", {"inputs": ["echoed"]})
WAIT = post("/v2/models/wait/infer", {"inputs": [0.2]})


def _send_without_end(client: socket.socket, unit: bytes) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        client.sendall(unit)


@pytest.mark.parametrize(
    ("first", "unit"),
    [(b"0\r\n", b"a: b\r\n" * 4000), (b"0\r\na: ", b"b" * 65536)],
    ids=["fields", "one field"],
)
def test_chunked_message_with_too_much_beside_its_body_is_refused(server: Served, first: bytes, unit: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.closing(server.connect()) as client:
        client.sendall(CHUNKED + b"\r\n" + first)
        with pytest.raises(ConnectionError):
            _send_without_end(client, unit)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_fields_after_a_chunked_body_are_no_fields_of_the_head(server: Served) -> None:
    body = b'{"inputs":["echoed"]}'
    with contextlib.closing(server.connect()) as client:
        for _ in range(2):
            client.sendall(
                CHUNKED + b"content-type: application/json\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
                + b"x-request-id: planted\r\ncontent-type: image/png\r\n\r\n"
            )  # fmt: skip
        client.sendall(ECHO.replace(b"host: x", b"host: x\r\nconnection: close"))
        answers = read_all(client)
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"echoed") == 3
    assert b"planted" not in answers


def test_many_chunked_requests_on_one_connection_are_answered(server: Served) -> None:
    body = b'{"inputs":["echoed"]}'
    unread = b"POST /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n"
    request = CHUNKED + b"\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with contextlib.closing(server.connect()) as client:
        client.sendall(unread + (request + ECHO) * 1500 + ECHO.replace(b"host: x", b"host: x\r\nconnection: close"))
        answers = read_all(client)
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"echoed") == 3001


@pytest.mark.parametrize("before", [[ECHO], [WAIT], [ECHO, WAIT, ECHO], [WAIT, ECHO, WAIT], [ECHO, ECHO]])
@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (CHUNKED + b"\r\nzz\r\n", 400),
    ],
    ids=["garbage", "target", "fields", "chunk"],
)
def test_what_cannot_be_read_is_refused_behind_the_answers_before_it(
    server: Served, before: list[bytes], bad: bytes, status: int
) -> None:
    with contextlib.closing(server.connect()) as client:
        client.sendall(b"".join(before) + bad)
        answers = read_all(client).split(b"HTTP/1.1 ")[1:]
    assert [a[:3] for a in answers] == [b"200"] * len(before) + [b"%d" % status]
    assert [b"waited" in a for a in answers[:-1]] == [b is WAIT for b in before]


def test_pipelined_answers_come_complete_and_in_order(server: Served) -> None:
    paths = ["/v2/models/echo/infer", "/v2/models/wait/infer", "/v2/models/none", "/v2/models/echo/infer"]
    inputs: list[list[Any]] = [["first"], [0.01], [], ["last"]]
    requests = [post(path, {"inputs": values}) for path, values in zip(paths, inputs, strict=True)] * 25
    requests[-1] = requests[-1].replace(b"host: x", b"host: x\r\nconnection: close")
    with contextlib.closing(server.connect()) as client:
        client.sendall(b"".join(requests))
        answers = read_all(client).split(b"HTTP/1.1 ")[1:]
    marks = (b'["first"]', b'["waited"]', b"there is no model", b'["last"]')
    assert len(answers) == 100
    assert all(marks[i % 4] in answer for i, answer in enumerate(answers))


def test_client_that_sends_a_body_over_the_limit_gets_413_although_it_still_sends(server: Served) -> None:
    for head, body in (
        (b"content-length: 5000000\r\n\r\n", b"x" * 5_000_000),
        (b"transfer-encoding: chunked\r\n\r\n", (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 80),
    ):
        with contextlib.closing(server.connect()) as client:
            client.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\n" + head)
            client.sendall(body)
            assert read_all(client).startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
@pytest.mark.parametrize("drip", [False, True])
def test_client_that_does_not_take_its_answer_is_cut_off(server: Served, drip: bool) -> None:
    with contextlib.closing(server.connect(receive_buffer=4096)) as client:
        client.sendall(post("/v2/models/large/infer", {"inputs": [50_000_000]}))
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if drip:
                client.recv(10)
            time.sleep(0.1)
        size = 0
        with contextlib.suppress(ConnectionError):
            size = len(read_all(client))
    assert size < 40_000_000


@pytest.mark.slow
def test_client_that_takes_a_large_answer_slowly_gets_all_of_it(server: Served) -> None:
    with contextlib.closing(server.connect(receive_buffer=65536)) as client:
        request = post("/v2/models/large/infer", {"inputs": [3_000_000]})
        client.sendall(request.replace(b"host: x", b"host: x\r\nconnection: close"))
        size = 0
        while data := client.recv(40_000):
            size += len(data)
            time.sleep(0.02)
    assert size > 3_000_000
