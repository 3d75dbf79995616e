"""Components of the forms that Seldon's documents show, behind the real command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from google.protobuf import json_format
from seldon_command import Microservice

from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc

pytestmark = pytest.mark.slow

COMPONENTS = '''
import logging

import flask
import numpy as np
from flask import jsonify, request
from seldon_core.user_model import SeldonComponent, SeldonResponse

logger = logging.getLogger(__name__)


class Tagged:
    """Its ``tags`` takes the input, as the page on metadata of a response has it."""

    def predict(self, X, features_names):
        return X

    def tags(self, X):
        return {"rows": len(X), "system": "production"}

    def metrics(self):
        return [
            {"type": "COUNTER", "key": "mycounter", "value": 1},
            {"type": "GAUGE", "key": "mygauge", "value": 100},
            {"type": "TIMER", "key": "mytimer", "value": 20.2},
        ]

    def class_names(self):
        return ["proba"]


class Runtime:
    """The metrics of a call stand before a comma, which makes them a tuple."""

    def predict(self, features, names=[], meta={}):
        runtime_metrics = {"type": "COUNTER", "key": "instance_counter", "value": len(features)},
        return SeldonResponse(data=features, metrics=runtime_metrics, tags={"runtime": True})

    def tags(self):
        return {"static": True, "runtime": False}

    def metrics(self):
        return {"type": "GAUGE", "key": "static_gauge", "value": 5},


class UserCustomException(Exception):
    status_code = 404

    def __init__(self, message, application_error_code, http_status_code):
        Exception.__init__(self)
        self.message = message
        if http_status_code is not None:
            self.status_code = http_status_code
        self.application_error_code = application_error_code

    def to_dict(self):
        return {
            "status": {
                "status": self.status_code,
                "message": self.message,
                "app_code": self.application_error_code,
            }
        }


class Handling:
    model_error_handler = flask.Blueprint("error_handlers", __name__)

    @model_error_handler.app_errorhandler(UserCustomException)
    def handleCustomError(error):
        response = jsonify(error.to_dict())
        response.status_code = error.status_code
        return response

    def predict(self, X, features_names=None):
        if request.headers.get("x-user") == "known":
            return X
        raise UserCustomException("Test-Error-Msg", 1402, 402)


class Whole(SeldonComponent):
    """Health, metadata, and a model that ``load`` brings."""

    def __init__(self, factor=None):
        super().__init__()
        self.factor = factor
        self.model = None

    def load(self):
        self.model = lambda X: X * self.factor

    def predict(self, X, features_names=None):
        return self.model(np.asarray(X))

    def health_status(self):
        response = self.predict([1, 2], ["f1", "f2"])
        assert len(response) == 2, "health check returning bad predictions"
        return response

    def init_metadata(self):
        return {
            "name": "my-model-name",
            "versions": ["my-model-version-01"],
            "platform": "seldon",
            "inputs": [{"messagetype": "tensor", "schema": {"names": ["a", "b"], "shape": [2]}}],
            "outputs": [{"messagetype": "tensor", "schema": {"shape": [1]}}],
            "custom": {"author": "seldon-dev"},
        }


class Combiner:
    def aggregate(self, Xs, features_names):
        logger.info("combining %d answers", len(Xs))
        return (np.reshape(Xs[0], (1, -1)) + np.reshape(Xs[1], (1, -1))) / 2.0


class Router:
    """Learns which branch earns more."""

    def __init__(self, n_branches=2):
        self.rewards = [0.0] * n_branches

    def route(self, features, feature_names):
        return int(np.argmax(self.rewards))

    def send_feedback(self, features, feature_names, reward, truth, routing=None):
        self.rewards[routing] += reward


class Messages:
    """Works on whole messages, of whichever interface."""

    def predict_raw(self, msg):
        if not isinstance(msg, dict):
            msg.meta.tags["seen"].string_value = "proto"
            return msg
        return {**msg, "meta": {"tags": {"seen": "json"}}}
'''
OPTIONS = {
    "Tagged": (), "Runtime": (), "Handling": (), "Combiner": ("--service-type", "COMBINER"), "Messages": (),
    "Whole": ("--parameters", '[{"name": "factor", "type": "INT", "value": "3"}]'),
    "Router": ("--service-type", "ROUTER", "--parameters", '[{"name": "n_branches", "type": "INT", "value": "3"}]'),
}  # fmt: skip
ROWS: dict[str, Any] = {"data": {"names": ["a", "b"], "ndarray": [[1.0, 2.0], [3.0, 4.0]]}}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Microservice]]:
    """Each component behind a command of its own; started side by side."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "components.py").write_text(COMPONENTS)
    node = {"PREDICTIVE_UNIT_ID": "node"}
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:

        def start(name: str) -> Microservice:
            return stack.enter_context(Microservice(folder, f"components.{name}", *OPTIONS[name], environment=node))

        yield dict(zip(OPTIONS, pool.map(start, OPTIONS), strict=True))


def over_grpc(service: Microservice, method: str, message: dict[str, Any], stub: str = "Generic") -> dict[str, Any]:
    kind = {"Aggregate": pb.SeldonMessageList, "SendFeedback": pb.Feedback}.get(method, pb.SeldonMessage)
    with service.channel() as channel:
        call = getattr(getattr(prediction_pb2_grpc, f"{stub}Stub")(channel), method)
        answer: dict[str, Any] = json_format.MessageToDict(call(json_format.ParseDict(message, kind()), timeout=30))
    return answer


def test_tags_that_take_the_input_are_given_it(services: dict[str, Microservice]) -> None:
    service = services["Tagged"]
    answer = service.predict(ROWS)
    assert answer["data"] == {"names": ["proba"], "ndarray": ROWS["data"]["ndarray"]}
    assert answer["meta"]["tags"] == {"rows": 2, "system": "production"}
    assert [(m["type"], m["key"], m["value"]) for m in answer["meta"]["metrics"]] == [
        ("COUNTER", "mycounter", 1), ("GAUGE", "mygauge", 100), ("TIMER", "mytimer", 20.2),
    ]  # fmt: skip
    assert over_grpc(service, "Predict", ROWS, "Model")["meta"]["tags"] == {"rows": 2.0, "system": "production"}
    assert (service.total("mycounter_total"), service.total("mygauge")) == (2, 100)
    assert service.total("mytimer_count") == 2
    assert service.total("mytimer_sum") == pytest.approx(0.0404)


def test_metrics_of_a_call_in_a_tuple_are_taken(services: dict[str, Microservice]) -> None:
    service = services["Runtime"]
    meta = service.predict(ROWS)["meta"]
    assert meta["tags"] == {"static": True, "runtime": True}
    assert [(m["key"], m["value"]) for m in meta["metrics"]] == [("static_gauge", 5), ("instance_counter", 2)]
    over_grpc(service, "Predict", ROWS, "Model")
    assert (service.total("instance_counter_total"), service.total("static_gauge")) == (4, 5)


def test_error_handler_of_a_blueprint_makes_the_answer(services: dict[str, Microservice]) -> None:
    service = services["Handling"]
    answer = service.ask("/predict", ROWS)
    assert (answer.status, json.loads(answer.body)) == (
        402, {"status": {"status": 402, "message": "Test-Error-Msg", "app_code": 1402}},
    )  # fmt: skip
    answer = service.ask("/api/v1.0/predictions", ROWS, {"x-user": "known"})
    assert (answer.status, json.loads(answer.body)["data"]["ndarray"]) == (200, ROWS["data"]["ndarray"])
    assert service.ask("/predict", b"{", {"x-user": "known"}).status == 400


def test_health_calls_the_model_that_load_has_brought(services: dict[str, Microservice]) -> None:
    answer = services["Whole"].ask("/health/status")
    assert (answer.status, json.loads(answer.body)["data"]["tensor"]["values"]) == (200, [3, 6])
    assert services["Whole"].ask("/health/ping").body == b"pong"
    assert services["Whole"].predict(ROWS)["data"]["ndarray"] == [[3.0, 6.0], [9.0, 12.0]]


def test_metadata_of_the_component_is_told_over_both(services: dict[str, Microservice]) -> None:
    metadata = json.loads(services["Whole"].ask("/metadata").body)
    assert metadata == {
        "name": "my-model-name", "versions": ["my-model-version-01"], "platform": "seldon",
        "inputs": [{"messagetype": "tensor", "schema": {"names": ["a", "b"], "shape": [2]}}],
        "outputs": [{"messagetype": "tensor", "schema": {"shape": [1]}}], "custom": {"author": "seldon-dev"},
    }  # fmt: skip
    with services["Whole"].channel() as channel:
        request = pb.SeldonModelMetadataRequest(name="any")
        told = prediction_pb2_grpc.SeldonStub(channel).ModelMetadata(request, timeout=30)
    assert json_format.MessageToDict(told) == metadata


def test_combiner_averages_over_both(services: dict[str, Microservice]) -> None:
    messages = {"seldonMessages": [{"data": {"ndarray": [1.0, 2.0]}}, {"data": {"ndarray": [3.0, 4.0]}}]}
    assert services["Combiner"].predict(messages, "/aggregate")["data"]["ndarray"] == [[2.0, 3.0]]
    assert over_grpc(services["Combiner"], "Aggregate", messages, "Combiner")["data"]["ndarray"] == [[2.0, 3.0]]
    services["Combiner"].wait_for("components: combining 2 answers", 2)


def test_router_learns_from_feedback_over_both(services: dict[str, Microservice]) -> None:
    service = services["Router"]

    def feedback(branch: int, reward: float) -> dict[str, Any]:
        return {"request": ROWS, "response": {"meta": {"routing": {"node": branch}}}, "reward": reward}

    assert service.predict(ROWS, "/route")["data"]["ndarray"] == [[0]]
    assert service.ask("/send-feedback", feedback(2, 1)).status == 200
    assert service.predict(ROWS, "/route")["data"]["ndarray"] == [[2]]
    over_grpc(service, "SendFeedback", feedback(1, 1.5), "Router")
    assert over_grpc(service, "Route", ROWS, "Router")["data"]["ndarray"] == [[1.0]]
    assert service.total("seldon_api_model_feedback_reward_total") == 2.5


def test_low_level_method_sees_the_whole_message(services: dict[str, Microservice]) -> None:
    message = {**ROWS, "meta": {"puid": "p"}}
    assert services["Messages"].predict(message) == {**ROWS, "meta": {"tags": {"seen": "json"}}}
    assert over_grpc(services["Messages"], "Predict", message, "Model") == {
        **ROWS, "meta": {"puid": "p", "tags": {"seen": "proto"}},
    }  # fmt: skip
