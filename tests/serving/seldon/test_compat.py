"""What components import from ``seldon_core``, at work."""

from __future__ import annotations

from typing import Any

import flask
import numpy as np
import pytest

from servegraph.graph.events import Event
from servegraph.serving.seldon.compat import env_utils, flask_utils, metadata, seldon_methods, utils
from servegraph.serving.seldon.compat import user_model as helpers
from servegraph.serving.seldon.compat.user_model import SeldonComponent, SeldonResponse
from servegraph.serving.seldon.custom_metrics import CustomMetric
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.flask_context import FlaskContext
from servegraph.serving.seldon.proto import prediction_pb2 as pb

ARRAY = np.array([[1.5, 2.0], [3.0, 4.5]])


class Sink:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []
        self.rewards: list[float] = []

    def record(self, metric: CustomMetric, method: str) -> None:
        self.kept.append((metric.key, method))

    def reject(self, method: str) -> None:
        self.kept.append(("rejected", method))

    def feedback(self, reward: float) -> None:
        self.rewards.append(reward)


class Model:
    class_names = ("a", "b")

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return SeldonResponse(np.asarray(X) + 1, {"meta": meta}, [{"type": "GAUGE", "key": "own", "value": 1}])

    def route(self, X: Any, names: Any) -> int:
        return 1

    def aggregate(self, values: Any, names: Any) -> Any:
        return np.mean(values, axis=0)

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> Any:
        return [[reward]]

    def tags(self) -> dict[str, Any]:
        return {"t": 1}

    def metrics(self) -> Any:
        return [{"type": "COUNTER", "key": "all", "value": 1}]


@pytest.mark.parametrize("encoding", ["tensor", "ndarray", "tftensor"])
def test_arrays_go_into_grpc_data_and_back(encoding: str) -> None:
    data = utils.array_to_grpc_datadef(encoding, ARRAY, ["x", "y"])
    assert data.WhichOneof("data_oneof") == encoding
    assert list(data.names) == ["x", "y"]
    np.testing.assert_array_equal(utils.grpc_datadef_to_array(data), ARRAY)
    np.testing.assert_array_equal(utils.get_data_from_proto(pb.SeldonMessage(data=data)), ARRAY)


@pytest.mark.parametrize("encoding", ["tensor", "ndarray", "tftensor"])
def test_arrays_go_into_rest_data_and_back(encoding: str) -> None:
    data = utils.array_to_rest_datadef(encoding, ARRAY, ["x", "y"])
    assert data.keys() == {"names", encoding}
    np.testing.assert_array_equal(utils.rest_datadef_to_array(data), ARRAY)


def test_rest_data_is_plain() -> None:
    assert utils.array_to_rest_datadef("tensor", np.array([[1, 2]])) == {
        "names": [],
        "tensor": {"shape": [1, 2], "values": [1, 2]},
    }
    assert utils.array_to_rest_datadef("ndarray", ARRAY, ["x"])["ndarray"] == ARRAY.tolist()


def test_array_becomes_a_list_value() -> None:
    assert [list(row) for row in utils.array_to_list_value(ARRAY)] == ARRAY.tolist()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"strData": "x"}, "strData"),
        ({"binData": "AAE="}, "binData"),
        ({"jsonData": {"a": [1.0]}}, "jsonData"),
        ({"data": {"ndarray": [[1.0]]}, "meta": {"puid": "p", "tags": {"a": 1.0}}}, "data"),
    ],
)
def test_request_parts_are_the_same_of_json_and_protobuf(message: dict[str, Any], kind: str) -> None:
    proto = utils.json_to_seldon_message(message)
    assert utils.seldon_message_to_json(proto) == message
    value, meta, data, which = utils.extract_request_parts(proto)
    json_value, json_meta, json_data, json_which = utils.extract_request_parts_json(message)
    assert np.array_equal(value, json_value)
    assert which == json_which == kind
    assert meta == (json_meta or {}) == utils.get_meta_from_proto(proto)
    assert (json_data is not None) is (data.ByteSize() > 0) is (kind == "data")


def test_malformed_messages_are_refused_and_none_is_empty() -> None:
    for convert in (utils.json_to_seldon_message, utils.json_to_feedback, utils.json_to_seldon_messages):
        with pytest.raises(SeldonMicroserviceException, match="Invalid JSON"):
            convert({"nothing": 1})
        assert convert(None).ByteSize() == 0
    with pytest.raises(SeldonMicroserviceException):
        utils.extract_request_parts_json({"nothing": 1})
    with pytest.raises(SeldonMicroserviceException, match="no payload"):
        utils.get_data_from_proto(pb.SeldonMessage())


def test_feedback_and_lists_are_converted() -> None:
    body = {"request": {"data": {"ndarray": [[1.0]]}}, "reward": 0.5, "truth": {"strData": "x"}}
    feedback = utils.json_to_feedback(body)
    assert utils.feedback_to_json(feedback) == body
    data, features, truth, reward = utils.extract_feedback_request_parts(feedback)
    assert (data.WhichOneof("data_oneof"), features.tolist(), truth, reward) == ("ndarray", [[1.0]], "x", 0.5)
    messages = {"seldonMessages": [{"strData": "a"}, {"strData": "b"}]}
    assert utils.seldon_messages_to_json(utils.json_to_seldon_messages(messages)) == messages
    assert utils.json_to_seldon_model_metadata({"name": "n"}).name == "n"
    # The names of older releases.
    assert utils.seldonMessage_to_json(utils.json_to_seldonMessage({"strData": "a"})) == {"strData": "a"}


def test_results_become_messages_with_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTIVE_UNIT_ID", "node")
    monkeypatch.setenv("PREDICTIVE_UNIT_IMAGE", "img:1")
    request = {"data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}, "meta": {"puid": "p"}}
    metrics = [{"key": "k", "type": "GAUGE", "value": 1.0}]
    wanted_meta = {
        "puid": "p",
        "tags": {"t": 1, "old": 2, "run": 3},
        "metrics": metrics,
        "requestPath": {"node": "img:1"},
    }
    answer = utils.construct_response_json(Model(), False, request, ARRAY, {"tags": {"old": 2}}, metrics, {"run": 3})
    assert answer == {
        "data": {"names": ["a", "b"], "tensor": {"shape": [2, 2], "values": [1.5, 2.0, 3.0, 4.5]}},
        "meta": wanted_meta,
    }
    proto = utils.construct_response(
        Model(), False, utils.json_to_seldon_message(request), ARRAY, {"tags": {"old": 2}}, metrics, {"run": 3}
    )
    assert utils.seldon_message_to_json(proto)["meta"] == wanted_meta
    assert utils.seldon_message_to_json(proto)["data"]["names"] == ["a", "b"]


def test_environment_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREDICTOR_ID", "PREDICTIVE_UNIT_ID", "SELDON_DEPLOYMENT_ID", "PREDICTIVE_UNIT_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    assert env_utils.get_predictor_name() == env_utils.get_deployment_name() == "NOT_IMPLEMENTED"
    assert (env_utils.get_model_name("0"), env_utils.get_image_name()) == ("0", "NOT_IMPLEMENTED:NOT_IMPLEMENTED")
    monkeypatch.setenv("PREDICTOR_LABELS", '{"version": "v3"}')
    assert env_utils.get_predictor_version() == "v3"
    monkeypatch.setenv("SECOND", "True")
    assert utils.getenv("FIRST_NOT_SET", "SECOND") == "True"
    assert utils.getenv_as_bool("SECOND")
    assert utils.getenv_as_bool("FIRST_NOT_SET", default=True)


def test_methods_of_a_component_are_called_on_their_own() -> None:
    answer = helpers.client_predict(Model(), [[1]], ["x"], meta={"puid": "p"})
    assert (answer.data.tolist(), answer.tags) == ([[2]], {"meta": {"puid": "p"}})
    assert helpers.client_transform_input(Model(), "x", []).data == "x"
    assert helpers.client_transform_output(Model(), "x", []).data == "x"
    assert helpers.client_route(Model(), [[1]], []).data == 1
    assert helpers.client_aggregate(Model(), [ARRAY, ARRAY], [[], []]).data.tolist() == ARRAY.tolist()
    assert helpers.client_send_feedback(Model(), [], [], 0.5, [], None).data == [[0.5]]
    assert helpers.client_health_status(Model()) == "healthy"
    assert helpers.client_custom_tags(Model()) == {"t": 1}
    assert helpers.client_class_names(Model(), ARRAY) == ["a", "b"]
    assert helpers.client_class_names(object(), ARRAY) == ["t:0", "t:1"]
    assert helpers.client_class_names(Model(), [1]) == []
    assert helpers.client_feature_names(Model(), ["x"]) == ["x"]


def test_methods_that_are_not_implemented_count_as_missing() -> None:
    bare = SeldonComponent(anything=1)
    assert helpers.client_predict(bare, [[1]], []).data == []
    assert helpers.client_transform_input(bare, "x", []).data == "x"
    assert helpers.client_send_feedback(bare, [], [], 1.0, [], None).data is None
    assert helpers.client_health_status(bare) == "not implemented - assuming healthy"
    assert helpers.client_custom_tags(bare) == {}
    for model in (bare, object()):
        with pytest.raises(SeldonMicroserviceException):
            helpers.client_route(model, [], [])
        with pytest.raises(SeldonMicroserviceException):
            helpers.client_aggregate(model, [], [])


def test_metrics_of_component_and_call_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink()
    runtime = [{"type": "GAUGE", "key": "own", "value": 1}]
    shown = helpers.client_custom_metrics(Model(), sink, "predict", runtime)
    assert [metric["key"] for metric in shown] == ["all", "own"]
    assert sink.kept == [("all", "predict"), ("own", "predict")]
    monkeypatch.setattr(helpers, "INCLUDE_METRICS_IN_CLIENT_RESPONSE", False)
    assert helpers.client_custom_metrics(Model(), sink, "router") == []
    assert sink.kept[-1] == ("all", "router")


def test_requests_are_answered_without_a_server() -> None:
    sink = Sink()
    body = {"data": {"ndarray": [[1.0, 2.0]]}}
    answer = seldon_methods.predict(Model(), body, sink)
    assert answer["data"] == {"names": ["a", "b"], "ndarray": [[2.0, 3.0]]}
    assert sink.kept == [("all", "predict"), ("own", "predict")]
    proto = seldon_methods.predict(Model(), utils.json_to_seldon_message(body), sink)
    assert utils.get_data_from_proto(proto).tolist() == [[2.0, 3.0]]
    assert seldon_methods.transform_input(Model(), body, sink)["data"]["ndarray"] == [[1.0, 2.0]]
    assert seldon_methods.transform_output(Model(), body, sink)["data"]["ndarray"] == [[1.0, 2.0]]
    assert seldon_methods.route(Model(), body, sink)["data"]["ndarray"] == [[1]]
    assert seldon_methods.aggregate(Model(), [body, body], sink)["data"]["ndarray"] == [[1.0, 2.0]]
    assert seldon_methods.health_status(Model(), sink)["strData"] == "healthy"
    feedback = utils.json_to_feedback({"request": body, "reward": 0.5})
    assert utils.get_data_from_proto(seldon_methods.send_feedback(Model(), feedback, "n", sink)).tolist() == [[0.5]]
    assert sink.rewards == [0.5]
    assert seldon_methods.init_metadata(Model())["platform"] == ""


def test_metadata_uses_the_image_that_the_module_has_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MODEL_IMAGE", "img:2")
    assert metadata.validate_model_metadata({})["versions"] == ["2"]
    with pytest.raises(metadata.SeldonInvalidMetadataError):
        metadata.validate_model_metadata({"name": 1})


def test_request_of_flask_is_read_in_all_of_its_forms() -> None:
    context = FlaskContext.for_component(Model())
    assert context is not None
    multipart = b'--x\r\nContent-Disposition: form-data; name="strData"\r\n\r\nhello\r\n--x--\r\n'
    for made, wanted in (
        (Event(b'{"a": 1}', content_type="application/json"), {"a": 1}),
        (Event(b"json=%7B%22a%22%3A1%7D", content_type="application/x-www-form-urlencoded"), {"a": 1}),
        (Event(multipart, content_type="multipart/form-data; boundary=x"), {"strData": "hello"}),
    ):
        assert context.run(made, flask_utils.get_request) == wanted
    raw = Event(b'{"a": 1}', content_type="application/json")
    assert context.run(raw, flask_utils.get_request, True) == b'{"a": 1}'
    for bad in (b"", b"{", b"null"):
        with pytest.raises(SeldonMicroserviceException, match="Can't find JSON in data"):
            context.run(Event(bad, content_type="application/json"), flask_utils.get_request)


def test_answers_for_flask_have_sorted_keys() -> None:
    assert isinstance(flask_utils.jsonify({}), flask.Response)
    assert flask_utils.jsonify({"foo": "bar", "a": np.float32(0.5)}).data == b'{"a":0.5,"foo":"bar"}\n'
    assert flask_utils.jsonify('{"foo": "bar"}', skip_encoding=True).data == b'{"foo": "bar"}'


def test_response_and_base_class() -> None:
    response = SeldonResponse([1])
    assert SeldonResponse.create(response) is response
    assert SeldonResponse.create([1]).data == [1]
    assert (response.tags, response.metrics) == ({}, [])
    assert "SeldonResponse([1]" in repr(response)
    base = SeldonComponent()
    base.load()
    stubs = [name for name in dir(SeldonComponent) if not name.startswith("_") and name != "load"]
    for name in stubs:
        method = getattr(base, name)
        with pytest.raises(SeldonMicroserviceException, match="is not implemented"):
            method(*[None] * (method.__func__.__code__.co_argcount - 1))
    assert len(stubs) == 20


def test_component_with_coroutine_functions_is_asked_without_a_server() -> None:
    class Later:
        async def predict(self, X: Any, names: Any) -> Any:
            return np.asarray(X) * 2

    body = {"data": {"ndarray": [[1.0, 2.0]]}}
    assert seldon_methods.predict(Later(), body, Sink())["data"]["ndarray"] == [[2.0, 4.0]]
    proto = seldon_methods.predict(Later(), utils.json_to_seldon_message(body), Sink())
    assert utils.get_data_from_proto(proto).tolist() == [[2.0, 4.0]]
