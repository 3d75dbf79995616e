from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
import pytest

from servegraph import jsoncodec
from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers import TritonProxy

MakeProxy = Callable[..., TritonProxy]


class Triton:
    """A server of the Open Inference Protocol with two models: one doubles, one adds and subtracts."""

    MODELS: ClassVar = {"double": ["x"], "sums": ["a", "b"]}
    TYPES: ClassVar = {"x": "FP32", "a": "INT64", "b": "INT64"}

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.seen.append((path, body))
        parts = path.strip("/").split("/")
        if parts[:2] != ["v2", "models"] or parts[2] not in self.MODELS:
            return 404, {"error": f"no model {parts[-1]}"}
        if method == "GET":
            return 200, {"name": parts[2], "inputs": [self._described(name) for name in self.MODELS[parts[2]]]}
        if parts[-1] != "infer":
            return 404, {"error": "no such path"}
        arrays = {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in body["inputs"]}
        if parts[2] == "double":
            outputs = {"y": arrays["x"] * 2}
        else:
            outputs = {"more": arrays["a"] + arrays["b"], "less": arrays["a"] - arrays["b"]}
        wanted = [each["name"] for each in body.get("outputs", [])] or list(outputs)
        return 200, {"model_name": parts[2], "outputs": [self._output(name, outputs[name]) for name in wanted]}

    def _described(self, name: str) -> dict[str, Any]:
        return {"name": name, "datatype": self.TYPES[name], "shape": [-1, -1]}

    def _output(self, name: str, array: Any) -> dict[str, Any]:
        datatype = "INT64" if array.dtype.kind == "i" else "FP32"
        return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


@pytest.fixture
def triton() -> Iterator[tuple[Triton, str]]:
    model = Triton()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(*model.answer("GET", self.path, None))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            self.send(*model.answer("POST", self.path, jsoncodec.loads(data)))

        def send(self, status: int, body: Any) -> None:
            data = jsoncodec.dumps(body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield model, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxied(triton: tuple[Triton, str]) -> Iterator[MakeProxy]:
    """Makes proxies to the server."""
    made: list[TritonProxy] = []

    def make(name: str, **options: Any) -> TritonProxy:
        made.append(TritonProxy(name, triton[1], **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_triton_array_is_the_only_input_in_the_type_that_the_model_takes(
    triton: tuple[Triton, str], proxied: MakeProxy
) -> None:
    model, _ = triton
    proxy = proxied("double", model_uri="/mnt/models")
    answer = proxy.predict(np.array([[1, 2]]), [])
    assert answer.tolist() == [[2.0, 4.0]]
    assert answer.dtype == np.float32
    path, body = model.seen[-1]
    assert path == "/v2/models/double/infer"
    assert body["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]
    proxy.predict([[1]], [])
    assert [path for path, _ in model.seen].count("/v2/models/double") == 1


def test_triton_version_is_part_of_the_path(triton: tuple[Triton, str], proxied: MakeProxy) -> None:
    model, _ = triton
    proxied("double", model_version="3").predict([[1]], [])
    assert model.seen[-1][0] == "/v2/models/double/versions/3/infer"


def test_triton_several_inputs_and_outputs_are_json_objects(proxied: MakeProxy) -> None:
    given = {"a": [[5]], "b": [[3]]}
    assert proxied("sums").predict(given, []) == {"more": [[8]], "less": [[2]]}
    assert proxied("sums", model_output="less").predict(given, []).tolist() == [[2]]
    with pytest.raises(SeldonMicroserviceException, match=r"inputs are \['a', 'b'\]: send a JSON object"):
        proxied("sums").predict([[1]], [])
    with pytest.raises(SeldonMicroserviceException, match=r"the request has \['c'\]"):
        proxied("sums").predict({"c": [1]}, [])


def test_triton_request_in_its_own_protocol_goes_there_and_back_as_it_is(
    triton: tuple[Triton, str], proxied: MakeProxy
) -> None:
    model, _ = triton
    body = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [4.0]}]}
    answer = proxied("double").predict(body, [])
    assert answer["outputs"][0]["data"] == [8.0]
    assert model.seen == [("/v2/models/double/infer", body)]


def test_triton_unknown_model_and_missing_name_are_errors(proxied: MakeProxy) -> None:
    with pytest.raises(SeldonMicroserviceException, match="answered 404: no model gone") as caught:
        proxied("gone").predict([[1]], [])
    assert caught.value.status_code == 400
    with pytest.raises(ModelLoadError, match="the parameter model_name is needed"):
        TritonProxy()
