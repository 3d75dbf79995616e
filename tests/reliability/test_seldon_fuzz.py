"""Whatever comes in: a component that raises nothing answers it with its own answer, or says what is wrong with it.

Never a 5xx, never silence, never a traceback in the log, and no memory that stays.
"""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from seldon_command import IDENTITY, Microservice
from seldon_exchange import application_of, asked, component_in, exchanged
from seldon_fuzz import Request, requests
from seldon_fuzz_proto import Call, calls

from servegraph.runtimes.grpc_context import GrpcContext
from servegraph.runtimes.local import LocalApplication
from servegraph.runtimes.seldon.grpc_methods import METHODS, graph_method

SEED = 20_240
MANY, FEW = 10_000, 500
GROWTH_BYTES = 8 * 1024**2
FITTING_STATUSES = {200, 204, 400, 404, 405, 408, 413, 414, 415, 431}
FITTING_CODES = {"OK", "INVALID_ARGUMENT"}
LARGEST_ANSWER = 1 << 27
"""Bytes of an answer that a client reads: a tensor of one value may stand for four million."""


def check_answers(sent: Sequence[Request], answers: Sequence[tuple[int, bytes]]) -> None:
    """Each answer has a status that fits, and a JSON body where it is one of the component."""
    strange = [(answer, request) for request, answer in zip(sent, answers, strict=True) if not _fits(request, *answer)]
    assert strange == []
    counted = collections.Counter(status for status, _ in answers)
    assert counted[200] > len(sent) / 10  # not all is refused at the door
    assert counted[400] > len(sent) / 10


def _fits(request: Request, status: int, body: bytes) -> bool:
    if status not in FITTING_STATUSES:
        return False
    if status != 400 or request.method == "HEAD" or not body.startswith(b"{"):
        return True
    told = json.loads(body)["status"]
    return bool(told["info"]) and told["code"] == -1 and told["status"] == 1 and len(body) < 9000


def answered(port: int, sent: Sequence[Call], at_once: int = 64) -> list[str]:
    """The name of the status of each call, on one connection."""
    options = [("grpc.max_receive_message_length", LARGEST_ANSWER)]
    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        methods = {call.method: channel.unary_unary(call.method) for call in sent}
        for first in range(0, len(sent), at_once):
            some = sent[first : first + at_once]
            codes += [f.code().name for f in [methods[c.method].future(c.data, timeout=20) for c in some]]
    return codes


def check_codes(sent: Sequence[Call], codes: Sequence[str]) -> None:
    """Each status fits."""
    strange = [(code, call) for call, code in zip(sent, codes, strict=True) if code not in FITTING_CODES]
    assert strange == []
    counted = collections.Counter(codes)
    assert counted["OK"] > len(sent) / 10
    assert counted["INVALID_ARGUMENT"] > len(sent) / 10


@pytest.mark.slow
def test_ten_thousand_fuzzed_requests_and_messages_harm_nothing(tmp_path: Path) -> None:
    sent, messages = list(requests(SEED, MANY)), list(calls(SEED, MANY))
    half = MANY // 2
    with Microservice(tmp_path, "ident.Identity", code=IDENTITY) as server:
        answers = exchanged(server.port, sent[:half])
        codes = answered(server.grpc_port, messages[:half])
        before = server.resident_bytes()
        answers += exchanged(server.port, sent[half:])
        codes += answered(server.grpc_port, messages[half:])
        assert server.resident_bytes() - before < GROWTH_BYTES
        check_answers(sent, answers)
        check_codes(messages, codes)
        assert server.ask("/predict", {"data": {"ndarray": [[1]]}}).status == 200
        assert server.ask("/metrics", port=server.metrics_port).status == 200
        log = server.log()
    assert "Traceback" not in log
    assert "ERROR" not in log
    assert "WARNING" not in log


@asynccontextmanager
async def running(component: str) -> AsyncIterator[LocalApplication]:
    """The application of a component, in this process and without sockets."""
    application = application_of(component)
    await application.startup()
    try:
        yield application
    finally:
        await application.aclose()


def test_fuzzed_requests_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = list(requests(SEED + 1, FEW))

    async def run() -> list[tuple[int, bytes]]:
        async with running(component_in(tmp_path, monkeypatch, IDENTITY)) as application:
            return [await asyncio.wait_for(asked(application, request), 20) for request in sent]

    check_answers(sent, asyncio.run(run()))
    assert caplog.records == []


class Caller:
    """grpcio's side of a call, without a connection."""

    def invocation_metadata(self) -> None:
        return None

    def time_remaining(self) -> None:
        return None

    def peer(self) -> str:
        return "nobody"

    def is_active(self) -> bool:
        return True

    def cancel(self) -> None:
        raise AssertionError("nothing cancels these calls")

    def add_callback(self, callback: Any) -> bool:
        return True

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        raise AssertionError("methods know nothing of that")

    def abort(self, code: Any, details: str) -> None:
        raise AssertionError("methods know nothing of that")


def test_fuzzed_messages_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = [call for call in calls(SEED + 2, FEW) if "etadata" not in call.method]
    names = {f"/seldon.protos.{name}": path for name, path in METHODS.items()}

    async def run() -> list[str]:
        async with running(component_in(tmp_path, monkeypatch, IDENTITY)) as application:
            loop = asyncio.get_running_loop()
            methods = {name: graph_method(application, path) for name, path in names.items()}

            def code(call: Call) -> str:
                try:
                    methods[call.method](call.data, GrpcContext(call.method, Caller(), loop))
                except Exception as exc:
                    return "INVALID_ARGUMENT" if getattr(exc, "status_code", 0) == 400 else repr(exc)
                return "OK"

            return await asyncio.to_thread(lambda: [code(call) for call in sent])

    check_codes(sent, asyncio.run(run()))
    assert caplog.records == []
