"""What messages mean as protobuf: payloads, names, meta, feedback, and what is refused."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any

import numpy as np
import pytest
from google.protobuf import any_pb2, json_format

from servegraph.serving.seldon import wire
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.proto import prediction_pb2 as pb


def proto(body: dict[str, Any]) -> Any:
    return json_format.ParseDict(body, pb.SeldonMessage())


def read(body: dict[str, Any]) -> Message:
    return wire.message_from_wire(proto(body).SerializeToString())


def written(message: Message) -> Any:
    return json_format.MessageToDict(pb.SeldonMessage.FromString(wire.message_to_wire(message)))


def nested(depth: int, kind: str = "list") -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "encoding", "dtype", "expected"),
    [
        ({"tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}, "tensor", "float64", [[1, 2], [3, 4]]),
        ({"tensor": {"shape": [0], "values": []}}, "tensor", "float64", []),
        ({"tensor": {"values": [7]}}, "tensor", "float64", 7.0),
        ({"ndarray": [[1, 2], [3, 4]]}, "ndarray", "float64", [[1, 2], [3, 4]]),
        ({"ndarray": [1, 2]}, "ndarray", "float64", [1, 2]),
        ({"ndarray": [[[1], [2]]]}, "ndarray", "float64", [[[1], [2]]]),
        ({"ndarray": []}, "ndarray", "float64", []),
        ({"ndarray": [[], []]}, "ndarray", "float64", [[], []]),
        ({"ndarray": [["a", "bc"]]}, "ndarray", "<U2", [["a", "bc"]]),
        ({"ndarray": [[True, False]]}, "ndarray", "bool", [[True, False]]),
        ({"ndarray": [[1, None]]}, "ndarray", "object", [[1, None]]),
        ({"ndarray": [{"a": [1]}]}, "ndarray", "object", [{"a": [1]}]),
        ({"tftensor": {"dtype": "DT_INT32", "tensorShape": {"dim": [{"size": 2}]}, "intVal": [1, 2]}},
         "tftensor", "int32", [1, 2]),
        ({}, None, "float64", []),
    ],
)  # fmt: skip
def test_data_is_read_as_an_array(data: dict[str, Any], encoding: str | None, dtype: str, expected: Any) -> None:
    message = read({"data": {"names": ["a", "b"], **data}})
    assert message.kind == "data"
    assert message.encoding == encoding
    assert message.names == ["a", "b"]
    assert message.value.dtype == np.dtype(dtype)
    assert message.value.tolist() == expected
    assert message.value.flags.writeable


def test_data_with_many_rows_is_read_as_an_array() -> None:
    rows = np.arange(3000.0).reshape(100, 5, 6)
    assert np.array_equal(read({"data": {"ndarray": rows.tolist()}}).value, rows)
    column = np.arange(300.0).reshape(300, 1)
    assert np.array_equal(read({"data": {"ndarray": column.tolist()}}).value, column)


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ({"strData": "é"}, "strData", "é"),
        ({"strData": ""}, "strData", ""),
        ({"binData": "AAE="}, "binData", b"\x00\x01"),
        ({"jsonData": {"a": [1, None, True, "x", {}]}}, "jsonData", {"a": [1.0, None, True, "x", {}]}),
        ({"jsonData": None}, "jsonData", None),
        ({"jsonData": 3}, "jsonData", 3.0),
        ({}, None, None),
    ],
)
def test_other_payloads_are_read_as_python_values(body: dict[str, Any], kind: str | None, value: Any) -> None:
    message = read(body)
    assert message.kind == kind
    assert message.value == value
    assert message.names == []
    assert message.encoding is None


def test_custom_data_is_read_as_any() -> None:
    packed = any_pb2.Any()
    packed.Pack(pb.Tensor(shape=[3]))
    message = wire.message_from_wire(pb.SeldonMessage(customData=packed).SerializeToString())
    assert message.kind == "customData"
    assert message.value == packed


META = {
    "puid": "p",
    "tags": {"n": 1.0, "l": [True, None], "s": "x"},
    "routing": {"r": -1},
    "requestPath": {"m": "image:1"},
    "metrics": [
        {"key": "c", "type": "COUNTER", "value": 1.0},
        {"key": "t", "type": "TIMER", "value": 20.2, "tags": {"a": "b"}},
    ],
}


def test_meta_is_read_and_written_with_all_its_parts() -> None:
    message = read({"strData": "x", "meta": META})
    assert message.meta.to_dict() == META
    again = written(message)["meta"]
    assert [m.pop("type", "COUNTER") for m in again["metrics"]] == ["COUNTER", "TIMER"]
    assert again["metrics"][1] == {"key": "t", "value": 20.2, "tags": {"a": "b"}}
    assert {k: v for k, v in again.items() if k != "metrics"} == {k: v for k, v in META.items() if k != "metrics"}


def test_metric_type_from_the_future_stays_a_number() -> None:
    data = pb.SeldonMessage(meta=pb.Meta(metrics=[pb.Metric(type=7)])).SerializeToString()
    message = wire.message_from_wire(data)
    assert message.meta.metrics == [{"key": "", "type": 7, "value": 0.0}]
    assert pb.SeldonMessage.FromString(wire.message_to_wire(message)).meta.metrics[0].type == 7


def test_status_is_read_and_written() -> None:
    status = {"code": -1, "info": "i", "reason": "r", "status": 1}
    message = read({"status": status})
    assert message.status == status
    assert written(message)["status"] == {**status, "status": "FAILURE"}
    assert written(Message(status={"status": "FAILURE"}))["status"] == {"status": "FAILURE"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"tensor": {"shape": [1, 1], "values": [1, 2, 3]}}, "3 values, and its shape [1, 1] needs 1"),
        ({"tensor": {"shape": [1, 4], "values": [1, 2]}}, "2 values, and its shape [1, 4] needs 4"),
        ({"tensor": {"values": [1, 2]}}, "2 values, and its shape [] needs 1"),
        ({"tensor": {}}, "0 values, and its shape [] needs 1"),
        ({"tensor": {"shape": [-1, -1], "values": [1]}}, "negative"),
        ({"tensor": {"shape": [0, 2**31 - 1]}}, "too large for none"),
        ({"tensor": {"shape": [1] * 100, "values": [1]}}, "100 dimensions"),
        ({"ndarray": [[1, 2], [3]]}, "not rectangular"),
        ({"ndarray": [[1], 2]}, "not rectangular"),
        ({"ndarray": [["a"], "b"]}, "not rectangular"),
        ({"ndarray": ["a" * 10_000, *["b"] * 10_000]}, "a text of 10000 characters"),
    ],
)
def test_malformed_data_is_refused_with_the_reason(data: dict[str, Any], text: str) -> None:
    with pytest.raises(SeldonMicroserviceException) as failure:
        read({"data": data})
    assert failure.value.status_code == 400
    assert text in str(failure.value)


@pytest.mark.parametrize("data", [b"\x0a", b"\xff", b"\x2a\x05ab", b"\x2a\x01\xff", b"\x1a\x03\x0a\x01\xff"])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    for function in (wire.message_from_wire, wire.feedback_from_wire, wire.messages_from_wire):
        with pytest.raises(SeldonMicroserviceException) as failure:
            function(b"\x0a" + bytes((len(data),)) + data if function is not wire.message_from_wire else data)
        assert failure.value.status_code == 400


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes((number & 127 | 128,)), number >> 7
    return out + bytes((number,))


def test_deeply_nested_value_is_refused_and_not_overflowing() -> None:
    for levels in (60, 3000):
        value = b"\x11" + bytes(8)
        for _ in range(levels):
            item = b"\x0a" + varint(len(value)) + value
            value = b"\x32" + varint(len(item)) + item
        for data in (b"\x32" + varint(len(value)) + value, b"\x1a" + varint(len(item) + 4) + b"\x1a" + item):
            with pytest.raises(SeldonMicroserviceException) as failure:
                wire.message_from_wire(data)
            assert failure.value.status_code == 400


def test_value_that_can_be_written_can_be_read() -> None:
    for kind, depth in (("list", 46), ("dict", 30)):
        deepest = nested(depth, kind)
        assert wire.message_from_wire(wire.message_to_wire(Message("jsonData", deepest))).value == deepest
        tagged = Feedback(request=Message(meta=Meta(tags={"t": deepest})))
        assert wire.feedback_from_wire(wire.feedback_to_wire(tagged)).request.meta.tags == {"t": deepest}
        with pytest.raises(SeldonMicroserviceException, match=r"jsonData .* nested too deeply"):
            wire.message_to_wire(Message("jsonData", nested(depth + 1, kind)))


def test_message_of_a_proto_knows_its_source() -> None:
    for body in ({"data": {"ndarray": [1, 2]}}, {"jsonData": 1}):
        source = proto(body)
        assert wire.message_from_proto(source).source is source
    assert wire.message_from_wire(source.SerializeToString()).source is None


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"names": ["a"], "ndarray": [[1.5, 2]]}},
        {"data": {"ndarray": [1.5] * 100}, "meta": {}},
        {"data": {"ndarray": [[[1.5] * 5] * 5] * 5}},
        {"data": {"ndarray": [[1.5]] * 300}, "meta": {"puid": "p", "tags": {"a": 1}}},
        {"data": {"names": ["a"], "tensor": {"shape": [1, 2], "values": [1, 2]}}},
        {"data": {}},
        {"strData": "x"},
        {"binData": "AA=="},
        {"meta": {}},
    ],
)
def test_common_messages_are_read_without_the_classes_of_protobuf(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = proto(body).SerializeToString()
    feedback = pb.Feedback(request=proto(body), reward=1).SerializeToString()
    monkeypatch.delattr(wire, "read_proto")
    assert wire.message_from_wire(content).kind == next((kind for kind in body if kind != "meta"), None)
    assert wire.feedback_from_wire(feedback).reward == 1
    assert len(wire.messages_from_wire(pb.SeldonMessageList(seldonMessages=[proto(body)] * 2).SerializeToString())) == 2


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "encoding", "data"),
    [
        (np.array([[1, 2]]), "tensor", {"tensor": {"shape": [1, 2], "values": [1, 2]}}),
        (np.array([[1, 2]]), None, {"tensor": {"shape": [1, 2], "values": [1, 2]}}),
        (np.array([[1, 2]]), "ndarray", {"ndarray": [[1, 2]]}),
        (np.array([[1, 2]], np.int32), "tftensor",
         {"tftensor": {"dtype": "DT_INT32", "tensorShape": {"dim": [{"size": "1"}, {"size": "2"}]},
                       "tensorContent": "AQAAAAIAAAA="}}),
        (np.array([True]), "tensor", {"ndarray": [True]}),
        (np.array([["a"]]), "tftensor", {"ndarray": [["a"]]}),
        (np.array([["a"]]), None, {"ndarray": [["a"]]}),
        (np.array([None, 1, "x", {"a": [1]}, np.float32(1.5)], object), None,
         {"ndarray": [None, 1, "x", {"a": [1]}, 1.5]}),
        (np.array(5), "ndarray", {"ndarray": [5]}),
        (np.array("x"), "ndarray", {"ndarray": ["x"]}),
        (np.array(5), "tensor", {"tensor": {"values": [5]}}),
        (np.empty((0,)), "ndarray", {"ndarray": []}),
        (np.empty((2, 0)), "ndarray", {"ndarray": [[], []]}),
        (np.empty((0,)), "tensor", {"tensor": {"shape": [0]}}),
        (np.array([[1.5]], np.float16), "ndarray", {"ndarray": [[1.5]]}),
        (np.array([[1.5]], np.longdouble), "tensor", {"tensor": {"shape": [1, 1], "values": [1.5]}}),
        (np.array([[1.5]], np.longdouble).astype(object), "tensor", {"ndarray": [[1.5]]}),
        (np.array(["2020-01-02T03:04:05"], "M8[s]"), "ndarray", {"ndarray": ["2020-01-02T03:04:05"]}),
        (np.array([b"ab"]), "ndarray", {"ndarray": ["ab"]}),
        ([[1, 2]], "ndarray", {"ndarray": [[1, 2]]}),
        ([[1, 2]], "tensor", {"tensor": {"shape": [1, 2], "values": [1, 2]}}),
        ([[np.float32(1.5), np.int64(2)]], "ndarray", {"ndarray": [[1.5, 2]]}),
        ([["a", 1, 2.5]], "ndarray", {"ndarray": [["a", "1", "2.5"]]}),
        ([[1], [2, 3]], "tensor", {"ndarray": [[1], [2, 3]]}),
        ((1, 2), "tensor", {"tensor": {"shape": [2], "values": [1, 2]}}),
        ([2**70, 1], "tensor", {"ndarray": [2.0**70, 1]}),
        ([], "ndarray", {"ndarray": []}),
    ],
)  # fmt: skip
def test_array_is_written_as_its_encoding_says(array: Any, encoding: Any, data: dict[str, Any]) -> None:
    message = Message("data", array, ["n", "é"], encoding)
    assert written(message) == {"meta": {}, "data": {"names": ["n", "é"], **data}}
    assert wire.message_to_proto(message) == pb.SeldonMessage.FromString(wire.message_to_wire(message))


@pytest.mark.parametrize("shape", [(65,), (10, 10), (3, 200, 1), (2, 3, 4, 5), (1, 1, 1), (200, 2)])
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", ">f4"])
def test_array_of_many_elements_is_written_as_lists(shape: tuple[int, ...], dtype: str) -> None:
    array = (np.arange(np.prod(shape)) % 3).reshape(shape).astype(dtype)
    assert written(Message("data", array, encoding="ndarray"))["data"]["ndarray"] == array.tolist()
    turned = np.asfortranarray(array)[::-1]
    assert written(Message("data", turned, encoding="ndarray"))["data"]["ndarray"] == turned.tolist()
    if dtype != "bool":
        assert (
            written(Message("data", turned, encoding="tensor"))["data"]["tensor"]["values"] == turned.ravel().tolist()
        )


class Colour(enum.StrEnum):
    RED = "red"


class Row(dict[str, Any]):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": np.int64(1), "b": np.array([[1, 2]]), "c": np.bool_(True), "d": (1,)},
         {"a": 1, "b": [[1, 2]], "c": True, "d": [1]}),
        ({2: "a", None: "b", True: "c"}, {"2": "a", "null": "b", "true": "c"}),
        (Row(x=Colour.RED), {"x": "red"}),
        ({Colour.RED: np.str_("s")}, {"red": "s"}),
        ({"when": dt.date(2020, 1, 2), "raw": b"ab", "set": {1}}, {"when": "2020-01-02", "raw": "ab", "set": [1]}),
        ([np.datetime64("2020-01-02"), np.longdouble(2)], ["2020-01-02T00:00:00", 2]),
    ],
)  # fmt: skip
def test_json_value_is_written_plain(value: Any, expected: Any) -> None:
    assert written(Message("jsonData", value)) == {"meta": {}, "jsonData": expected}


def test_other_payloads_are_written() -> None:
    packed = any_pb2.Any(type_url="t", value=b"v")
    assert wire.message_to_proto(Message("customData", packed)).customData == packed
    assert wire.message_to_proto(Message("binData", bytearray(b"a"))).binData == b"a"
    assert wire.message_to_proto(Message("strData", "")).WhichOneof("data_oneof") == "strData"
    assert written(Message()) == {"meta": {}}


def test_meta_of_numbers_and_labels_of_other_types_is_written() -> None:
    meta = Meta(
        tags={1: np.float32(0.5)},  # type: ignore[dict-item]
        routing={"r": np.int64(2), "s": 1.0},  # type: ignore[dict-item]
        metrics=[{"key": "k", "type": "gauge", "value": np.float64(1e300), "tags": {"worker": 3}}],
    )
    assert written(Message(meta=meta))["meta"] == {
        "tags": {"1": 0.5},
        "routing": {"r": 2, "s": 1},
        "metrics": [{"key": "k", "type": "GAUGE", "value": "Infinity", "tags": {"worker": "3"}}],
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message("data", object()), "data .* object, which is neither array nor list"),
        (Message("data", np.array([1j]), encoding="tensor"), "data.ndarray .* ndarray, which has no JSON"),
        (Message("data", [object()]), "data.ndarray .* object, which has no JSON"),
        (Message("data", [10**400]), "data.ndarray .* 1329 bits"),
        (Message("data", np.empty((1 << 20, 0)), encoding="ndarray"), "1048576 empty lists"),
        (Message("data", np.empty((0, 1 << 33)), encoding="tensor"), "larger than its numbers"),
        (Message("data", [1], ["\ud800"]), "data.names .* not valid Unicode"),
        (Message("strData", "\ud800"), "strData .* not valid Unicode"),
        (Message("strData", 5), "strData .* int"),
        (Message("binData", "text"), "binData .* str"),
        (Message("customData", pb.Tensor()), "customData .* Tensor"),
        (Message("jsonData", {"a": 1j}), "jsonData .* complex"),
        (Message("jsonData", {(1, 2): 1}), "jsonData .* a key of type tuple"),
        (Message(meta=Meta(puid=5)), "meta.puid .* int"),  # type: ignore[arg-type]
        (Message(meta=Meta(routing={"r": 2**40})), "meta.routing .* 32 bits"),
        (Message(meta=Meta(routing={"r": "x"})), "meta.routing .* str"),  # type: ignore[dict-item]
        (Message(meta=Meta(routing={"r": float("nan")})), "meta.routing .* float"),  # type: ignore[dict-item]
        (Message(meta=Meta(request_path={"r": None})), "meta.requestPath .* NoneType"),  # type: ignore[dict-item]
        (Message(meta=Meta(metrics=["x"])), "meta.metrics .* str"),  # type: ignore[list-item]
        (Message(meta=Meta(metrics=[{"type": "RATE"}])), "'RATE'; it is one of COUNTER, GAUGE, TIMER"),
        (Message(meta=Meta(metrics=[{"value": "much"}])), "meta.metrics .* str where a number"),
        (Message(meta=Meta(metrics=[{"tags": [1]}])), "tags of type list"),
        (Message(meta=Meta(metrics=[{"tags": {"a": None}}])), "meta.metrics .* NoneType"),
        (Message(status={"code": "x"}), "status.code .* str"),
        (Message(status=[]), "status .* list"),  # type: ignore[arg-type]
    ],
)
def test_value_that_protobuf_cannot_carry_is_named(message: Message, text: str) -> None:
    for write in (wire.message_to_wire, wire.message_to_proto):
        with pytest.raises(SeldonMicroserviceException, match=text) as failure:
            write(message)
        assert failure.value.status_code == 500


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="numpy 1 has no array of so many dimensions")
def test_array_of_too_many_dimensions_is_named() -> None:
    with pytest.raises(SeldonMicroserviceException, match="60 dimensions"):
        wire.message_to_wire(Message("data", np.empty((1,) * 60), encoding="ndarray"))


# -- several messages, and feedback ------------------------------------------------------------------------------------


def test_messages_are_read_and_written() -> None:
    messages = [
        Message("data", np.array([[1.0]]), ["a"], "ndarray"),
        Message("strData", "x", meta=Meta("p")),
        Message(),
    ]
    data = wire.messages_to_wire(messages)
    source = wire.messages_to_proto(messages)
    assert source.SerializeToString() == data
    for again in (wire.messages_from_wire(data), wire.messages_from_proto(source)):
        assert [m.kind for m in again] == ["data", "strData", None]
        assert again[0].value.tolist() == [[1.0]]
        assert again[1].meta.puid == "p"
    assert wire.messages_from_wire(b"") == []


def test_messages_beside_unknown_fields_are_read() -> None:
    data = wire.messages_to_wire([Message("strData", "x")])
    assert [m.value for m in wire.messages_from_wire(data + b"\x18\x01")] == ["x"]


def test_feedback_is_read_and_written() -> None:
    feedback = Feedback(
        Message("data", np.array([[1.5]]), ["a"], "tensor"),
        Message(meta=Meta(routing={"r": 1})),
        Message("strData", "yes"),
        0.1,
    )
    data = wire.feedback_to_wire(feedback)
    source = wire.feedback_to_proto(feedback)
    for again in (wire.feedback_from_wire(data), wire.feedback_from_proto(source)):
        assert again.request.value.tolist() == [[1.5]]
        assert again.response.meta.routing == {"r": 1}
        assert again.truth.value == "yes"
        assert again.reward == pytest.approx(0.1)
        assert again.reward == np.float32(0.1)
    assert wire.feedback_from_proto(source).source is source


def test_feedback_without_parts_is_empty() -> None:
    assert wire.feedback_to_wire(Feedback()) == b""
    feedback = wire.feedback_from_wire(b"")
    assert (feedback.request.kind, feedback.truth.kind, feedback.reward) == (None, None, 0.0)


def test_feedback_with_a_part_twice_is_merged() -> None:
    first, second = pb.Feedback(), pb.Feedback()
    first.request.meta.puid = "p"
    second.request.strData = "x"
    feedback = wire.feedback_from_wire(first.SerializeToString() + second.SerializeToString())
    assert feedback.request.meta.puid == "p"
    assert feedback.request.value == "x"
