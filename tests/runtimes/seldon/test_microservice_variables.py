"""Variables that change what a served component is handed and what its callers see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from raw_http import read_all
from seldon_command import Microservice

from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc

COMPONENT = """
import flask


class Odd:
    def predict_raw(self, body):
        return f'{{"got": "{type(body).__name__}", "length": {len(body)}}}'

    def transform_input(self, X, names):
        return [flask.current_app.config["JSON_SORT_KEYS"], flask.current_app.config["TESTING"]]

    def metrics(self):
        return [{"type": "COUNTER", "key": "transformed", "value": 1}]

    def send_feedback(self, X, names, reward, truth, routing=None):
        return None
"""
VARIABLES = {
    "INCLUDE_METRICS_IN_CLIENT_RESPONSE": "False",
    "SELDON_EXECUTOR_ENABLED": "false",
    "PAYLOAD_PASSTHROUGH": "true",
    "FLASK_JSON_SORT_KEYS": "false",
    "FLASK_TESTING": "1",
    "GUNICORN_KEEPALIVE": "1",
    "GRPC_WORKERS": "1",
}
ROWS: dict[str, Any] = {"data": {"ndarray": [[1.0, 2.0]]}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Microservice]:
    options = ("--set", "grpc.max_message_bytes=1000")
    folder = tmp_path_factory.mktemp("odd")
    with Microservice(folder, "Odd", *options, code=COMPONENT, environment=VARIABLES) as service:
        yield service


def test_metrics_are_kept_from_the_answer_and_still_counted(served: Microservice) -> None:
    before = served.total("transformed_total")
    answer = served.predict({**ROWS, "meta": {"puid": "p"}}, "/transform-input")
    assert answer["meta"] == {"puid": "p"}
    assert served.total("transformed_total") == before + 1


def test_metrics_that_came_with_the_request_are_passed_on(served: Microservice) -> None:
    came = [{"type": "GAUGE", "key": "earlier", "value": 2}]
    answer = served.predict({**ROWS, "meta": {"metrics": came}}, "/transform-input")
    assert answer["meta"]["metrics"] == came
    assert served.total("earlier") == 0


def test_feedback_is_left_to_the_old_engine_to_count(served: Microservice) -> None:
    assert served.ask("/send-feedback", {"request": ROWS, "reward": 1}).status == 200
    assert served.total("seldon_api_model_feedback_total") == 0


@pytest.mark.parametrize("body", [b'{"any": "thing"}', b"{broken"])
def test_undecoded_body_is_handed_on_and_the_answer_goes_back_as_it_is(served: Microservice, body: bytes) -> None:
    answer = served.ask("/predict", body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == b'{"got": "bytes", "length": %d}' % len(body)


def test_undecoded_form_field_is_handed_on_as_a_text(served: Microservice) -> None:
    answer = served.ask("/predict", b"json=%7Bbroken", {"content-type": "application/x-www-form-urlencoded"})
    assert json.loads(answer.body) == {"got": "str", "length": 7}


def test_bodies_of_other_paths_are_decoded(served: Microservice) -> None:
    assert served.ask("/transform-input", b"{broken").status == 400


def test_configuration_of_flask_is_that_of_the_variables(served: Microservice) -> None:
    assert served.predict(ROWS, "/transform-input")["data"]["ndarray"] == [False, True]


def test_largest_message_is_that_of_the_setting(served: Microservice) -> None:
    with served.channel() as channel:
        call = prediction_pb2_grpc.TransformerStub(channel).TransformInput.future(
            pb.SeldonMessage(strData="x" * 2000), timeout=30
        )
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_connection_that_idles_is_closed_after_the_time_of_its_variable(served: Microservice) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET /health/ping HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_all(connection).endswith(b"pong")
