"""What a result becomes: which payload, in which encoding, with which names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.serving.seldon.answers import RawAnswer, Transport, answer
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message, Meta
from servegraph.serving.seldon.rest import message_from_rest, message_to_rest
from servegraph.serving.seldon.tftensor import to_json

REQUESTS: dict[str, dict[str, Any]] = {
    "ndarray": {"data": {"ndarray": [[1]]}},
    "tensor": {"data": {"tensor": {"shape": [1, 1], "values": [1]}}},
    "tftensor": {"data": {"tftensor": to_json(np.array([[1]]))}},
    "empty": {"data": {}},
    "strData": {"strData": "x"},
    "binData": {"binData": ""},
    "jsonData": {"jsonData": {}},
}


def answered(result: Any, request: str = "ndarray", names: Any = None, transport: Transport = "rest") -> Message:
    return answer(result, message_from_rest(REQUESTS[request]), Meta(), names, transport)


def body(result: Any, request: str = "ndarray", names: Any = None, transport: Transport = "rest") -> Any:
    """The JSON of a result, without its meta."""
    message = message_to_rest(answered(result, request, names, transport))
    return {k: v for k, v in jsoncodec.loads(jsoncodec.dumps(message)).items() if k != "meta"}


@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"a": 1}, {"jsonData": {"a": 1}}),
        ({}, {"jsonData": {}}),
        ("text", {"strData": "text"}),
        (np.str_("text"), {"strData": "text"}),
        ("", {"strData": ""}),
        (b"\x00\xff", {"binData": "AP8="}),
        (bytearray(b"\x00\xff"), {"binData": "AP8="}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_payload_follows_the_type_of_the_result_and_not_the_request(
    request_kind: str, result: Any, expected: Any, transport: Transport
) -> None:
    assert body(result, request_kind, ["names"], transport) == expected


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("result", [np.array([[1, 2]]), [[1, 2]]], ids=["array", "list"])
@pytest.mark.parametrize(
    ("request_kind", "encoding"),
    [
        ("ndarray", "ndarray"),
        ("tensor", "tensor"),
        ("tftensor", "tftensor"),
        ("empty", "ndarray"),
        ("strData", "tensor"),
        ("binData", "tensor"),
        ("jsonData", "tensor"),
    ],
)
def test_numbers_mirror_the_request_and_are_a_tensor_where_it_had_none(
    request_kind: str, encoding: str, result: Any, transport: Transport
) -> None:
    message = answered(result, request_kind, None, transport)
    assert (message.kind, message.encoding, message.names) == ("data", encoding, ["t:0", "t:1"])
    assert np.asarray(message.value).dtype == np.int64
    assert np.asarray(message.value).tolist() == [[1, 2]]


@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize("result", [[True, False], ["a", "b"], [None, 1], [{"a": 1}, [2]]], ids=repr)
def test_what_is_no_number_is_an_ndarray(request_kind: str, result: Any) -> None:
    assert body(result, request_kind) == {"data": {"names": [], "ndarray": result}}


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize(("names", "expected"), [(["x"], ["x"]), (np.array(["x", "y"]), ["x", "y"]), ((), [])])
def test_list_with_rows_of_several_lengths_is_sent_as_it_is(
    request_kind: str, names: Any, expected: list[str], transport: Transport
) -> None:
    message = answered([[1], [2, 3]], request_kind, names, transport)
    assert (message.encoding, message.value, message.names) == ("ndarray", [[1], [2, 3]], expected)


def test_list_on_rest_keeps_what_numpy_would_change() -> None:
    mixed = [[1, "a", None, 2.5]]
    assert answered(mixed).value is mixed
    assert answered(mixed, "empty").value is mixed
    assert body([1, "a"], "jsonData") == {"data": {"names": [], "ndarray": [1, "a"]}}
    assert body([[np.int64(1), np.float32(0.5)]]) == {"data": {"names": ["t:0", "t:1"], "ndarray": [[1, 0.5]]}}


def test_list_on_grpc_goes_through_numpy() -> None:
    value = answered([[1, "a"]], transport="grpc").value
    assert (type(value), value.tolist()) == (np.ndarray, [["1", "a"]])


def test_bytes_of_an_answer_do_not_change_with_those_of_the_component() -> None:
    buffer = bytearray(b"ab")
    message = answered(buffer)
    buffer[0] = 0
    assert message.value == b"ab"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ((1, 2), [1, 2]),
        (3, [3]),
        (0.5, [0.5]),
        (True, [True]),
        (np.int64(3), [3]),
        (np.float32(0.5), [0.5]),
        (pd.Series([1, 2]), [1, 2]),
        (np.array(5), 5),
    ],
    ids=repr,
)
def test_other_results_become_arrays(result: Any, expected: Any) -> None:
    assert body(result) == {"data": {"names": [], "ndarray": expected}}


def test_frame_has_the_names_of_its_columns_unless_the_component_has_names() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    assert body(frame) == {"data": {"names": ["a", "b"], "ndarray": [[1, 3], [2, 4]]}}
    assert body(frame, "tensor", ["x", "y"]) == {
        "data": {"names": ["x", "y"], "tensor": {"shape": [2, 2], "values": [1, 3, 2, 4]}}
    }


@pytest.mark.parametrize("result", [None, object(), {1, 2}, 1j, range(3)], ids=["none", "object", "set", "j", "range"])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_result_of_another_type_is_refused(result: Any, transport: Transport) -> None:
    with pytest.raises(SeldonMicroserviceException, match="Unknown data type returned as payload") as caught:
        answered(result, transport=transport)
    assert type(result).__name__ in str(caught.value)
    assert (caught.value.status_code, caught.value.reason) == (400, "MICROSERVICE_BAD_DATA")


def test_any_message_is_custom_data_on_grpc_alone() -> None:
    packed = AnyMessage()
    packed.Pack(StringValue(value="x"))
    message = answered(packed, transport="grpc")
    assert (message.kind, message.value) == ("customData", packed)
    with pytest.raises(SeldonMicroserviceException, match="Unknown data type returned as payload"):
        answered(packed)


@pytest.mark.parametrize(
    ("result", "names", "expected"),
    [
        (np.ones((1, 3)), None, ["t:0", "t:1", "t:2"]),
        (np.ones((1, 2, 5)), None, ["t:0", "t:1"]),
        (np.ones(3), None, []),
        (np.ones(3), ["a", "b", "c"], []),
        (np.ones((1, 2)), ["a", 7, "c"], ["a", "7", "c"]),
        ([[1, 2]], ("a", "b"), ["a", "b"]),
        ([1, 2], ["a", "b"], []),
        (np.array([["a", "b"]]), None, ["t:0", "t:1"]),
        (np.ones((0, 2)), None, ["t:0", "t:1"]),
    ],
)
def test_names_are_for_the_columns_of_what_has_some(result: Any, names: Any, expected: list[str]) -> None:
    assert answered(result, "ndarray", names).names == expected
    assert answered(result, "tensor", names).names == expected


def test_generated_names_are_not_shared_between_answers() -> None:
    first = answered(np.ones((1, 2)))
    first.names.append("mine")
    assert answered(np.ones((1, 2))).names == ["t:0", "t:1"]


@pytest.mark.parametrize("dtype", ["int8", "uint64", "int64", "float16", "float32", "float64"])
def test_integers_stay_whole_and_floats_stay_floats_on_rest(dtype: str) -> None:
    tensor = body(np.array([[1]], dtype), "tensor")["data"]["tensor"]["values"]
    ndarray = body(np.array([[1]], dtype))["data"]["ndarray"][0]
    expected = float if dtype.startswith("float") else int
    assert [type(tensor[0]), type(ndarray[0])] == [expected, expected]


def test_scalar_array_is_a_tensor_without_a_shape() -> None:
    assert body(np.array(2.5), "tensor") == {"data": {"names": [], "tensor": {"shape": [], "values": [2.5]}}}


_RESULTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(_RESULTS, st.sampled_from(sorted(REQUESTS)), st.sampled_from(["rest", "grpc"]))
def test_any_result_becomes_a_message_or_is_refused(result: Any, request_kind: str, transport: Transport) -> None:
    try:
        message = answered(result, request_kind, None, transport)
    except SeldonMicroserviceException:
        assert result is None
        return
    assert message.kind in ("data", "jsonData", "strData", "binData")
    assert jsoncodec.dumps(message_to_rest(message))


# -- low-level answers -------------------------------------------------------------------------------------------------


def test_raw_answer_without_a_meta_has_no_metrics() -> None:
    values: list[Any] = [{}, {"meta": {}}, [], "x", None, 5]
    for value in values:
        assert RawAnswer(value).metrics() == []
    metric = {"key": "k"}
    raw = RawAnswer({"strData": "x", "meta": {"metrics": [metric], "puid": "p"}})
    assert raw.metrics() == [metric]
    raw.drop_metrics()
    assert raw.value == {"strData": "x", "meta": {"puid": "p"}}
