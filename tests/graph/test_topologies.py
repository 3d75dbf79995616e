"""Every topology of the table means the same through every driver and edge."""

from __future__ import annotations

import asyncio
import copy
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from topologies import OUTPUTS, ROWS, Fails, NoResult, Row

from servegraph.graph.events import Event, Response
from servegraph.runtimes.mock import MockServer
from servegraph.serving.dataplane import Reply

Answer = tuple[int, Any, str]
"""Status, value (problem for errors), and the reason of an empty answer."""


def _from_reply(reply: Reply) -> Answer:
    value = json.loads(reply.body) if reply.content_type and "json" in reply.content_type else reply.body.decode()
    return reply.status, value, (reply.headers or {}).get("x-no-result", "")


def plain(server: MockServer, body: Any) -> Answer:
    """The engine by a plain call."""
    event = Event(body, "application/json", method="POST")
    try:
        return _from_reply(server.data_plane.reply(server.data_plane.run_plain(event)))
    except Exception as exc:
        return _from_reply(server.data_plane.failure(exc, event))


def loop(server: MockServer, body: Any) -> Answer:
    """The engine on an event loop, from bytes to a reply."""

    async def run() -> Reply:
        event = Event(json.dumps(body).encode(), "application/json", method="POST")
        reply = await server.data_plane.handle(event)
        await server.data_plane.engine.wait_for_background()
        return reply

    return _from_reply(asyncio.run(run()))


def mock(server: MockServer, body: Any) -> Answer:
    """The mock server."""
    answer = server.test("/", body, silent=True, get_body=False)
    assert isinstance(answer, Response)
    server.wait_for_completion()
    return answer.status_code, answer.body, answer.headers.get("x-no-result", "")


DRIVERS: dict[str, Callable[[MockServer, Any], Answer]] = {"plain": plain, "loop": loop, "mock": mock}


def check(answer: Answer, expected: Any) -> None:
    status, value, reason = answer
    if isinstance(expected, Fails):
        assert status == expected.status
        if expected.step is not None:
            assert value["step"] == expected.step
        assert value["request_id"]
    elif isinstance(expected, NoResult):
        assert status == 204
        assert expected.because in reason
    else:
        assert status in (200, 299)
        if isinstance(expected, dict) and OUTPUTS in expected:
            value = {OUTPUTS: value[OUTPUTS]}
        assert value == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_topology_in_process_gives_its_answers(row: Row) -> None:
    for name, driver in DRIVERS.items():
        with row.function().to_mock_server() as server:  # a new one: steps may keep state
            if name == "plain" and not server.plan.plain:
                continue  # needs an event loop; the other drivers show it
            for body, expected in row.cases:
                check(driver(server, copy.deepcopy(body)), expected)


def _post(url: str, body: Any) -> Answer:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return _decoded(response.status, response.headers, response.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return _decoded(exc.code, exc.headers, exc.read())


def _decoded(status: int, headers: Any, raw: bytes) -> Answer:
    kind = headers.get("content-type") or ""
    return status, json.loads(raw) if "json" in kind else raw.decode(), headers.get("x-no-result", "")


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_topology_over_http_gives_its_answers(row: Row) -> None:
    with row.function().serve(http_port=0, block=False) as running:
        for body, expected in row.cases:
            check(_post(running.url + "/", body), expected)
