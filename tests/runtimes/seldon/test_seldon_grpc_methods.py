"""What a component's answers and failures become over gRPC."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import grpc
import numpy as np
import pytest
from google.protobuf import empty_pb2, json_format
from served_grpc import asked, outcome

from servegraph.runtimes.local import LocalApplication
from servegraph.runtimes.seldon.defaults import DEFAULTS
from servegraph.runtimes.seldon.grpc_methods import METADATA_METHODS, METHODS, encoder
from servegraph.runtimes.seldon.microservice import build_microservice
from servegraph.runtimes.seldon.options import MicroserviceOptions
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc
from servegraph.settings import load_settings

HERE = "test_seldon_grpc_methods"
ONE = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[1.0])))


def application_of(name: str, **options: Any) -> LocalApplication:
    settings = load_settings(overrides={"http_port": 0, "grpc.threads": 1}, function=DEFAULTS)
    return build_microservice(MicroserviceOptions(f"{HERE}.{name}", **options).to_dict(), settings, None)


def predicted(name: str, request: Any = ONE) -> tuple[str, Any]:
    """The code of a prediction, and the answer or the details."""

    def ask(channel: Any) -> tuple[str, Any]:
        call = prediction_pb2_grpc.ModelStub(channel).Predict.future(request, timeout=30)
        code = call.code().name
        return code, call.result() if code == "OK" else call.details()

    return asked(application_of(name), ask)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_table_has_every_method_of_the_services_but_that_of_whole_graphs() -> None:
    services = pb.DESCRIPTOR.services_by_name
    there = {f"{service}/{method.name}" for service, each in services.items() for method in each.methods}
    assert there - {*METHODS, *METADATA_METHODS} == {"Seldon/GraphMetadata"}
    assert {*METHODS, *METADATA_METHODS} <= there


# -- answers -----------------------------------------------------------------------------------------------------------


def test_answer_of_each_form_becomes_bytes() -> None:
    message, encoded = pb.SeldonMessage(strData="x"), encoder()
    assert pb.SeldonMessage.FromString(encoded(Message("strData", "x"))).strData == "x"
    assert encoded(message) == encoded(RawAnswer(message)) == message.SerializeToString()


@pytest.mark.parametrize("answer", [None, {"strData": "x"}, RawAnswer({"strData": "x"}), RawAnswer(None), b"x"])
def test_answer_that_is_no_message_is_told_with_its_type(answer: Any) -> None:
    kind = type(answer.value if isinstance(answer, RawAnswer) else answer).__name__
    with pytest.raises(SeldonMicroserviceException, match=f"not {kind}") as caught:
        encoder()(answer)
    assert caught.value.status_code == 500


class Asynchronous:
    async def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        await asyncio.sleep(0)
        return X * 2


def test_component_with_async_methods_answers() -> None:
    code, answer = predicted("Asynchronous")
    assert (code, list(answer.data.tensor.values)) == ("OK", [2.0])


class Low:
    def predict_raw(self, request: Any) -> Any:
        return pb.SeldonMessage(strData=type(request).__name__)


def test_component_of_low_level_gets_and_gives_messages() -> None:
    code, answer = predicted("Low")
    assert (code, answer.strData) == ("OK", "SeldonMessage")


class LowOfRest:
    def predict_raw(self, request: Any) -> Any:
        return {"strData": "x"}


class LowOfNumbers:
    def predict_raw(self, request: Any) -> Any:
        return 3


def test_component_of_low_level_may_give_the_json_of_a_message_and_nothing_else() -> None:
    code, answer = predicted("LowOfRest")
    assert (code, answer.strData) == ("OK", "x")
    code, details = predicted("LowOfNumbers")
    assert (code, "int" in str(details)) == ("INTERNAL", True), details


class Kinds:
    """Says what it is handed."""

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        array = [X.dtype.name, X.flags.writeable] if isinstance(X, np.ndarray) else []
        return {"X": type(X).__name__, "array": array, "names": repr(names), "meta": repr(meta)}


def test_component_is_handed_plain_lists_and_dictionaries() -> None:
    request = json_format.ParseDict(
        {"data": {"names": ["a"], "tensor": {"shape": [1, 1], "values": [1]}}, "meta": {"tags": {"t": 1}}},
        pb.SeldonMessage(),
    )
    code, answer = predicted("Kinds", request)
    told = json_format.MessageToDict(answer.jsonData)
    assert (code, told["X"], told["array"], told["names"]) == ("OK", "ndarray", ["float64", True], "['a']")
    assert told["meta"] == "{'tags': {'t': 1.0}}"
    code, answer = predicted("Kinds", pb.SeldonMessage(binData=b"x"))
    told = json_format.MessageToDict(answer.jsonData)
    assert (told["X"], told["names"], told["meta"]) == ("bytes", "[]", "{}")


# -- failures ----------------------------------------------------------------------------------------------------------


class Router:
    def predict(self, X: Any, names: Any) -> Any:
        return object()


@pytest.mark.parametrize(
    ("service", "method", "request_", "code", "details"),
    [
        ("Router", "Route", ONE, "INVALID_ARGUMENT", "Route not defined"),
        ("Combiner", "Aggregate", pb.SeldonMessageList(seldonMessages=[ONE]), "INVALID_ARGUMENT",
         "Aggregate not defined"),
        ("Model", "Predict", ONE, "INVALID_ARGUMENT", "Unknown data type returned as payload"),
        ("Model", "Predict", pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[2], values=[1.0]))),
         "INVALID_ARGUMENT", "shape"),
    ],
)  # fmt: skip
def test_failure_has_its_code_and_message(service: str, method: str, request_: Any, code: str, details: str) -> None:
    def ask(channel: Any) -> tuple[str, str]:
        stub = getattr(prediction_pb2_grpc, f"{service}Stub")(channel)
        return outcome(getattr(stub, method), request_)

    found, told = asked(application_of("Router"), ask)
    assert (found, details in told) == (code, True), told


def test_bytes_that_are_no_message_are_the_callers_fault() -> None:
    def ask(channel: Any) -> tuple[str, str]:
        return outcome(channel.unary_unary("/seldon.protos.Model/Predict"), b"\xff\xff")

    assert asked(application_of("Router"), ask)[0] == "INVALID_ARGUMENT"


class Busy:
    inside = threading.Event()
    go_on = threading.Event()
    calls: ClassVar[list[float]] = []

    def predict(self, X: Any, names: Any) -> Any:
        self.calls.append(float(X[0, 0]))
        self.inside.set()
        self.go_on.wait(30)
        return X


def test_call_whose_time_is_up_before_its_turn_is_never_made() -> None:
    def ask(channel: Any) -> str:
        stub = prediction_pb2_grpc.ModelStub(channel)
        first = stub.Predict.future(ONE, timeout=30)
        assert Busy.inside.wait(30)
        late = pb.SeldonMessage(data=pb.DefaultData(tensor=pb.Tensor(shape=[1, 1], values=[2.0])))
        code, _ = outcome(stub.Predict, late, timeout=0.2)
        Busy.go_on.set()
        assert first.code() is grpc.StatusCode.OK
        assert outcome(stub.Predict, ONE)[0] == "OK"
        return code

    assert asked(application_of("Busy"), ask) == "DEADLINE_EXCEEDED"
    assert Busy.calls == [1.0, 1.0]


# -- metadata ----------------------------------------------------------------------------------------------------------


class Described:
    def init_metadata(self) -> Any:
        return {"name": "told", "versions": ["v1"], "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2]}]}


class BadlyDescribed:
    def init_metadata(self) -> Any:
        return {"name": 3}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Described", {"name": "told", "versions": ["v1"],
                       "outputs": [{"name": "y", "datatype": "FP32", "shape": ["1", "2"]}]}),
        ("BadlyDescribed", {}),
    ],
)  # fmt: skip
def test_metadata_is_told_by_both_of_its_methods(name: str, told: dict[str, Any]) -> None:
    def ask(channel: Any) -> list[Any]:
        model = prediction_pb2_grpc.ModelStub(channel).Metadata(empty_pb2.Empty(), timeout=30)
        request = pb.SeldonModelMetadataRequest(name="any")
        return [model, prediction_pb2_grpc.SeldonStub(channel).ModelMetadata(request, timeout=30)]

    assert [json_format.MessageToDict(each) for each in asked(application_of(name), ask)] == [told, told]
