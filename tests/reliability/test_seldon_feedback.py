"""Ten thousand feedbacks over REST and gRPC to two workers: each is in the metrics and in what a component learns."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from seldon_command import Microservice
from seldon_exchange import exchanged
from seldon_fuzz import Request

from servegraph.serving.seldon.bandits import EpsilonGreedy
from servegraph.serving.seldon.persistence import Persistence
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc
from servegraph.serving.seldon.state_store import open_store

pytestmark = pytest.mark.slow

OVER_REST = 6_000
OVER_GRPC = 4_000
RPC_CLIENTS = 4
NAMES = {"PREDICTIVE_UNIT_ID": "eg", "SELDON_DEPLOYMENT_ID": "dep", "PREDICTOR_ID": "main"}
KEY = "persistence_dep_main_eg"
BRANCHES = '[{"name": "n_branches", "value": "2", "type": "INT"}]'


def rest_feedback(i: int) -> Request:
    """The i-th feedback: for each branch in turn, every second one of the first with a reward."""
    body = {
        "request": {"data": {"ndarray": [[1, 2]]}},
        "response": {"meta": {"routing": {"eg": i % 2}}},
        "reward": float(i % 4 == 0),
    }
    return Request("POST", b"/send-feedback", (("content-type", "application/json"),), json.dumps(body).encode())


def send_over_grpc(server: Microservice, count: int, failed: list[Any]) -> None:
    request = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 2], values=[1, 2])))
    with server.channel() as channel:
        stub = prediction_pb2_grpc.RouterStub(channel)
        for i in range(count):
            response = pb.SeldonMessage(meta=pb.Meta(routing={"eg": i % 2}))
            feedback = pb.Feedback(request=request, response=response, reward=float(i % 4 == 0))
            call = stub.SendFeedback.future(feedback, timeout=60)
            if call.code().name != "OK":
                failed.append((call.code(), call.details()))


def test_no_feedback_of_ten_thousand_is_lost_by_two_workers(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'state'}"
    options = ("--workers", "2", "--persistence", "1", "--state-store", store, "--parameters", BRANCHES)
    failed: list[Any] = []
    with Microservice(
        tmp_path, "servegraph.serving.seldon.bandits.EpsilonGreedy", *options, environment=NAMES
    ) as server:
        server.wait_for("ready: 2 worker")
        clients = [
            threading.Thread(target=send_over_grpc, args=(server, OVER_GRPC // RPC_CLIENTS, failed))
            for _ in range(RPC_CLIENTS)
        ]
        for client in clients:
            client.start()
        answers = exchanged(server.port, [rest_feedback(i) for i in range(OVER_REST)])
        for client in clients:
            client.join()
        assert failed == []
        assert {status for status, _ in answers} == {200}
        total = OVER_REST + OVER_GRPC
        # Only feedback with a reward is counted, and each of those has a reward of 1.
        assert server.total("seldon_api_model_feedback_total") == total / 4
        assert server.total("seldon_api_model_feedback_reward_total") == total / 4
    shares = [json.loads(slot)["counts"] for slot in open_store(store).read_table(f"{KEY}:counts").values()]
    assert [share["0.tries"] + share["1.tries"] > 0 for share in shares] == [True, True]  # both had some of it
    learnt = EpsilonGreedy(2)
    Persistence(learnt, store, KEY).restore()
    assert learnt.branch_tries == [total / 2, total / 2]
    assert learnt.branch_success == [total / 4, 0]
