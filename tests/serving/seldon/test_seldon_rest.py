"""Messages as JSON objects: what is read, what is refused, and that everything comes back as it was."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Feedback, Message, Meta
from servegraph.serving.seldon.rest import (
    feedback_answer_to_rest,
    feedback_from_rest,
    feedback_to_rest,
    message_from_rest,
    message_to_rest,
    messages_from_rest,
    messages_to_rest,
)
from servegraph.serving.seldon.tftensor import to_json

FLOATS = to_json(np.array([[0.5, 1.5]]))


def written(body: Any) -> Any:
    """A body as a client reads it."""
    return jsoncodec.loads(jsoncodec.dumps(body))


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "encoding", "dtype", "expected"),
    [
        ({"ndarray": [[1, 2]]}, "ndarray", "int64", [[1, 2]]),
        ({"ndarray": [["a", 1]]}, "ndarray", "<U21", [["a", "1"]]),
        ({"ndarray": [True]}, "ndarray", "bool", [True]),
        ({"ndarray": [None, 1]}, "ndarray", "object", [None, 1]),
        ({"ndarray": []}, "ndarray", "float64", []),
        ({"tensor": {"shape": [2, 1], "values": [1, 2]}}, "tensor", "int64", [[1], [2]]),
        ({"tensor": {"shape": [1], "values": [0.5]}}, "tensor", "float64", [0.5]),
        ({"tensor": {"shape": [0]}}, "tensor", "float64", []),
        ({"tftensor": FLOATS}, "tftensor", "float64", [[0.5, 1.5]]),
        ({"ndarray": [1], "tensor": None}, "ndarray", "int64", [1]),
        ({"tensor": {"shape": [1], "values": [1]}, "tftensor": None}, "tensor", "int64", [1]),
        ({}, None, "float64", []),
        ({"names": ["a"]}, None, "float64", []),
    ],
)
def test_data_becomes_an_array_of_the_type_that_it_has(
    data: dict[str, Any], encoding: Encoding | None, dtype: str, expected: Any
) -> None:
    message = message_from_rest({"data": data})
    assert (message.kind, message.encoding, message.value.dtype) == ("data", encoding, np.dtype(dtype))
    assert (message.value.tolist(), message.names) == (expected, data.get("names", []))


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ({"strData": "x"}, "strData", "x"),
        ({"strData": 5}, "strData", 5),
        ({"binData": "AAH/"}, "binData", b"\x00\x01\xff"),
        ({"binData": ""}, "binData", b""),
        ({"jsonData": {"a": 1}}, "jsonData", {"a": 1}),
        ({"jsonData": None}, "jsonData", None),
        ({"jsonData": [1]}, "jsonData", [1]),
        ({"binData": "!", "strData": "x", "jsonData": 1}, "jsonData", 1),
        ({"binData": "!", "strData": "x"}, "strData", "x"),
        ({"data": {"ndarray": []}, "jsonData": 1}, "data", None),
        ({"strData": "x", "customData": {}, "unknown": 1}, "strData", "x"),
    ],
)
def test_first_payload_in_the_order_of_the_protocol_counts(body: dict[str, Any], kind: str, value: Any) -> None:
    message = message_from_rest(body)
    assert (message.kind, message.source) == (kind, body)
    assert message.names == []
    if kind != "data":
        assert message.value == value


@pytest.mark.parametrize("text", ["AAEC\nAwQF", "AAEC\r\nAwQF\r\n", "AAECAwQF\n"])
def test_bytes_may_come_in_lines(text: str) -> None:
    assert message_from_rest({"binData": text}).value == b"\x00\x01\x02\x03\x04\x05"


def test_names_may_be_null() -> None:
    assert message_from_rest({"data": {"names": None, "ndarray": [1]}}).names == []


MALFORMED: list[tuple[Any, str]] = [
    (None, "Invalid request data type: a JSON object is wanted, not null"),
    ([], "Invalid request data type: a JSON object is wanted, not a list"),
    ("x", "Invalid request data type: a JSON object is wanted, not text"),
    (5, "Invalid request data type: a JSON object is wanted, not a number"),
    (True, "Invalid request data type: a JSON object is wanted, not a boolean"),
    ({}, "the message has none of data, jsonData, strData, binData; it has nothing"),
    ({"customData": {}, "b": 1}, "the message has none of data, jsonData, strData, binData; it has b, customData"),
    ({"meta": None, "strData": "x"}, "meta must be an object, not null"),
    ({"meta": [], "strData": "x"}, "meta must be an object, not a list"),
    ({"meta": {"puid": [1]}, "strData": "x"}, "meta.puid must be text, not a list"),
    ({"meta": {"puid": True}, "strData": "x"}, "meta.puid must be text, not a boolean"),
    ({"meta": {"tags": []}, "strData": "x"}, "meta.tags must be an object"),
    ({"meta": {"routing": {"r": 1.5}}, "strData": "x"}, "meta.routing must have whole numbers"),
    ({"meta": {"routing": {"r": True}}, "strData": "x"}, "meta.routing must have whole numbers"),
    ({"meta": {"routing": {"r": 2**31}}, "strData": "x"}, "meta.routing must have whole numbers of 32 bits"),
    ({"meta": {"routing": {"r": "\u0661"}}, "strData": "x"}, "meta.routing must have whole numbers"),
    ({"meta": {"requestPath": {"n": 1}}, "strData": "x"}, "meta.requestPath must have texts"),
    ({"meta": {"metrics": {}}, "strData": "x"}, "meta.metrics must be a list"),
    ({"meta": {"metrics": [1]}, "strData": "x"}, "meta.metrics must have objects"),
    ({"data": None}, "data must be an object with tensor, ndarray or tftensor, not null"),
    ({"data": [1]}, "data must be an object with tensor, ndarray or tftensor, not a list"),
    ({"data": {"names": "a", "ndarray": []}}, "data.names must be a list of names"),
    ({"data": {"ndarray": None}}, "data.ndarray must be a list, not null"),
    ({"data": {"ndarray": 5}}, "data.ndarray must be a list, not a number"),
    ({"data": {"ndarray": {}}}, "data.ndarray must be a list, not an object"),
    ({"data": {"ndarray": [[1], [2, 3]]}}, "data.ndarray is not rectangular: all rows, at each level"),
    ({"data": {"tensor": None}}, "data.tensor must be an object with shape and values"),
    ({"data": {"tensor": {"values": [1]}}}, "data.tensor.shape must be a list of whole numbers"),
    ({"data": {"tensor": {"shape": [2], "values": [1]}}}, "data.tensor has 1 values, and its shape [2] needs 2"),
    ({"data": {"tensor": {"shape": [2]}}}, "data.tensor has 0 values, and its shape [2] needs 2"),
    ({"data": {"tftensor": 5}}, "tftensor"),
    ({"binData": "A"}, "binData is not base64"),
    ({"binData": "A?=="}, "binData is not base64"),
    ({"binData": "AAAA!"}, "binData is not base64"),
    ({"binData": "_-AA"}, "binData is not base64"),
    ({"binData": "AAAA "}, "binData is not base64"),
    ({"binData": "ä"}, "binData is not base64"),
    ({"binData": 5}, "binData must be base64 text, not a number"),
    ({"binData": None}, "binData must be base64 text, not null"),
]


@pytest.mark.parametrize(("body", "problem"), MALFORMED, ids=[problem for _, problem in MALFORMED])
def test_malformed_message_is_refused_with_the_reason(body: Any, problem: str) -> None:
    for read in (message_from_rest, lambda b: messages_from_rest([{"strData": "x"}, b])):
        with pytest.raises(SeldonMicroserviceException) as caught:
            read(body)
        assert problem in str(caught.value)
        assert (caught.value.status_code, caught.value.reason) == (400, "MICROSERVICE_BAD_DATA")


def test_unknown_keys_are_told_in_bounds() -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        message_from_rest({f"key{i}" * 100: i for i in range(100)})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("puid", "text"), [(5, "5"), (1.5, "1.5"), (None, "")])
def test_id_that_is_a_number_becomes_text(puid: Any, text: str) -> None:
    assert message_from_rest({"strData": "x", "meta": {"puid": puid}}).meta.puid == text


def test_meta_is_read_in_parts_and_not_shared() -> None:
    meta = {
        "puid": "p",
        "tags": {"t": [1]},
        "routing": {"r": -1},
        "requestPath": {"n": "i"},
        "metrics": [{"key": "k"}],
        "other": 1,
    }
    message = message_from_rest({"strData": "x", "meta": meta})
    assert message.meta == Meta("p", {"t": [1]}, {"r": -1}, {"n": "i"}, [{"key": "k"}])
    message.meta.tags["u"] = 1
    message.meta.metrics.append({})
    assert (meta["tags"], meta["metrics"]) == ({"t": [1]}, [{"key": "k"}])
    assert message_from_rest({"strData": "x", "meta": {"tags": None, "routing": None}}).meta == Meta()


def test_messages_come_as_a_list_or_in_an_object() -> None:
    bodies = [{"strData": "a"}, {"jsonData": 1}]
    for form in (bodies, {"seldonMessages": bodies}):
        assert [m.value for m in messages_from_rest(form)] == ["a", 1]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (None, "Invalid request data type: a list of messages (seldonMessages) is wanted"),
        ({"strData": "x"}, "Invalid request data type: a list of messages (seldonMessages) is wanted"),
        ({"seldonMessages": {}}, "Invalid request data type: a list of messages (seldonMessages) is wanted"),
        ([], "seldonMessages is empty: there is nothing to aggregate"),
        ({"seldonMessages": []}, "seldonMessages is empty: there is nothing to aggregate"),
    ],
)
def test_what_is_no_list_of_messages_is_refused(body: Any, problem: str) -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        messages_from_rest(body)
    assert (str(caught.value), caught.value.status_code) == (problem, 400)


# -- feedback ----------------------------------------------------------------------------------------------------------


def test_feedback_is_read_with_floats_and_every_payload() -> None:
    body = {
        "request": {"data": {"names": ["a"], "tensor": {"shape": [1, 1], "values": [1]}}, "meta": {"puid": "p"}},
        "response": {"meta": {"routing": {"r": 1}}},
        "truth": {"strData": "x"},
        "reward": 0.1,
    }
    feedback = feedback_from_rest(body)
    request = feedback.request
    assert (request.value.dtype.kind, request.value.tolist(), request.names) == ("f", [[1.0]], ["a"])
    assert (request.encoding, request.meta.puid, feedback.response.kind) == ("tensor", "p", None)
    assert (feedback.response.meta.routing, feedback.truth.value) == ({"r": 1}, "x")
    assert feedback.reward == float(np.float32(0.1))
    assert feedback.source is body


@pytest.mark.parametrize("body", [{}, {"request": None, "truth": None}, {"request": {}, "truth": {"unknown": 1}}])
def test_feedback_without_parts_has_empty_ones(body: Any) -> None:
    feedback = feedback_from_rest(body)
    assert (feedback.request.kind, feedback.truth.kind, feedback.reward) == (None, None, 0.0)


def test_texts_and_booleans_of_feedback_stay_what_they_are() -> None:
    feedback = feedback_from_rest({"request": {"data": {"ndarray": ["a"]}}, "truth": {"data": {"ndarray": [True]}}})
    assert (feedback.request.value.tolist(), feedback.truth.value.tolist()) == (["a"], [True])
    assert feedback.truth.value.dtype == bool


@pytest.mark.parametrize("reward", [1, -2.5, 0, 3.4028234663852886e38, -3.4028234663852886e38])
def test_reward_is_a_float_of_32_bits(reward: float) -> None:
    found = feedback_from_rest({"reward": reward}).reward
    assert (type(found), found) == (float, reward)


FEEDBACK: list[tuple[Any, str]] = [
    ([], "Invalid JSON: feedback is an object, not a list"),
    (None, "Invalid JSON: feedback is an object, not null"),
    ({"rewards": 1, "z": 1}, "Invalid JSON: feedback has no 'rewards'; it has request, response, reward, truth"),
    ({"reward": "1"}, "Invalid JSON: reward must be a number"),
    ({"reward": None}, "Invalid JSON: reward must be a number"),
    ({"reward": True}, "Invalid JSON: reward must be a number"),
    ({"reward": 1e39}, "Invalid JSON: reward must be a number that fits into 32 bits"),
    ({"reward": -1e300}, "Invalid JSON: reward must be a number that fits into 32 bits"),
    ({"reward": 10**400}, "Invalid JSON: reward must be a number that fits into 32 bits"),
    ({"reward": float("nan")}, "Invalid JSON: reward must be a number"),
    ({"request": [1]}, "Invalid JSON: request is an object, not a list"),
    ({"truth": "x"}, "Invalid JSON: truth is an object, not text"),
    ({"response": {"meta": {"routing": {"r": "1.5"}}}}, "meta.routing must have whole numbers"),
    ({"request": {"data": {"ndarray": 1}}}, "data.ndarray must be a list, not a number"),
]


@pytest.mark.parametrize(("body", "problem"), FEEDBACK, ids=[str(body)[:40] for body, _ in FEEDBACK])
def test_malformed_feedback_is_refused_with_the_reason(body: Any, problem: str) -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        feedback_from_rest(body)
    assert problem in str(caught.value)
    assert (caught.value.status_code, caught.value.reason) == (400, "MICROSERVICE_BAD_DATA")


def test_answer_to_feedback_has_floats_and_leaves_out_what_protobuf_leaves_out() -> None:
    meta = Meta("p", tags={"t": 1, "b": True}, metrics=[{"key": "k", "type": "COUNTER", "value": 1}, {"type": "TIMER"}])
    arrays: dict[Encoding, Any] = {"ndarray": [[1, {"a": np.int64(2)}]], "tensor": np.array([[1, 2]])}
    answer = feedback_answer_to_rest(Message("data", arrays["ndarray"], [], "ndarray", meta))
    assert answer == {
        "data": {"ndarray": [[1.0, {"a": 2.0}]]},
        "meta": {
            "puid": "p",
            "tags": {"t": 1.0, "b": True},
            "metrics": [{"key": "k", "value": 1.0}, {"type": "TIMER", "value": 0.0}],
        },
    }
    assert type(answer["data"]["ndarray"][0][0]) is float
    tensor = feedback_answer_to_rest(Message("data", arrays["tensor"], ["a", "b"], "tensor"))
    assert written(tensor)["data"] == {"names": ["a", "b"], "tensor": {"shape": [1, 2], "values": [1.0, 2.0]}}
    assert tensor["data"]["tensor"]["values"].dtype == np.float64
    empty = feedback_answer_to_rest(Message("data", np.array([]), [], "tensor"))
    assert empty == {"data": {"tensor": {"shape": [0]}}, "meta": {}}
    as_json = feedback_answer_to_rest(Message("jsonData", {"n": 1, "l": [2, None]}))
    assert [type(v) for v in (as_json["jsonData"]["n"], as_json["jsonData"]["l"][0])] == [float, float]
    assert meta.tags == {"t": 1, "b": True}
    assert type(meta.tags["t"]) is int


# -- writing -----------------------------------------------------------------------------------------------------------


def test_message_is_written_with_its_meta_and_its_status() -> None:
    status = {"code": 1, "info": "x"}
    assert message_to_rest(Message("strData", "x", meta=Meta("p"), status=status)) == {
        "strData": "x",
        "meta": {"puid": "p"},
        "status": status,
    }
    assert message_to_rest(Message()) == {"meta": {}}


def test_tensor_of_any_shape_is_written_flat() -> None:
    for values, shape in (([[1, 2], [3, 4]], [2, 2]), (5.0, []), ([[]], [1, 0])):
        tensor = message_to_rest(Message("data", np.array(values), encoding="tensor"))["data"]["tensor"]
        assert (tensor["shape"], tensor["values"].tolist()) == (shape, np.array(values).ravel().tolist())
    fortran = np.asfortranarray([[1, 2], [3, 4]])
    tensor = message_to_rest(Message("data", fortran, encoding="tensor"))["data"]["tensor"]
    assert tensor["values"].tolist() == [1, 2, 3, 4]
    assert message_to_rest(Message("data", [[1, 2]], encoding="tensor"))["data"]["tensor"]["shape"] == [1, 2]


def test_custom_data_has_no_json() -> None:
    with pytest.raises(SeldonMicroserviceException, match="customData is for gRPC: JSON has no form for it"):
        message_to_rest(Message("customData", object()))


# -- there and back ----------------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_SCALARS = st.sampled_from(
    [
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        _TEXT,
        st.none(),
    ]
)


@st.composite
def _meta(draw: st.DrawFn) -> dict[str, Any]:
    parts = {
        "puid": st.text(min_size=1, max_size=4),
        "tags": st.dictionaries(_TEXT, _JSON, min_size=1, max_size=2),
        "routing": st.dictionaries(_TEXT, st.integers(-2, 5), min_size=1, max_size=2),
        "requestPath": st.dictionaries(_TEXT, _TEXT, min_size=1, max_size=2),
        "metrics": st.lists(st.dictionaries(_TEXT, _JSON, max_size=2), min_size=1, max_size=2),
    }
    return draw(st.fixed_dictionaries({}, optional=parts))


@st.composite
def _data(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    count = int(np.prod(shape, dtype=int))
    flat = draw(st.lists(draw(_SCALARS), min_size=count, max_size=count))
    names = draw(st.lists(_TEXT, max_size=3))
    if draw(st.booleans()):
        return {"names": names, "tensor": {"shape": shape, "values": flat}}
    array = np.empty(count, dtype=object)
    array[:] = flat
    return {"names": names, "ndarray": array.reshape(shape).tolist()}


_PAYLOAD = st.one_of(
    st.fixed_dictionaries({"data": _data()}),
    st.fixed_dictionaries({"jsonData": _JSON}),
    st.fixed_dictionaries({"strData": _TEXT}),
    st.fixed_dictionaries({"binData": st.binary(max_size=20).map(lambda b: base64.b64encode(b).decode())}),
)


@given(_PAYLOAD, _meta())
def test_any_message_comes_back_as_it_was(payload: dict[str, Any], meta: dict[str, Any]) -> None:
    body = {**payload, "meta": meta}
    there_and_back = written(message_to_rest(message_from_rest(body)))
    assert there_and_back == body
    assert jsoncodec.dumps(there_and_back, sort_keys=True) == jsoncodec.dumps(body, sort_keys=True)


@given(st.lists(st.tuples(_PAYLOAD, _meta()), min_size=1, max_size=3))
def test_any_messages_come_back_as_they_were(parts: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    body = {"seldonMessages": [{**payload, "meta": meta} for payload, meta in parts]}
    assert written(messages_to_rest(messages_from_rest(body))) == body


@given(_PAYLOAD, _PAYLOAD, st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_feedback_comes_back_as_it_was(request: dict[str, Any], truth: dict[str, Any], reward: float) -> None:
    body = {"request": {**request, "meta": {"puid": "p"}}, "truth": {**truth, "meta": {}}, "reward": reward}
    back = written(feedback_to_rest(feedback_from_rest(body)))
    assert feedback_to_rest(feedback_from_rest(back)).keys() == {"request", "truth", "reward"}
    assert back == written(feedback_to_rest(feedback_from_rest(back)))
    assert (back["reward"], back["request"]["meta"]) == (reward, {"puid": "p"})
    assert back["truth"].keys() == body["truth"].keys()  # type: ignore[attr-defined]


def test_feedback_is_written_without_empty_parts() -> None:
    assert feedback_to_rest(Feedback(reward=0.5)) == {"reward": 0.5}
    assert feedback_to_rest(Feedback(response=Message(meta=Meta("p")))) == {
        "response": {"meta": {"puid": "p"}},
        "reward": 0.0,
    }


@given(_JSON | st.dictionaries(st.sampled_from(["data", "jsonData", "binData", "meta", "request", "reward"]), _JSON))
def test_any_json_is_read_or_refused(body: Any) -> None:
    for read in (message_from_rest, messages_from_rest, feedback_from_rest):
        status = 400
        try:
            read(body)
        except SeldonMicroserviceException as exc:
            status = exc.status_code
        assert status == 400
