"""The contract tester against a real server, as a function and as a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from seldon_peer import Answer, Asked, Peer, seldon_peer

from servegraph.cli.main import main
from servegraph.cli.seldon_tester import command
from servegraph.runtimes.seldon.tester import SeldonTesterException, SeldonTesterOptions, exchanges
from servegraph.serving.seldon.contract import Contract

DOCUMENT = {
    "features": [{"name": "x", "ftype": "continuous", "dtype": "FLOAT", "range": [0, 1], "repeat": 2}],
    "targets": [{"name": "class", "ftype": "continuous", "dtype": "FLOAT", "range": [0, 1], "repeat": 2}],
}


def classes(asked: Asked) -> Answer:
    """What a good classifier answers: as many rows as it is sent."""
    message = asked.json
    if "data" not in message:
        return Answer({"meta": {}})
    sent = message["data"]
    rows = int(sent["tensor"]["shape"][0]) if "tensor" in sent else len(sent["ndarray"])
    return Answer({"meta": {}, "data": {"names": ["class:0", "class:1"], "ndarray": [[0.25, 0.75]] * rows}})


def too_large(asked: Asked) -> Answer:
    answer = classes(asked)
    answer.body["data"]["ndarray"][-1] = [0.5, 2.0]
    return answer


@pytest.fixture
def contract(tmp_path: Path) -> str:
    file = tmp_path / "contract.json"
    file.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    return str(file)


def run(contract: str, address: str, *arguments: str, **extra: Any) -> Result:
    host, port = address.split(":")
    return CliRunner().invoke(command, [contract, host, port, *arguments], **extra)


def address(peer: Peer, transport: str) -> str:
    return peer.grpc if transport == "grpc" else peer.http


both = pytest.mark.parametrize("transport", ["rest", "grpc"])


@both
@pytest.mark.parametrize("tensor", [False, True])
def test_component_that_keeps_its_contract_passes(contract: str, transport: str, tensor: bool) -> None:
    flags = [*(["--grpc"] if transport == "grpc" else []), *(["-t"] if tensor else [])]
    with seldon_peer(classes) as peer:
        done = run(contract, address(peer, transport), "-n", "3", "-b", "4", "--seed", "7", *flags)
    assert done.exit_code == 0, done.output
    assert "3 requests, all good (--seed 7 makes them again)" in done.output
    assert len(peer.asked) == 3
    for asked in peer.asked:
        assert asked.path == ("/seldon.protos.Model/Predict" if transport == "grpc" else "/predict")
        sent = asked.json["data"]
        assert sent["names"] == ["x1", "x2"]
        assert (sent["tensor"]["shape"] == [4, 2]) if tensor else (len(sent["ndarray"]) == 4)


@both
def test_component_that_breaks_its_contract_fails_with_the_place(contract: str, transport: str) -> None:
    flags = ["--grpc"] if transport == "grpc" else []
    with seldon_peer(too_large) as peer:
        done = run(contract, address(peer, transport), "-n", "2", "-b", "2", *flags)
    assert done.exit_code == 1
    assert "request 2: class is outside of 0 to 1: 2.0 (row 1, column 1)" in done.output
    assert "2 of 2 requests failed" in done.output


def test_component_that_fails_is_told_with_its_reason(contract: str) -> None:
    envelope = {"status": {"code": -1, "info": "no model", "reason": "X", "status": 1}}
    with seldon_peer(lambda asked: Answer(envelope, 500)) as peer:
        done = run(contract, peer.http)
    assert done.exit_code == 1
    assert "request 1: 500:Internal Server Error: no model" in done.output


def test_component_that_is_not_there_fails(contract: str, free_port: int) -> None:
    done = run(contract, f"127.0.0.1:{free_port}")
    assert done.exit_code == 1
    assert "no answer from" in done.output


def test_component_that_answers_no_data_fails(contract: str) -> None:
    with seldon_peer(lambda asked: Answer({"strData": "x"})) as peer:
        done = run(contract, peer.http)
    assert done.exit_code == 1
    assert "the answer holds strData" in done.output


def test_seed_makes_the_same_requests(contract: str) -> None:
    with seldon_peer(classes) as peer:
        for seed in ("5", "5", "6"):
            assert run(contract, peer.http, "-b", "3", "--seed", seed).exit_code == 0
        assert run(contract, peer.http).exit_code == 0
    first, second, third, _ = (asked.json for asked in peer.asked)
    assert first == second != third


def test_print_shows_requests_and_answers(contract: str) -> None:
    with seldon_peer(classes) as peer:
        done = run(contract, peer.http, "-p")
    lines = done.output.splitlines()
    assert json.loads(lines[0].removeprefix("request 1: ")) == peer.asked[0].json
    assert json.loads(lines[1].removeprefix("answer 1: "))["data"]["ndarray"] == [[0.25, 0.75]]


def test_names_that_differ_are_found_unless_they_are_ignored(contract: str) -> None:
    def named(asked: Asked) -> Answer:
        answer = classes(asked)
        answer.body["data"]["names"] = ["setosa", "virginica"]
        return answer

    with seldon_peer(named) as peer:
        assert "the names are setosa, virginica" in run(contract, peer.http).output
        assert run(contract, peer.http, "--ignore-names").exit_code == 0


@both
def test_deployment_is_reached_through_its_gateway(contract: str, transport: str) -> None:
    flags = ["--grpc"] if transport == "grpc" else []
    with seldon_peer(classes) as peer:
        done = run(contract, address(peer, transport), "iris", "--namespace", "prod", *flags)
        again = run(contract, address(peer, transport), *flags, default_map={"gateway": "seldon"})
    assert (done.exit_code, again.exit_code) == (0, 0), done.output + again.output
    if transport == "grpc":
        assert peer.asked[0].path == "/seldon.protos.Seldon/Predict"
        assert peer.asked[0].headers["seldon"] == "iris"
    else:
        paths = [asked.path for asked in peer.asked]
        assert paths == ["/seldon/prod/iris/api/v1.0/predictions", "/api/v1.0/predictions"]


@both
def test_feedback_tells_a_truth_that_keeps_the_contract(contract: str, transport: str) -> None:
    flags = ["--grpc"] if transport == "grpc" else []
    with seldon_peer(classes) as peer:
        done = run(contract, address(peer, transport), "--endpoint", "send-feedback", "-b", "2", *flags)
    assert done.exit_code == 0, done.output
    [asked] = peer.asked
    assert asked.path == ("/seldon.protos.Generic/SendFeedback" if transport == "grpc" else "/send-feedback")
    assert asked.json["reward"] == 1
    assert len(asked.json["request"]["data"]["ndarray"]) == 2
    assert all(0 <= value <= 1 for row in asked.json["truth"]["data"]["ndarray"] for value in row)


def test_feedback_through_a_gateway_is_on_a_prediction_made_before(contract: str) -> None:
    def routed(asked: Asked) -> Answer:
        answer = classes(asked)
        answer.body["meta"] = {"routing": {"router": 1}}
        return answer

    with seldon_peer(routed) as peer:
        done = run(contract, peer.http, "iris", "--endpoint", "send-feedback")
    assert done.exit_code == 0, done.output
    assert [asked.path for asked in peer.asked] == [
        "/seldon/iris/api/v1.0/predictions",
        "/seldon/iris/api/v1.0/feedback",
    ]
    assert peer.asked[1].json["response"]["meta"]["routing"] == {"router": 1}


def test_transformer_is_asked_to_transform(contract: str) -> None:
    with seldon_peer(classes) as peer:
        assert run(contract, peer.http, "--endpoint", "transform-input").exit_code == 0
        done = run(contract, peer.http, "iris", "--endpoint", "transform-input")
    assert [asked.path for asked in peer.asked] == ["/transform-input"]
    assert done.exit_code == 1
    assert "a gateway has no transform-input" in done.output


def test_contract_that_is_wrong_is_one_line(tmp_path: Path) -> None:
    done = run(str(tmp_path / "none.json"), "127.0.0.1:9000")
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "cannot be read" in done.output


def test_servegraph_has_the_command() -> None:
    done = CliRunner().invoke(main, ["seldon-test", "--help"])
    assert done.exit_code == 0
    assert "CONTRACT HOST PORT" in done.output


def test_options_that_are_wrong_are_refused() -> None:
    with pytest.raises(SeldonTesterException, match="did you mean 'predict'"):
        SeldonTesterOptions("127.0.0.1:9000", endpoint="predic")
    with pytest.raises(SeldonTesterException, match="at least one row"):
        SeldonTesterOptions("127.0.0.1:9000", rows=0)


def test_exchanges_are_lazy(free_port: int) -> None:
    told = SeldonTesterOptions(f"127.0.0.1:{free_port}", requests=10**9)
    exchange = next(iter(exchanges(Contract.of(DOCUMENT), told)))
    assert exchange.number == 1
    assert exchange.response is None
