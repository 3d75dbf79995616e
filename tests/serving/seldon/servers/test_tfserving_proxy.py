from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servegraph import jsoncodec
from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers import TfServingProxy
from servegraph.serving.seldon.servers.tfserving_grpc import (
    METHOD,
    PREDICT_REQUEST,
    PREDICT_RESPONSE,
    array_to_tensor,
    message_class,
    tensor_to_array,
)

grpc = pytest.importorskip("grpc")


class Serving:
    """What TensorFlow Serving answers for a model that doubles its input."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.requests: list[Any] = []
        self.outputs: tuple[str, ...] = ("y",)
        self.rest_answer: tuple[int, bytes] | None = None

    def rest(self, path: str, data: bytes) -> tuple[int, bytes]:
        body = jsoncodec.loads(data)
        self.bodies.append(body)
        if self.rest_answer is not None:
            return self.rest_answer
        if path != "/v1/models/double:predict":
            return 404, jsoncodec.dumps({"error": f"Could not find {path}"})
        return 200, jsoncodec.dumps({"predictions": (np.array(body["instances"]) * 2).tolist()})

    def predict(self, data: bytes, context: Any) -> bytes:
        request = message_class(PREDICT_REQUEST).FromString(data)
        self.requests.append(request)
        if request.model_spec.name != "double":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        if request.model_spec.signature_name == "broken":
            context.abort(grpc.StatusCode.INTERNAL, "it broke")
        answer = message_class(PREDICT_RESPONSE)()
        array = tensor_to_array(request.inputs[0].value)
        for name in self.outputs:
            answer.outputs.add(key=name, value=array_to_tensor(array * 2))
        encoded: bytes = answer.SerializeToString()
        return encoded


@pytest.fixture
def serving() -> Iterator[tuple[Serving, str, str]]:
    """The server, with its REST and its gRPC address."""
    model = Serving()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, body = model.rest(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def service(_: Any, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(model.predict) if call.method == METHOD else None

    methods = type("Methods", (grpc.GenericRpcHandler,), {"service": service})
    rest = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    rest.daemon_threads = True
    thread = threading.Thread(target=rest.serve_forever, args=(0.02,))
    thread.start()
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((methods(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield model, f"http://127.0.0.1:{rest.server_port}", f"127.0.0.1:{port}"
    server.stop(None).wait()
    rest.shutdown()
    thread.join()
    rest.server_close()


def ask(proxy: TfServingProxy, payload: dict[str, Any]) -> Any:
    try:
        return Component(proxy).call("predict", payload)
    finally:
        proxy.close()


def grpc_ask(proxy: TfServingProxy, payload: dict[str, Any]) -> Any:
    from google.protobuf import json_format

    from servegraph.serving.seldon.proto import prediction_pb2

    request = json_format.ParseDict(payload, prediction_pb2.SeldonMessage())
    try:
        return Component(proxy).call("predict", request.SerializeToString(), "grpc").value
    finally:
        proxy.close()


def test_proxy_takes_upstream_parameters_with_their_defaults() -> None:
    proxy = TfServingProxy(model_name="m", model_uri="gs://x/y", model_input="i", model_output="o")
    assert proxy.signature_name == "serving_default"
    assert proxy._rest.endpoint == "http://0.0.0.0:2001"
    assert proxy._grpc is not None
    assert proxy._grpc.endpoint == "0.0.0.0:2000"
    with pytest.raises(ModelLoadError, match="the parameter model_name is needed"):
        TfServingProxy()


def test_rest_array_goes_as_instances_and_predictions_come_back(serving: tuple[Serving, str, str]) -> None:
    model, rest, address = serving
    proxy = TfServingProxy(rest, address, "double")
    assert np.array_equal(ask(proxy, {"data": {"ndarray": [[1, 2]]}}).value, [[2, 4]])
    assert model.bodies[-1] == {"instances": [[1, 2]], "signature_name": "serving_default"}
    assert model.requests == []


def test_rest_predictions_of_one_dimension_are_wrapped(serving: tuple[Serving, str, str]) -> None:
    _, rest, address = serving
    assert np.array_equal(ask(TfServingProxy(rest, address, "double"), {"data": {"ndarray": [1, 2]}}).value, [[2, 4]])


def test_rest_json_object_goes_there_and_back_as_it_is(serving: tuple[Serving, str, str]) -> None:
    model, rest, address = serving
    answer = ask(TfServingProxy(rest, address, "double"), {"jsonData": {"instances": [[3]], "own": 1}})
    assert (answer.kind, answer.value) == ("jsonData", {"predictions": [[6]]})
    assert model.bodies[-1] == {"instances": [[3]], "own": 1}


def test_rest_several_outputs_are_one_when_it_is_named(serving: tuple[Serving, str, str]) -> None:
    model, rest, address = serving
    model.rest_answer = 200, b'{"predictions": [{"a": [1, 2], "b": [3]}]}'
    payload = {"data": {"ndarray": [[1]]}}
    assert np.array_equal(ask(TfServingProxy(rest, address, "double", model_output="a"), payload).value, [[1, 2]])
    answer = ask(TfServingProxy(rest, address, "double"), payload)
    assert answer.value == {"predictions": [{"a": [1, 2], "b": [3]}]}


@pytest.mark.parametrize(
    ("answer", "status", "info"),
    [
        ((400, b'{"error": "wrong shape"}'), 400, "answered 400: wrong shape"),
        ((500, b'{"error": "it broke"}'), 502, "answered 500: it broke"),
        ((200, b"<html>"), 502, "answered 200 with something else than JSON"),
        ((200, b"{}"), 502, "gave no predictions"),
    ],
)
def test_rest_failures_keep_whose_fault_they_are(
    serving: tuple[Serving, str, str], answer: tuple[int, bytes], status: int, info: str
) -> None:
    model, rest, address = serving
    model.rest_answer = answer
    with pytest.raises(SeldonMicroserviceException, match=info) as caught:
        ask(TfServingProxy(rest, address, "double"), {"data": {"ndarray": [[1]]}})
    assert caught.value.status_code == status


def test_rest_server_that_is_not_there_is_a_bad_gateway(free_port: int) -> None:
    proxy = TfServingProxy(f"127.0.0.1:{free_port}", "", "double")
    with pytest.raises(SeldonMicroserviceException, match="cannot be reached") as caught:
        ask(proxy, {"data": {"ndarray": [[1]]}})
    assert caught.value.status_code == 502


def test_grpc_array_is_the_named_input_as_floats(serving: tuple[Serving, str, str]) -> None:
    model, rest, address = serving
    proxy = TfServingProxy(rest, address, "double", model_input="x", model_output="y")
    payload = {"meta": {"puid": "p"}, "data": {"tensor": {"shape": [1, 2], "values": [1.5, 2]}}}
    answer = grpc_ask(proxy, payload)
    assert list(answer.data.tensor.values) == [3.0, 4.0]
    assert answer.meta.puid == "p"
    sent = model.requests[-1]
    assert (sent.model_spec.name, sent.model_spec.signature_name) == ("double", "serving_default")
    assert sent.inputs[0].key == "x"
    assert tensor_to_array(sent.inputs[0].value).dtype == np.float32
    assert model.bodies == []


def test_grpc_tftensor_keeps_its_type_and_is_mirrored(serving: tuple[Serving, str, str]) -> None:
    model, rest, address = serving
    proxy = TfServingProxy(rest, address, "double", model_input="x")
    shape = {"dim": [{"size": "1"}, {"size": "2"}]}
    answer = grpc_ask(
        proxy, {"data": {"tftensor": {"dtype": "DT_DOUBLE", "tensorShape": shape, "doubleVal": [1.0, 2.0]}}}
    )
    assert answer.data.WhichOneof("data_oneof") == "tftensor"
    assert tensor_to_array(model.requests[-1].inputs[0].value).dtype == np.float64


def test_grpc_packed_request_goes_there_and_its_answer_comes_back(serving: tuple[Serving, str, str]) -> None:
    from google.protobuf.any_pb2 import Any as Packed

    from servegraph.serving.seldon.proto import prediction_pb2

    model, rest, address = serving
    request = message_class(PREDICT_REQUEST)()
    request.model_spec.name = "double"
    request.inputs.add(key="mine", value=array_to_tensor(np.array([[7.0]])))
    packed = Packed(type_url=f"type.googleapis.com/{PREDICT_REQUEST}", value=request.SerializeToString())
    proxy = TfServingProxy(rest, address, "double")
    component = Component(proxy)
    source = prediction_pb2.SeldonMessage(customData=packed).SerializeToString()
    answer = component.call("predict", source, "grpc").value
    assert answer.customData.type_url == f"type.googleapis.com/{PREDICT_RESPONSE}"
    response = message_class(PREDICT_RESPONSE).FromString(answer.customData.value)
    assert tensor_to_array(response.outputs[0].value).tolist() == [[14.0]]
    assert model.requests[-1].inputs[0].key == "mine"
    packed.type_url = "type.googleapis.com/other.Message"
    source = prediction_pb2.SeldonMessage(customData=packed).SerializeToString()
    with pytest.raises(SeldonMicroserviceException, match=r"to hold a tensorflow.serving.PredictRequest, not a other"):
        component.call("predict", source, "grpc")
    proxy.close()


def test_grpc_json_and_a_proxy_without_grpc_go_over_rest(serving: tuple[Serving, str, str]) -> None:
    model, rest, address = serving
    answer = grpc_ask(TfServingProxy(rest, address, "double"), {"jsonData": {"instances": [[3]]}})
    assert answer == {"predictions": [[6]]}
    answer = grpc_ask(TfServingProxy(rest, "", "double"), {"data": {"ndarray": [[3]]}})
    assert np.array_equal(answer, [[6]])
    assert model.requests == []


@pytest.mark.parametrize(
    ("options", "status", "info"),
    [
        ({"model_name": "gone", "model_input": "x"}, 400, "answered NOT_FOUND: Servable not found"),
        ({"model_name": "double", "model_input": "x", "signature_name": "broken"}, 502, "answered INTERNAL: it broke"),
        ({"model_name": "double"}, 500, "the parameter model_input is needed"),
        ({"model_name": "double", "model_input": "x", "model_output": "z"}, 500, r"outputs are \['y', 'y2'\]"),
    ],
)
def test_grpc_failures_keep_whose_fault_they_are(
    serving: tuple[Serving, str, str], options: dict[str, Any], status: int, info: str
) -> None:
    model, rest, address = serving
    model.outputs = ("y", "y2")
    with pytest.raises(SeldonMicroserviceException, match=info) as caught:
        grpc_ask(TfServingProxy(rest, address, **options), {"data": {"ndarray": [[1]]}})
    assert caught.value.status_code == status


NUMBERS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


@given(st.sampled_from(NUMBERS).flatmap(lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, min_side=0))))
def test_tensors_of_numbers_come_back_as_they_were(array: Any) -> None:
    found = tensor_to_array(type(array_to_tensor(array)).FromString(array_to_tensor(array).SerializeToString()))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


def test_tensors_of_texts_and_of_single_values_are_read() -> None:
    assert tensor_to_array(array_to_tensor(np.array([["a", "ü"]]))).tolist() == [["a", "ü"]]
    tensor = array_to_tensor(np.zeros((2, 2), "float32"))
    tensor.tensor_content = b""
    tensor.float_val.append(5.0)
    assert tensor_to_array(tensor).tolist() == [[5.0, 5.0], [5.0, 5.0]]
    tensor.float_val.extend([1.0] * 7)
    with pytest.raises(SeldonMicroserviceException, match="is malformed"):
        tensor_to_array(tensor)
    with pytest.raises(SeldonMicroserviceException, match="takes no array of complex128"):
        array_to_tensor(np.array([1j]))
