"""NaN and infinity in messages of protobuf, whose values cannot hold them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servegraph.serving.seldon.message import Message, Meta
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.wire import message_from_wire, message_to_proto, message_to_wire

NAN, INF = math.nan, math.inf


def shown(message: Message) -> Any:
    """What a client sees that makes JSON of an answer; the libraries of protobuf refuse NaN in a `Value`."""
    return json_format.MessageToDict(message_to_proto(message))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(np.array([[NAN, 1.0]]), [["NaN", 1.0]], id="few numbers"),
        pytest.param(np.array([NAN, INF, -INF]), ["NaN", "Infinity", "-Infinity"], id="nothing but such numbers"),
        pytest.param(np.array([[1.0, NAN]], "float16"), [[1.0, "NaN"]], id="numbers of half size"),
        pytest.param(np.full((40, 2), INF), [["Infinity", "Infinity"]] * 40, id="many numbers"),
        pytest.param(np.array([[NAN, "a", None]], object), [["NaN", "a", None]], id="beside other values"),
        pytest.param([[NAN], [1.0, 2.0]], [["NaN"], [1.0, 2.0]], id="rows of several lengths"),
    ],
)
def test_not_finite_number_in_an_ndarray_is_written_as_its_word(value: Any, expected: Any) -> None:
    assert shown(Message("data", value, encoding="ndarray"))["data"]["ndarray"] == expected


def test_not_finite_number_in_json_data_and_tags_is_written_as_its_word() -> None:
    body = shown(Message("jsonData", {"a": [NAN, -INF]}, meta=Meta(tags={"score": INF, "mean": np.float32(NAN)})))
    assert body["jsonData"] == {"a": ["NaN", "-Infinity"]}
    assert body["meta"]["tags"] == {"score": "Infinity", "mean": "NaN"}


def test_not_finite_number_in_a_tensor_stays_a_number() -> None:
    proto = message_to_proto(Message("data", np.array([[NAN, INF]]), encoding="tensor"))
    assert math.isnan(proto.data.tensor.values[0])
    assert proto.data.tensor.values[1] == INF


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=9), elements=st.floats()))
def test_ndarray_of_any_numbers_comes_back_as_it_was(array: np.ndarray[Any, Any]) -> None:
    read = message_from_wire(message_to_wire(Message("data", array, encoding="ndarray")))
    assert read.value.dtype == np.float64
    np.testing.assert_array_equal(read.value, array)


@pytest.mark.parametrize(
    "values", [["NaN", "abc"], ["nan", 1.0], ["NaN", 1.0, "x"], ["Infinity", "inf"], ["NaN", None]]
)
def test_word_beside_anything_but_numbers_stays_a_text(values: list[Any]) -> None:
    request = json_format.ParseDict({"data": {"ndarray": [values]}}, pb.SeldonMessage())
    assert message_from_wire(request.SerializeToString()).value[0, 0] == values[0]


def test_word_in_json_data_stays_a_text() -> None:
    read = message_from_wire(json_format.ParseDict({"jsonData": ["NaN"]}, pb.SeldonMessage()).SerializeToString())
    assert read.value == ["NaN"]
