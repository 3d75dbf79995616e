"""Tests as components have them of themselves, against the names of ``seldon_core``."""

from __future__ import annotations

import json
from typing import Any

import flask
import numpy as np
import pytest

from servegraph.runtimes.seldon.compat import microservice
from servegraph.runtimes.seldon.compat.metrics import (
    BINS,
    SeldonMetrics,
    create_counter,
    split_image_tag,
    validate_metrics,
)
from servegraph.runtimes.seldon.compat.wrapper import get_metrics_microservice, get_rest_microservice
from servegraph.serving.seldon.errors import SeldonMicroserviceException


class Doubler:
    model_error_handler = flask.Blueprint("handlers", __name__)

    def __init__(self) -> None:
        self.loaded = False

    def load(self) -> None:
        self.loaded = True

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        assert self.loaded
        if flask.request.headers.get("X-Fail"):
            raise LookupError("gone")
        return np.asarray(X) * 2

    def send_feedback(self, features: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> Any:
        return []

    def metrics(self) -> Any:
        return [create_counter("calls", 1)]


@Doubler.model_error_handler.app_errorhandler(LookupError)
def handle(error: LookupError) -> Any:
    return flask.jsonify({"error": str(error)}), 410


@pytest.fixture
def metrics() -> SeldonMetrics:
    return SeldonMetrics(worker_id_func=lambda: "w1", extra_default_labels={"site": "here"})


@pytest.fixture
def client(metrics: SeldonMetrics) -> Any:
    app = get_rest_microservice(Doubler(), metrics)
    app.testing = True
    return app.test_client()


def test_component_answers_under_flasks_test_client(client: Any) -> None:
    wanted = {
        "data": {"names": ["t:0", "t:1"], "ndarray": [[2, 4]]},
        "meta": {"metrics": [{"key": "calls", "type": "COUNTER", "value": 1}]},
    }
    body = {"data": {"ndarray": [[1, 2]]}}
    answer = client.post("/api/v1.0/predictions", json=body)
    assert (answer.status_code, answer.json, answer.mimetype) == (200, wanted, "application/json")
    assert client.get("/predict", query_string={"json": json.dumps(body)}).json == wanted
    assert client.post("/predict", data={"json": json.dumps(body)}).json == wanted
    assert client.get("/health/ping").data == b"pong"
    assert client.get("/metadata").json["name"] == ""
    assert client.get("/seldon.json").json["openapi"] == "3.0.3"


def test_failures_have_status_and_envelope_and_handlers_are_asked(client: Any) -> None:
    answer = client.post("/predict", data="{", content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["status"]["reason"] == "MICROSERVICE_BAD_DATA"
    assert client.get("/nothing").status_code == 404
    answer = client.post("/predict", json={"data": {"ndarray": [[1]]}}, headers={"X-Fail": "1"})
    assert (answer.status_code, answer.json) == (410, {"error": "gone"})


def test_metrics_and_feedback_are_shown(client: Any, metrics: SeldonMetrics) -> None:
    page = get_metrics_microservice(metrics).test_client()
    assert page.get("/metrics").data == b""
    client.post("/predict", json={"data": {"ndarray": [[1]]}})
    client.post("/send-feedback", json={"request": {"data": {"ndarray": [[1]]}}, "reward": 0.5})
    text = page.get("/metrics").get_data(as_text=True)
    assert "calls_total{" in text
    assert 'worker_id="w1"' in text
    assert 'site="here"' in text
    assert 'method="predict"' in text
    assert "seldon_api_model_feedback_reward_total{" in text
    assert page.get("/").status_code == 404
    assert metrics.generate_metrics()[0] == text
    metrics.clear()
    assert page.get("/metrics").data == b""


def test_metrics_are_recorded_without_a_component(metrics: SeldonMetrics) -> None:
    metrics.update([create_counter("k", 2), {"bad": 1}], "predict")
    metrics.update_reward(1.0)
    text, media = metrics.generate_metrics()
    assert "k_total{" in text
    assert "seldon_api_model_feedback_total{" in text
    assert "rejected_total{" in text
    assert media.startswith("text/plain; version=0.0.4")
    assert validate_metrics([create_counter("k", 2)])
    assert not validate_metrics((create_counter("k", 2),))
    assert len(BINS) == 52
    assert split_image_tag("repo:1/x:2") == ("repo:1/x", "2")


def test_parameters_are_typed_as_the_command_types_them() -> None:
    given = [{"name": "a", "value": "1", "type": "INT"}, {"name": "b", "value": "yes", "type": "BOOL"}]
    assert microservice.parse_parameters(given) == {"a": 1, "b": True}
    with pytest.raises(SeldonMicroserviceException):
        microservice.parse_parameters([{"name": "a", "value": "x", "type": "INT"}])


def test_command_under_its_old_name_runs_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["seldon-core-microservice", "--help"])
    with pytest.raises(SystemExit) as caught:
        microservice.main()
    assert caught.value.code == 0
    assert "INTERFACE_NAME" in capsys.readouterr().out
