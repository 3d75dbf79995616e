"""The tools and the gRPC servicer that scripts import from ``seldon_core``, against real servers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from seldon_peer import Answer, Asked, echo, seldon_peer

from servegraph.errors import SettingsError
from servegraph.runtimes.seldon.compat import api_tester, batch_processor, microservice, microservice_tester
from servegraph.runtimes.seldon.compat.metrics import SeldonMetrics
from servegraph.runtimes.seldon.compat.wrapper import SeldonModelGRPC, get_grpc_server
from servegraph.serving.seldon.compat import utils
from servegraph.serving.seldon.errors import SeldonMicroserviceException

grpc = pytest.importorskip("grpc")

from google.protobuf import empty_pb2  # noqa: E402

from servegraph.serving.seldon.proto import prediction_pb2 as pb  # noqa: E402
from servegraph.serving.seldon.proto import prediction_pb2_grpc  # noqa: E402

CONTRACT: dict[str, Any] = {
    "features": [
        {"name": "x", "ftype": "continuous", "dtype": "FLOAT", "range": [0, 1], "repeat": 2},
        {"name": "kind", "ftype": "categorical", "values": ["a", "b"]},
    ],
    "targets": [{"name": "class", "ftype": "continuous", "dtype": "FLOAT", "range": [0, 1], "repeat": 2}],
}
both = pytest.mark.parametrize("transport", ["rest", "grpc"])


def arguments(tmp_path: Path, address: str, **more: Any) -> SimpleNamespace:
    """What the parsers of Seldon's commands give."""
    file = tmp_path / "contract.json"
    file.write_text(json.dumps({**CONTRACT, "features": CONTRACT["features"][:1]}))
    host, _, port = address.rpartition(":")
    told = {"contract": str(file), "host": host, "port": int(port), "batch_size": 3, "n_requests": 2, "tensor": False}
    return SimpleNamespace(**{**told, "prnt": True, "deployment": "iris", "namespace": "ns", **more})


# -- testers -----------------------------------------------------------------------------------------------------------


def test_batches_are_made_of_a_contract_that_is_written_out() -> None:
    whole = microservice_tester.unfold_contract(CONTRACT)
    assert microservice_tester.get_class_names(whole) == ["x1", "x2", "kind"]
    assert [target["name"] for target in whole["targets"]] == ["class:0", "class:1"]
    assert all("repeat" not in column for column in (*whole["features"], *whole["targets"]))
    batch = microservice_tester.generate_batch(whole, 5, "features")
    assert batch.shape == (5, 3)
    assert set(batch[:, 2]) <= {"a", "b"}
    assert all(0 <= value <= 1 for value in batch[:, :2].ravel())
    assert microservice_tester.generate_batch(whole, 5, "targets").shape == (5, 2)
    with pytest.raises(microservice_tester.SeldonTesterException, match="features must be a list"):
        microservice_tester.generate_batch({"features": 3}, 1, "features")


def classes(asked: Asked) -> Answer:
    message = asked.json
    if "data" not in message:
        return Answer({"meta": {}})
    data = message["data"]
    rows = int(data["tensor"]["shape"][0]) if "tensor" in data else len(data["ndarray"])
    return Answer({"meta": {}, "data": {"names": ["a", "b"], "ndarray": [[0.25, 0.75]] * rows}})


@both
def test_component_is_tested_by_its_contract(
    tmp_path: Path, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with seldon_peer(classes) as peer:
        args = arguments(tmp_path, peer.grpc if transport == "grpc" else peer.http, grpc=transport == "grpc")
        microservice_tester.run_method(args, "predict")
        microservice_tester.run_send_feedback(args)
    assert len(peer.asked) == 4
    assert len(peer.asked[0].json["data"]["ndarray"]) == 3
    assert {"request", "reward"} <= set(peer.asked[-1].json)
    shown = capsys.readouterr().out
    assert shown.count("SENDING NEW REQUEST") == shown.count("RECEIVED RESPONSE") == 4


@both
def test_deployment_is_tested_through_its_gateway(tmp_path: Path, transport: str) -> None:
    with seldon_peer(classes) as peer:
        args = arguments(
            tmp_path, peer.grpc if transport == "grpc" else peer.http, grpc=transport == "grpc", tensor=True
        )
        api_tester.run_predict(args)
        api_tester.run_send_feedback(args)
        with api_tester.get_seldon_client(args) as client:
            assert client.predict(data=np.ones((1, 2))).success
    if transport == "rest":
        assert peer.asked[0].path == "/seldon/ns/iris/api/v1.0/predictions"
        assert peer.asked[3].path == "/seldon/ns/iris/api/v1.0/feedback"
    assert peer.asked[0].json["data"]["tensor"]["shape"] == [3, 2]


def test_failed_test_is_an_error(tmp_path: Path) -> None:
    with seldon_peer(lambda asked: Answer({"status": {"info": "no"}}, 500)) as peer:
        args = arguments(tmp_path, peer.http, grpc=False, prnt=False)
        with pytest.raises(microservice_tester.SeldonTesterException, match=r"request 1: .*no"):
            microservice_tester.run_method(args, "predict")
        args.contract = str(tmp_path / "none.json")
        with pytest.raises(microservice_tester.SeldonTesterException, match=r"none\.json cannot be read"):
            api_tester.run_predict(args)


@pytest.mark.parametrize("module", [microservice_tester, api_tester, batch_processor])
def test_commands_end_with_their_usage(module: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["seldon", "--help"])
    with pytest.raises(SystemExit) as ended:
        (module.run_cli if module is batch_processor else module.main)()
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


# -- batches -----------------------------------------------------------------------------------------------------------


def batch(tmp_path: Path, host: str, **more: Any) -> dict[str, Any]:
    (tmp_path / "in.txt").write_text("[[1.0]]\n[[2.0]]\n")
    told = {
        "deployment_name": "iris", "gateway_type": "istio", "namespace": "ns", "host": host, "transport": "rest",
        "data_type": "data", "payload_type": "ndarray", "workers": 2, "retries": 1, "batch_size": 1,
        "input_data_path": str(tmp_path / "in.txt"), "output_data_path": str(tmp_path / "out.txt"),
        "method": "predict", "log_level": "info", "benchmark": True, "batch_id": "b", "batch_interval": 0,
        "call_credentials_token": "", "use_ssl": False, "ssl_verify": True,
    }  # fmt: skip
    return {**told, **more}


@pytest.mark.parametrize("by_name", [True, False])
def test_lines_are_sent_and_answers_written(tmp_path: Path, by_name: bool, caplog: pytest.LogCaptureFixture) -> None:
    with seldon_peer(echo) as peer, caplog.at_level(logging.INFO, "servegraph"):
        told = batch(tmp_path, peer.http)
        if by_name:
            batch_processor.start_multithreaded_batch_worker(**told)
        else:
            batch_processor.start_multithreaded_batch_worker(*told.values())
    found = [json.loads(line) for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert [line["data"]["ndarray"] for line in found] == [[[1.0]], [[2.0]]]
    assert "elapsed time" in caplog.text


def test_options_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no option 'worker'; did you mean 'workers'"):
        batch_processor.start_multithreaded_batch_worker(worker=1)
    told = batch(tmp_path, "localhost:1", use_ssl=True, ssl_verify=False)
    with pytest.raises(SettingsError, match="ssl_verify: certificates are always checked"):
        batch_processor.start_multithreaded_batch_worker(**told)
    with pytest.raises(SettingsError, match="method=feedback needs data_type=raw"):
        batch_processor.start_multithreaded_batch_worker(**batch(tmp_path, "localhost:1", method="feedback"))


# -- gRPC --------------------------------------------------------------------------------------------------------------


class Model:
    def predict(self, X: Any, names: Any) -> Any:
        if X[0][0] < 0:
            raise SeldonMicroserviceException("below zero")
        return X * 2

    def transform_input(self, X: Any, names: Any) -> Any:
        return X + 1

    def transform_output(self, X: Any, names: Any) -> Any:
        return X - 1

    def route(self, X: Any, names: Any) -> int:
        return 1

    def aggregate(self, values: Any, names: Any) -> Any:
        return np.sum(values, axis=0)

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> Any:
        return [[reward, -1 if routing is None else routing]]

    def init_metadata(self) -> dict[str, Any]:
        return {"name": "doubler"}

    def metrics(self) -> Any:
        return [{"type": "COUNTER", "key": "calls", "value": 1}]


def message(value: float) -> Any:
    return pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[value])))


def test_servicer_answers_without_a_server() -> None:
    metrics = SeldonMetrics()
    servicer = SeldonModelGRPC(Model(), metrics)
    request = message(3.0)
    for method, wanted in (("Predict", 6.0), ("TransformInput", 4.0), ("TransformOutput", 2.0), ("Route", 1.0)):
        answer = getattr(servicer, method)(request, None)
        assert utils.get_data_from_proto(answer).tolist() == [[wanted]], method
    both = pb.SeldonMessageList(seldonMessages=[request, request])
    assert utils.get_data_from_proto(servicer.Aggregate(both, None)).tolist() == [[6.0]]
    assert servicer.Metadata(None, None).name == servicer.ModelMetadata(None, None).name == "doubler"
    with pytest.raises(NotImplementedError, match="GraphMetadata"):
        servicer.GraphMetadata(None, None)
    with pytest.raises(SeldonMicroserviceException, match="below zero"):
        servicer.Predict(message(-1.0), None)
    assert "calls_total" in metrics.generate_metrics()[0]


def test_feedback_finds_the_route_of_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTIVE_UNIT_ID", "me")
    servicer = SeldonModelGRPC(Model(), SeldonMetrics())
    response = pb.SeldonMessage(meta=pb.Meta(routing={"me": 2}))
    answer = servicer.SendFeedback(pb.Feedback(request=message(1.0), response=response, reward=0.5), None)
    assert utils.get_data_from_proto(answer).tolist() == [[0.5, 2.0]]


def test_server_has_all_services() -> None:
    annotations = {"seldon.io/grpc-max-message-size": "10000"}
    server = get_grpc_server(Model(), SeldonMetrics(), annotations, num_threads=2)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stubs = prediction_pb2_grpc
            request = message(3.0)
            calls: list[tuple[Any, float]] = [
                (stubs.ModelStub(channel).Predict, 6.0),
                (stubs.SeldonStub(channel).Predict, 6.0),
                (stubs.GenericStub(channel).TransformInput, 4.0),
                (stubs.TransformerStub(channel).TransformInput, 4.0),
                (stubs.OutputTransformerStub(channel).TransformOutput, 2.0),
                (stubs.RouterStub(channel).Route, 1.0),
            ]
            for call, wanted in calls:
                assert utils.get_data_from_proto(call(request, timeout=20)).tolist() == [[wanted]]
            both = pb.SeldonMessageList(seldonMessages=[request, request])
            combiner: Any = stubs.CombinerStub(channel)
            assert utils.get_data_from_proto(combiner.Aggregate(both, timeout=20)).tolist() == [[6.0]]
            model: Any = stubs.ModelStub(channel)
            assert model.Metadata(empty_pb2.Empty(), timeout=20).name == "doubler"
            large = pb.SeldonMessage(binData=b"x" * 20_000)
            with pytest.raises(grpc.RpcError) as failed:
                model.Predict(large, timeout=20)
            assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        server.stop(None).wait()


def test_arrays_are_where_components_of_old_releases_look() -> None:
    data = microservice.array_to_rest_datadef("tensor", np.ones((1, 2)))
    assert microservice.rest_datadef_to_array(data).tolist() == [[1.0, 1.0]]
    proto = microservice.array_to_grpc_datadef("ndarray", np.ones((1, 2)))
    assert microservice.grpc_datadef_to_array(proto).tolist() == [[1.0, 1.0]]
    assert microservice.get_data_from_proto(pb.SeldonMessage(strData="x")) == "x"
