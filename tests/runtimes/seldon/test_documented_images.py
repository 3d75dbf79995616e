"""Images as documents build and start them: PrimeHub's Dockerfiles, and the proxy for TensorFlow Serving."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from seldon_command import Microservice

from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc
from servegraph.serving.seldon.servers.tfserving_grpc import (
    METHOD,
    PREDICT_REQUEST,
    PREDICT_RESPONSE,
    array_to_tensor,
    message_class,
    tensor_to_array,
)

pytestmark = pytest.mark.slow

ROWS: dict[str, Any] = {"data": {"names": ["a", "b"], "ndarray": [[1.0, 2.0], [3.0, 4.0]]}}
PRIMEHUB_MODEL = """
from seldon_core.user_model import SeldonComponent


class Model(SeldonComponent):
    def __init__(self, model_uri=None):
        self.model_uri = model_uri
        self.ready = False
        self.loaded = 0
        self.load = self.bring
        self.load()

    def bring(self):
        self.loaded += 1
        self.ready = True

    def predict(self, X, feature_names=None, meta=None):
        return f"Hello Model at {self.model_uri}, loaded {self.loaded} times"
"""
DOCKERFILES = {
    "with an interface": """
FROM python:3.7-slim
COPY . /app
WORKDIR /app
RUN pip install -r requirements.txt
EXPOSE 5000
ENV MODEL_NAME Model
ENV API_TYPE REST
ENV SERVICE_TYPE MODEL
ENV PERSISTENCE 0
CMD exec seldon-core-microservice $MODEL_NAME $API_TYPE --service-type $SERVICE_TYPE --persistence $PERSISTENCE
""",
    "of today": """
FROM python:3.7-slim
EXPOSE 5000
EXPOSE 9000
ENV MODEL_NAME Model
ENV SERVICE_TYPE MODEL
ENV PERSISTENCE 0
CMD exec seldon-core-microservice $MODEL_NAME --service-type $SERVICE_TYPE --persistence $PERSISTENCE --access-log
""",
}


def over_grpc(service: Microservice) -> dict[str, Any]:
    """The answer to a prediction of the rows."""
    request = json_format.ParseDict(ROWS, pb.SeldonMessage())
    with service.channel() as channel:
        answer = prediction_pb2_grpc.SeldonStub(channel).Predict(request, timeout=30)
    told: dict[str, Any] = json_format.MessageToDict(answer)
    return told


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_folder_of_primehub_is_served_by_the_command_of_its_dockerfile(tmp_path: Path, dockerfile: str) -> None:
    (tmp_path / "Model.py").write_text(PRIMEHUB_MODEL)
    lines = [line.partition(" ") for line in DOCKERFILES[dockerfile].splitlines()]
    variables = dict(text.split(" ", 1) for word, _, text in lines if word == "ENV")
    variables["PREDICTIVE_UNIT_PARAMETERS"] = '[{"name": "model_uri", "value": "/mnt/models", "type": "STRING"}]'
    (shell,) = (text for word, _, text in lines if word == "CMD")
    with Microservice(tmp_path, "Model", environment=variables, shell=shell) as service:
        for _ in range(2):
            answer = service.predict(ROWS, "/api/v1.0/predictions")
            assert answer["strData"] == "Hello Model at /mnt/models, loaded 2 times"
        assert over_grpc(service)["strData"] == answer["strData"]
        if "--access-log" in shell:
            service.wait_for(r"POST /api/v1\.0/predictions.* 200", 2)


class Doubling:
    """What TensorFlow Serving answers for a model that doubles its input."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.specs: list[tuple[str, str, str]] = []

    def predict(self, data: bytes, context: Any) -> bytes:
        request = message_class(PREDICT_REQUEST).FromString(data)
        self.specs.append((request.model_spec.name, request.model_spec.signature_name, request.inputs[0].key))
        answer = message_class(PREDICT_RESPONSE)()
        for name, factor in (("other", 3), ("scores", 2)):
            answer.outputs.add(key=name, value=array_to_tensor(tensor_to_array(request.inputs[0].value) * factor))
        encoded: bytes = answer.SerializeToString()
        return encoded


@pytest.fixture
def serving() -> Iterator[tuple[Doubling, str, str]]:
    """The server, with its REST and its gRPC address."""
    model = Doubling()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            model.paths.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = json.dumps({"predictions": (np.array(body["instances"]) * 2).tolist()}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def service(_: Any, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(model.predict) if call.method == METHOD else None

    methods = type("Methods", (grpc.GenericRpcHandler,), {"service": service})
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,)).start()
        rpc = grpc.server(ThreadPoolExecutor(2), handlers=[methods()])
        port = rpc.add_insecure_port("127.0.0.1:0")
        rpc.start()
        yield model, f"http://127.0.0.1:{web.server_port}", f"127.0.0.1:{port}"
        rpc.stop(None).wait()
        web.shutdown()


@pytest.mark.parametrize("name", ["TfServingProxy", "TfServingProxy.TfServingProxy"])
def test_proxy_for_tensorflow_serving_takes_its_parameters(
    tmp_path: Path, serving: tuple[Doubling, str, str], name: str
) -> None:
    model, rest, rpc = serving
    told = {
        "rest_endpoint": rest, "grpc_endpoint": rpc, "model_name": "mnist-model", "signature_name": "predict_images",
        "model_input": "images", "model_output": "scores",
    }  # fmt: skip
    parameters = json.dumps([{"name": each, "type": "STRING", "value": value} for each, value in told.items()])
    with Microservice(tmp_path, name, "--parameters", parameters) as service:
        assert service.predict(ROWS)["data"]["ndarray"] == [[2.0, 4.0], [6.0, 8.0]]
        answer = over_grpc(service)
        assert answer["data"]["ndarray"] == [[2.0, 4.0], [6.0, 8.0]]
    assert model.paths == ["/v1/models/mnist-model:predict"]
    assert model.specs == [("mnist-model", "predict_images", "images")]
