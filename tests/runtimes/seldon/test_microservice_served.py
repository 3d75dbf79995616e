"""The real command with one process: REST, gRPC and metrics of one component."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from seldon_command import Microservice

from servegraph.runtimes.seldon.grpc_methods import METADATA_METHODS, METHODS
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc

COMPONENT = """
import http.server
import os
import threading

from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.user_model import SeldonNotImplementedError, SeldonResponse


class Told:
    made = 0
    loaded = 0

    def __init__(self):
        Told.made += 1
        self.calls = 0

    def load(self):
        Told.loaded += 1

    def custom_service(self):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"of its own")

            def log_message(self, *words):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        print("service of its own at port", server.server_port, flush=True)
        server.serve_forever()

    def predict(self, X, names, meta=None):
        if isinstance(X, dict):
            kind = X["raise"]
            if kind == "plain":
                raise RuntimeError("it broke")
            if kind == "missing":
                raise SeldonNotImplementedError("not today")
            raise SeldonMicroserviceException("as asked", status_code=int(kind), reason="AS_ASKED")
        self.calls += 1
        tags = {"pid": os.getpid(), "me": id(self), "made": self.made, "loaded": self.loaded, "calls": self.calls}
        return SeldonResponse(X, tags=tags, metrics=[{"type": "COUNTER", "key": "predicted", "value": 1}])

    def transform_input(self, X, names):
        return X + 1

    def transform_output(self, X, names):
        return X + 2

    def route(self, X, names):
        return 3

    def aggregate(self, Xs, names):
        return sum(Xs)

    def send_feedback(self, X, names, reward, truth, routing=None):
        return [[reward]]

    def init_metadata(self):
        return {"name": "told", "versions": ["v1"]}
"""
OWN_SERVICE = r"service of its own at port (\d+)"
WORDS: dict[str, Any] = {"data": {"ndarray": [[1.0, 2.0]]}}
ONE = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[1.0])))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Microservice]:
    with Microservice(tmp_path_factory.mktemp("told"), "Told", "--threads", "8", code=COMPONENT) as service:
        yield service


@pytest.fixture(scope="module")
def channel(served: Microservice) -> Iterator[Any]:
    with served.channel() as opened:
        yield opened


def values(message: Any) -> list[float]:
    return list(message.data.tensor.values)


# -- one process -------------------------------------------------------------------------------------------------------


def test_rest_grpc_and_metrics_are_of_one_object_in_one_process(served: Microservice, channel: Any) -> None:
    before = served.total("predicted_total")
    rest = served.predict(WORDS)["meta"]["tags"]
    rpc = json_format.MessageToDict(prediction_pb2_grpc.ModelStub(channel).Predict(ONE, timeout=30).meta.tags["me"])
    assert served.workers() == []
    assert rest["pid"] == served.process.pid
    assert (rest["made"], rest["loaded"]) == (1, 1)
    assert rpc == rest["me"]
    assert served.predict(WORDS)["meta"]["tags"]["calls"] == rest["calls"] + 2
    assert served.total("predicted_total") == before + 3


def test_counters_are_exact_under_eight_threads_of_rest_and_grpc(served: Microservice) -> None:
    each = 150
    counters = [
        f"{name}_total" for name in ("predicted", "seldon_api_model_feedback", "seldon_api_model_feedback_reward")
    ]
    before = [served.total(name) for name in counters]
    start = threading.Barrier(9)
    done: list[int] = []

    def over_rest() -> None:
        start.wait()
        done.append(
            sum(served.ask("/predict", WORDS).status == 200 for _ in range(each // 3))
            + sum(served.ask("/send-feedback", {"reward": 1}).status == 200 for _ in range(each // 3))
        )

    def over_grpc() -> None:
        with served.channel() as opened:
            stub = prediction_pb2_grpc.SeldonStub(opened)
            start.wait()
            for _ in range(each):
                stub.Predict(ONE, timeout=30)
                stub.SendFeedback(pb.Feedback(reward=1), timeout=30)
            done.append(2 * each)

    threads = [threading.Thread(target=work) for work in (over_rest, over_grpc) * 4]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        assert served.total("predicted_total") >= before[0]  # scraped meanwhile
    assert sorted(done) == [2 * (each // 3)] * 4 + [2 * each] * 4
    counted = 4 * (each + each // 3)
    assert [served.total(name) - already for name, already in zip(counters, before, strict=True)] == [counted] * 3


def test_service_of_the_components_own_runs_beside_it(served: Microservice) -> None:
    served.wait_for(OWN_SERVICE)
    (port,) = re.findall(OWN_SERVICE, served.log())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        assert answer.read() == b"of its own"


# -- gRPC --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, *METADATA_METHODS])
def test_every_method_of_every_service_answers(channel: Any, method: str) -> None:
    service, name = method.split("/")
    call = getattr(getattr(prediction_pb2_grpc, f"{service}Stub")(channel), name)
    request: Any = {
        "Aggregate": pb.SeldonMessageList(seldonMessages=[ONE, ONE]),
        "SendFeedback": pb.Feedback(request=ONE, reward=0.5),
        "Metadata": empty_pb2.Empty(),
        "ModelMetadata": pb.SeldonModelMetadataRequest(name="any"),
    }.get(name, ONE)
    answer = call(request, timeout=30)
    if "Metadata" in name:
        assert (answer.name, list(answer.versions)) == ("told", ["v1"])
        return
    expected = {
        "Predict": 1,
        "TransformInput": 2,
        "TransformOutput": 3,
        "Route": 3,
        "Aggregate": 2,
        "SendFeedback": 0.5,
    }
    assert values(answer) == [expected[name]]


def test_metadata_of_a_graph_is_not_a_components(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        prediction_pb2_grpc.SeldonStub(channel).GraphMetadata(empty_pb2.Empty(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_shows_all_services_with_their_messages(channel: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = {f"seldon.protos.{name}" for name in
                ("Generic", "Model", "Router", "Transformer", "OutputTransformer", "Combiner", "Seldon")}  # fmt: skip
    assert services <= set(database.get_services())
    assert "grpc.health.v1.Health" in database.get_services()
    file = database.FindFileContainingSymbol("seldon.protos.Generic")
    methods = {service.name: [m.name for m in service.method] for service in file.service}
    assert methods["Generic"] == ["TransformInput", "TransformOutput", "Route", "Aggregate", "SendFeedback"]
    assert [(f.name, f.number) for m in file.message_type if m.name == "SeldonMessage" for f in m.field] == [
        ("status", 1), ("meta", 2), ("data", 3), ("binData", 4), ("strData", 5), ("jsonData", 6), ("customData", 7),
    ]  # fmt: skip


def test_health_is_told_of_the_whole_and_of_each_service(channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "seldon.protos.Model", "seldon.protos.Seldon", "seldon.protos.Combiner"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="seldon.protos.Nothing"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_message_of_more_than_four_mebibytes_is_refused(channel: Any) -> None:
    stub = prediction_pb2_grpc.ModelStub(channel)
    small = 4 * 1024**2 - 100
    assert len(stub.Predict(pb.SeldonMessage(strData="x" * small), timeout=30).strData) == small
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(pb.SeldonMessage(strData="x" * 5_000_000), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


STATUSES = {
    "400": "INVALID_ARGUMENT", "401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED", "404": "NOT_FOUND",
    "409": "ABORTED", "422": "INVALID_ARGUMENT", "429": "RESOURCE_EXHAUSTED", "500": "INTERNAL",
    "501": "UNIMPLEMENTED", "503": "UNAVAILABLE", "504": "DEADLINE_EXCEEDED", "200": "INTERNAL",
}  # fmt: skip


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_failure_with_a_status_has_it_on_rest_and_its_code_on_grpc(
    served: Microservice, channel: Any, status: str, code: str
) -> None:
    found, info, reason = failure(served, status)
    assert (found, info, reason) == (int(status), "as asked", "AS_ASKED")
    assert rpc_failure(channel, status) == (code, "as asked", "AS_ASKED")


def test_failure_without_a_status_is_a_fault_on_both(served: Microservice, channel: Any) -> None:
    assert failure(served, "plain") == (500, "it broke", "MICROSERVICE_INTERNAL_ERROR")
    assert rpc_failure(channel, "plain") == ("INTERNAL", "it broke", "MICROSERVICE_INTERNAL_ERROR")
    served.wait_for("RuntimeError: it broke", 2)


def test_method_that_says_it_is_not_there_counts_as_missing_on_both(served: Microservice, channel: Any) -> None:
    answer = served.predict({"jsonData": {"raise": "missing"}})
    assert answer["data"]["tensor"]["values"] == []
    request = json_format.ParseDict({"jsonData": {"raise": "missing"}}, pb.SeldonMessage())
    reply = prediction_pb2_grpc.ModelStub(channel).Predict(request, timeout=30)
    assert (reply.WhichOneof("data_oneof"), values(reply)) == ("data", [])


def failure(served: Microservice, kind: str) -> tuple[int, str, str]:
    answer = served.ask("/predict", {"jsonData": {"raise": kind}})
    status = json.loads(answer.body)["status"]
    assert (status["code"], status["status"]) == (-1, 1)
    return answer.status, status["info"], status["reason"]


def rpc_failure(channel: Any, kind: str) -> tuple[str, str, str]:
    request = json_format.ParseDict({"jsonData": {"raise": kind}}, pb.SeldonMessage())
    with pytest.raises(grpc.RpcError) as caught:
        prediction_pb2_grpc.ModelStub(channel).Predict(request, timeout=30)
    trailing = dict(caught.value.trailing_metadata())
    return caught.value.code().name, caught.value.details(), trailing["reason"]


# -- two workers -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_serve_rest_and_grpc_and_one_of_them_the_service_of_its_own(tmp_path: Path) -> None:
    with Microservice(tmp_path, "Told", "--workers", "2", code=COMPONENT) as service:
        service.wait_for("ready: 2 worker")
        pids = set(service.workers())
        assert len(pids) == 2
        over_rest: Counter[int] = Counter()
        over_grpc: Counter[int] = Counter()
        for _ in range(200):
            over_rest[service.predict(WORDS)["meta"]["tags"]["pid"]] += 1
            with service.channel() as opened:
                answer = prediction_pb2_grpc.ModelStub(opened).Predict(ONE, timeout=30)
                over_grpc[int(answer.meta.tags["pid"].number_value)] += 1
            if set(over_rest) == pids == set(over_grpc):
                break
        assert set(over_rest) == pids == set(over_grpc)
        assert service.total("predicted_total") == over_rest.total() + over_grpc.total()
        assert len(re.findall(OWN_SERVICE, service.log())) == 1
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
