"""The client against a real server: what goes over the wire, and what comes back."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from seldon_peer import Answer, Asked, Peer, echo, seldon_peer

from servegraph.serving.seldon.client import (
    SeldonCallCredentials,
    SeldonChannelCredentials,
    SeldonClient,
    SeldonClientCombine,
    SeldonClientException,
    SeldonClientFeedback,
    SeldonClientPrediction,
)
from servegraph.serving.seldon.proto import prediction_pb2

DATA = np.array([[1, 2], [3, 4]])


@pytest.fixture
def peer() -> Iterator[Peer]:
    with seldon_peer() as peer:
        yield peer


def client(peer: Peer, transport: str = "rest", **options: Any) -> SeldonClient:
    endpoint = peer.http if transport == "rest" else peer.grpc
    return SeldonClient(
        **{
            "deployment_name": "iris",
            "namespace": "prod",
            "transport": transport,
            "gateway_endpoint": endpoint,
            "microservice_endpoint": endpoint,
            **options,
        }
    )


both = pytest.mark.parametrize("transport", ["rest", "grpc"])


# -- what goes over the wire -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/seldon/prod/iris/api/v1.0/predictions"),
        ({"gateway": "istio", "namespace": None}, "/seldon/prod/iris/api/v1.0/predictions"),
        ({"gateway": "seldon"}, "/api/v1.0/predictions"),
        ({"gateway_prefix": "/models/a"}, "/models/a/api/v1.0/predictions"),
        ({"gateway_prefix": "/"}, "/api/v1.0/predictions"),
        ({"http_path": "/api/v0.1/predictions"}, "/seldon/prod/iris/api/v0.1/predictions"),
    ],
)
def test_predict_posts_json_to_the_path_of_the_deployment(peer: Peer, options: dict[str, Any], path: str) -> None:
    with client(peer) as calls:
        result = calls.predict(data=DATA, names=["a", "b"], **options)
    assert isinstance(result, SeldonClientPrediction)
    assert result.success, result.msg
    [asked] = peer.asked
    assert asked.path == path
    assert asked.headers["content-type"] == "application/json"
    assert asked.body == {
        "data": {"names": ["a", "b"], "tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}},
        "meta": {},
    }


def test_predict_without_namespace_leaves_it_out_of_the_path(peer: Peer) -> None:
    with SeldonClient(deployment_name="iris", gateway_endpoint=peer.http) as calls:
        calls.predict(data=DATA)
    assert peer.asked[0].path == "/seldon/iris/api/v1.0/predictions"


def test_explain_posts_to_the_explainer_of_the_predictor(peer: Peer) -> None:
    with client(peer) as calls:
        result = calls.explain(data=DATA, predictor="main")
        with pytest.raises(SeldonClientException, match="name of the predictor"):
            calls.explain(data=DATA)
        with pytest.raises(SeldonClientException, match="transport='rest'"):
            calls.explain(data=DATA, predictor="main", transport="grpc")
    assert result.success
    assert [asked.path for asked in peer.asked] == ["/seldon/prod/iris-explainer/main/api/v1.0/explain"]


@pytest.mark.parametrize("method", ["predict", "transform-input", "transform-output", "route"])
def test_microservice_on_rest_posts_a_form_that_components_of_all_versions_read(peer: Peer, method: str) -> None:
    with client(peer) as calls:
        result = calls.microservice(method=method, data=DATA, payload_type="ndarray", client_return_type="dict")
    [asked] = peer.asked
    assert asked.path == f"/{method}"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert result.response["data"] == {"ndarray": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("predict", "/seldon.protos.Model/Predict"),
        ("transform-input", "/seldon.protos.Generic/TransformInput"),
        ("transform-output", "/seldon.protos.Generic/TransformOutput"),
        ("route", "/seldon.protos.Generic/Route"),
        ("aggregate", "/seldon.protos.Generic/Aggregate"),
    ],
)
def test_microservice_on_grpc_calls_the_service_of_the_method(peer: Peer, method: str, path: str) -> None:
    sent: dict[str, Any] = {"datas": [DATA, "x"]} if method == "aggregate" else {"data": DATA}
    with client(peer, "grpc") as calls:
        result = calls.microservice(method=method, **sent)
    assert result.success, result.msg
    assert peer.asked[0].path == path
    assert list(result.response.data.tensor.values) == [1, 2, 3, 4]


@both
def test_aggregate_sends_arrays_texts_and_bytes_as_messages(peer: Peer, transport: str) -> None:
    with client(peer, transport) as calls:
        result = calls.microservice(method="aggregate", datas=[DATA, "text", b"bytes"], client_return_type="dict")
        random = calls.microservice(method="aggregate", ndatas=3, shape=(1, 2))
        with pytest.raises(SeldonClientException, match="needs datas"):
            calls.microservice(method="aggregate")
    assert isinstance(result, SeldonClientCombine)
    assert isinstance(random, SeldonClientCombine)
    first, second = (asked.json["seldonMessages"] for asked in peer.asked)
    assert [sorted(message.keys() - {"meta"}) for message in first] == [["data"], ["strData"], ["binData"]]
    assert [message["data"]["tensor"]["shape"] for message in second] == [[1, 2]] * 3


@both
@pytest.mark.parametrize(
    ("payload", "wire"),
    [
        ({"str_data": "hi", "data": DATA}, {"strData": "hi"}),
        ({"bin_data": b"hi"}, {"binData": "aGk="}),
        ({"json_data": {"a": [1.5, None]}}, {"jsonData": {"a": [1.5, None]}}),
        ({"raw_data": {"strData": "raw"}, "str_data": "other"}, {"strData": "raw"}),
        ({"data": [["a", 1.5]]}, {"data": {"ndarray": [["a", 1.5]]}}),
    ],
)
def test_payload_of_each_kind_arrives(
    peer: Peer, transport: str, payload: dict[str, Any], wire: dict[str, Any]
) -> None:
    with client(peer, transport) as calls:
        result = calls.predict(**payload)
    assert result.success, result.msg
    body = peer.asked[0].json
    body.pop("meta", None)
    assert body == wire
    assert {k: v for k, v in result.response.items() if k != "meta"} == wire


def test_custom_data_goes_over_grpc_alone(peer: Peer) -> None:
    from google.protobuf import any_pb2

    custom = any_pb2.Any(type_url="type.example/x", value=b"1")
    with client(peer, "grpc") as calls:
        assert peer.asked == []
        calls.predict(custom_data=custom, client_return_type="proto")
        assert peer.asked[0].body.customData == custom
    with client(peer) as calls, pytest.raises(SeldonClientException, match="transport='grpc'"):
        calls.predict(custom_data=custom)


@both
def test_predict_without_data_sends_random_numbers_of_the_shape(peer: Peer, transport: str) -> None:
    with client(peer, transport) as calls:
        assert calls.predict(shape=(3, 2)).array().shape == (3, 2)
        assert calls.predict().array().shape == (1, 1)


@both
def test_meta_is_sent_as_tags(peer: Peer, transport: str) -> None:
    with client(peer, transport) as calls:
        result = calls.predict(data=DATA, meta={"source": "test"})
    assert peer.asked[0].json["meta"]["tags"] == {"source": "test"}
    assert result.response["meta"]["tags"] == {"source": "test"}


def test_grpc_carries_what_gateways_find_the_deployment_by(peer: Peer) -> None:
    with client(peer, "grpc", headers={"Seldon-Puid": "p1"}) as calls:
        assert calls.predict(data=DATA).success
        assert calls.predict(data=DATA, gateway="seldon").success
    assert peer.asked[0].path == "/seldon.protos.Seldon/Predict"
    assert {"seldon": "iris", "namespace": "prod", "seldon-puid": "p1"}.items() <= peer.asked[0].headers.items()
    assert "seldon" not in peer.asked[1].headers


@both
def test_token_is_sent_with_every_call(peer: Peer, transport: str) -> None:
    with client(peer, transport, call_credentials=SeldonCallCredentials("secret"), ssl=False) as calls:
        assert calls.predict(data=DATA).success
    assert peer.asked[0].headers["x-auth-token"] == "secret"
    assert "secret" not in repr(calls.options)


# -- what comes back -------------------------------------------------------------------------------------------------


def test_array_over_rest_keeps_whole_numbers_whole(peer: Peer) -> None:
    with client(peer) as calls:
        result = calls.predict(data=DATA)
        proto = calls.predict(data=DATA, client_return_type="proto")
    assert result.request["data"]["tensor"]["values"] == [1, 2, 3, 4]
    for each in (result, proto):
        assert each.array().dtype.kind == "i"
        np.testing.assert_array_equal(each.array(), DATA)


def test_array_over_grpc_is_of_floats(peer: Peer) -> None:
    with client(peer, "grpc") as calls:
        for kind in ("tensor", "ndarray"):
            array = calls.predict(data=DATA, payload_type=kind).array()
            assert array.dtype == np.float64
            np.testing.assert_array_equal(array, DATA)


@both
def test_data_frame_goes_in_and_comes_out_with_its_names(peer: Peer, transport: str) -> None:
    frame = pd.DataFrame({"colour": ["red", "blue"], "size": [1.5, 2.5]})
    with client(peer, transport) as calls:
        result = calls.predict(data=frame)
    assert peer.asked[0].json["data"] == {"names": ["colour", "size"], "ndarray": [["red", 1.5], ["blue", 2.5]]}
    out = result.frame()
    assert list(out.columns) == ["colour", "size"]
    assert out["size"].sum() == 4.0
    assert out["colour"].tolist() == ["red", "blue"]


@both
def test_client_return_type_decides_the_type_of_request_and_response(peer: Peer, transport: str) -> None:
    with client(peer, transport) as calls:
        assert isinstance(calls.predict(data=DATA).response, dict)
        for result in (calls.predict(data=DATA, client_return_type="proto"), calls.microservice(data=DATA)):
            assert isinstance(result.request, prediction_pb2.SeldonMessage)
            assert isinstance(result.response, prediction_pb2.SeldonMessage)
            assert list(result.response.data.tensor.values) == [1, 2, 3, 4]
        result = calls.microservice(data=DATA, client_return_type="dict")
        assert isinstance(result.request, dict)
        assert isinstance(result.response, dict)


@both
@pytest.mark.parametrize("kind", ["dict", "proto"])
def test_feedback_takes_the_messages_of_results(peer: Peer, transport: str, kind: str) -> None:
    with client(peer, transport, client_return_type=kind) as calls:
        prediction = calls.predict(data=DATA)
        for send in (calls.feedback, calls.microservice_feedback):
            result = send(prediction.request, prediction.response, {"strData": "truth"}, reward=0.5)
            assert isinstance(result, SeldonClientFeedback)
            assert result.success, result.msg
    rest = ["/seldon/prod/iris/api/v1.0/feedback", "/send-feedback"]
    rpc = ["/seldon.protos.Seldon/SendFeedback", "/seldon.protos.Generic/SendFeedback"]
    assert [asked.path for asked in peer.asked[1:]] == (rest if transport == "rest" else rpc)
    for asked in peer.asked[1:]:
        assert asked.json["reward"] == 0.5
        assert asked.json["request"]["data"]["tensor"]["values"] == [1, 2, 3, 4]
        assert asked.json["response"]["data"]["tensor"]["shape"] == [2, 2]
        assert asked.json["truth"]["strData"] == "truth"


@both
def test_feedback_keeps_the_route_of_the_answer(peer: Peer, transport: str) -> None:
    response = {"meta": {"routing": {"router": 1}}, "data": {"ndarray": [[1.0]]}}
    with client(peer, transport) as calls:
        calls.feedback(None, response, reward=1)
        calls.feedback(raw_request={"response": response, "reward": 1.0})
    assert [asked.json["response"]["meta"]["routing"] for asked in peer.asked] == [{"router": 1}] * 2


# -- failures --------------------------------------------------------------------------------------------------------


def failing(status: int, **more: Any) -> Any:
    envelope = {"status": {"code": -1, "info": "bad", "reason": "MICROSERVICE_BAD_DATA", "status": 1}}
    return lambda asked: Answer(envelope, status, **more)


@pytest.mark.parametrize(("status", "msg", "retryable"), [(404, "404:Not Found", False), (503, "503:", True)])
def test_failed_rest_call_raises_nothing_and_says_why(status: int, msg: str, retryable: bool) -> None:
    with seldon_peer(failing(status, headers={"Retry-After": "7"})) as peer, client(peer) as calls:
        result = calls.predict(data=DATA)
        proto = calls.microservice(data=DATA)
    assert not result.success
    assert result.msg.startswith(msg)
    assert result.response["status"]["info"] == "bad"
    assert result.code == str(status)
    assert result.retryable is retryable
    assert result.retry_after_s == 7
    assert not proto.success
    assert proto.response.status.reason == "MICROSERVICE_BAD_DATA"
    with pytest.raises(SeldonClientException, match=msg):
        result.array()


def test_failed_grpc_call_raises_nothing_and_says_why() -> None:
    with seldon_peer(lambda asked: Answer("INVALID_ARGUMENT")) as peer, client(peer, "grpc") as calls:
        result = calls.predict(data=DATA)
    assert (result.success, result.msg, result.response) == (False, "INVALID_ARGUMENT:as it was told", None)
    assert not result.retryable


@both
def test_call_to_nobody_fails_and_may_be_repeated(transport: str, free_port: int) -> None:
    endpoint = f"127.0.0.1:{free_port}"
    with SeldonClient(gateway="seldon", gateway_endpoint=endpoint, transport=transport) as calls:
        result = calls.predict(data=DATA)
    assert not result.success
    assert result.retryable
    assert result.request["data"]["tensor"]["values"] == [1, 2, 3, 4]


@both
def test_call_without_an_answer_in_time_fails(transport: str) -> None:
    release = threading.Event()

    def wait(asked: Asked) -> Answer:
        release.wait(30)
        return echo(asked)

    with seldon_peer(wait) as peer, client(peer, transport, timeout_s=0.2) as calls:
        result = calls.predict(data=DATA)
        release.set()
    assert not result.success
    assert "0.2 s" in result.msg or "DEADLINE_EXCEEDED" in result.msg


@pytest.mark.parametrize("body", ["<html>", "[1]", "null"])
def test_rest_answer_that_is_no_json_object_is_a_failure(body: str) -> None:
    with seldon_peer(lambda asked: Answer(body)) as peer, client(peer) as calls:
        assert not calls.predict(data=DATA).success
        assert not calls.microservice(data=DATA).success


def test_answer_that_is_no_message_is_a_failure_where_a_message_is_wanted() -> None:
    explanation = {"meta": {"name": "AnchorTabular"}, "data": {"anchor": ["x > 1"]}}
    with seldon_peer(lambda asked: Answer(explanation)) as peer, client(peer) as calls:
        assert calls.explain(data=DATA, predictor="main").response == explanation
    with seldon_peer(lambda asked: Answer({"data": {"ndarray": 1}})) as peer, client(peer) as calls:
        result = calls.microservice(data=DATA)
    assert not result.success
    assert "malformed" in result.msg


def test_array_of_an_answer_without_one_is_an_error_that_says_what_it_has(peer: Peer) -> None:
    with client(peer) as calls:
        result = calls.predict(str_data="x")
    with pytest.raises(SeldonClientException, match="holds strData"):
        result.array()
    assert result.message().value == "x"


# -- arguments -------------------------------------------------------------------------------------------------------


def test_unknown_argument_is_a_type_error_with_the_nearest_name(peer: Peer) -> None:
    with pytest.raises(TypeError, match=r"SeldonClient\(\).*did you mean 'deployment_name'"):
        SeldonClient(deployement_name="x")  # type: ignore[call-arg]
    with client(peer) as calls:
        with pytest.raises(TypeError, match=r"predict\(\).*did you mean 'payload_type'"):
            calls.predict(payload_typ="tensor")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"feedback\(\)"):
            calls.feedback(data=DATA)  # type: ignore[call-arg]
    assert peer.asked == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"gateway": "ambasador"}, "did you mean 'ambassador'"),
        ({"transport": "http"}, "valid: grpc, rest"),
        ({"payload_type": "tensors"}, "did you mean 'tensor'"),
        ({"client_return_type": "json"}, "valid: dict, proto"),
        ({"method": "predikt"}, "did you mean 'predict'"),
        ({"timeout_s": 0}, "above 0"),
        ({"gateway_endpoint": "ftp://x"}, "http or https"),
        ({"gateway_endpoint": "http://x", "ssl": True}, "must be reached by https"),
        ({"deployment_name": ""}, "needs deployment_name"),
    ],
)
def test_wrong_value_is_an_error_that_names_the_choices(peer: Peer, option: dict[str, Any], message: str) -> None:
    with client(peer) as calls, pytest.raises(SeldonClientException, match=message):
        calls.predict(data=DATA, **option)
    assert peer.asked == []


@pytest.mark.parametrize("data", [1, "text", object(), [[1, 2], [3]]])
def test_data_that_is_no_array_is_refused(peer: Peer, data: Any) -> None:
    with client(peer) as calls, pytest.raises(SeldonClientException, match="data"):
        calls.predict(data=data)


@both
def test_json_data_that_has_no_json_is_refused(peer: Peer, transport: str) -> None:
    with client(peer, transport) as calls, pytest.raises(SeldonClientException, match="cannot be written"):
        calls.predict(json_data={"a": object()})
    assert peer.asked == []


def test_raw_data_that_is_no_message_is_refused_on_grpc(peer: Peer) -> None:
    with client(peer, "grpc") as calls, pytest.raises(SeldonClientException, match="no SeldonMessage"):
        calls.predict(raw_data={"strDat": "x"})


# -- connections -----------------------------------------------------------------------------------------------------


def test_rest_calls_share_a_connection(peer: Peer) -> None:
    with client(peer) as calls:
        for _ in range(5):
            assert calls.predict(data=DATA).success
        assert calls.microservice(data=DATA).success
    assert len({asked.port for asked in peer.asked}) == 1


@both
def test_client_is_shared_by_threads(peer: Peer, transport: str) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        for _ in range(10):
            result = calls.predict(data=[[number]])
            if not result.success or result.array().tolist() != [[number]]:
                failures.append(repr(result))

    with client(peer, transport) as calls:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(peer.asked) == 80


@both
def test_closed_client_refuses_calls(peer: Peer, transport: str) -> None:
    calls = client(peer, transport)
    assert calls.predict(data=DATA).success
    calls.close()
    calls.close()
    with pytest.raises(SeldonClientException, match="closed"):
        calls.predict(data=DATA)


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({}, "http"),
        ({"ssl": True}, "https"),
        ({"call_credentials": SeldonCallCredentials("t")}, "https"),
        ({"channel_credentials": SeldonChannelCredentials(verify=False)}, "https"),
        ({"call_credentials": SeldonCallCredentials("t"), "ssl": False}, "http"),
    ],
)
def test_encryption_follows_one_rule_for_all_calls(options: dict[str, Any], scheme: str) -> None:
    from servegraph.serving.seldon.client.options import ClientOptions
    from servegraph.serving.seldon.client.urls import deployment_url, microservice_url

    told = ClientOptions(deployment_name="d", predictor="p", **options)
    urls = [deployment_url(told, "predict"), deployment_url(told, "feedback"), deployment_url(told, "explain")]
    assert {url.partition("://")[0] for url in [*urls, microservice_url(told, "route")]} == {scheme}


@both
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl: apt install openssl")
def test_certificates_of_both_sides_are_checked(tmp_path: Path, transport: str) -> None:
    chain, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *subject, "-out", chain, "-keyout", key], check=True, capture_output=True)
    mine: dict[str, Any] = {"private_key_file": str(key), "certificate_chain_file": str(chain)}
    everything = SeldonChannelCredentials(root_certificates_file=str(chain), **mine)
    nothing_of_mine = SeldonChannelCredentials(root_certificates_file=str(chain))
    no_authority = SeldonChannelCredentials(**mine)
    with seldon_peer(certificate=(chain, key)) as peer:
        for credentials, good in ((everything, True), (nothing_of_mine, False), (no_authority, False)):
            with client(peer, transport, channel_credentials=credentials) as calls:
                result = calls.predict(data=DATA)
                assert (result.success, calls.microservice(data=DATA).success) == (good, good), result.msg
        with client(peer, transport, channel_credentials=everything, ssl=False, timeout_s=5) as calls:
            assert not calls.predict(data=DATA).success
        if transport == "rest":
            unchecked = SeldonChannelCredentials(verify=False, **mine)
            with client(peer, transport, channel_credentials=unchecked) as calls:
                assert calls.predict(data=DATA).success


def test_certificates_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    credentials = SeldonChannelCredentials(root_certificates_file=missing)
    with SeldonClient(gateway="seldon", channel_credentials=credentials) as calls:
        with pytest.raises(SeldonClientException, match=r"missing\.pem"):
            calls.predict(data=DATA)
        with pytest.raises(SeldonClientException, match=r"missing\.pem cannot be read"):
            calls.predict(data=DATA, transport="grpc")
    unverified = SeldonChannelCredentials(verify=False)
    with (
        SeldonClient(gateway="seldon", channel_credentials=unverified, transport="grpc") as calls,
        pytest.raises(SeldonClientException, match="root_certificates_file"),
    ):
        calls.predict(data=DATA)
    with pytest.raises(SeldonClientException, match="certificate_chain_file"):
        SeldonChannelCredentials(private_key_file=missing)


def test_debug_logs_each_call(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "servegraph.seldon.client")
    with client(peer) as quiet, client(peer, debug=True) as calls:
        quiet.predict(data=DATA)
        assert caplog.messages == []
        calls.predict(data=DATA)
    assert "api/v1.0/predictions: 200:OK" in caplog.messages[0]


def test_request_of_a_result_can_be_written_as_json(peer: Peer) -> None:
    with client(peer) as calls:
        result = calls.predict(data=DATA, payload_type="ndarray")
    assert json.loads(json.dumps(result.request))["data"] == {"ndarray": [[1, 2], [3, 4]]}
