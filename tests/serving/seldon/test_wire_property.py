"""The reader of bytes against protobuf's own classes: for whatever arrives, both must tell the same."""

from __future__ import annotations

import math
import struct
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import assume, example, given

from servegraph.serving.seldon import wire
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.wire_proto import read_proto

# -- messages as senders make them -------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
FLOATS = st.floats(allow_nan=True)
LEAVES = st.none() | st.booleans() | FLOATS | TEXT


def value_of(item: Any) -> struct_pb2.Value:
    """A `Value` made by protobuf's own classes."""
    value = struct_pb2.Value()
    if item is None:
        value.null_value = struct_pb2.NULL_VALUE
    elif isinstance(item, bool):
        value.bool_value = item
    elif isinstance(item, float):
        value.number_value = item
    elif isinstance(item, str):
        value.string_value = item
    elif isinstance(item, list):
        value.list_value.SetInParent()
        value.list_value.values.extend(value_of(i) for i in item)
    else:
        value.struct_value.SetInParent()
        for key, inner in item.items():
            value.struct_value.fields[key].CopyFrom(value_of(inner))
    return value


JSON = st.recursive(LEAVES, lambda i: st.lists(i, max_size=3) | st.dictionaries(TEXT, i, max_size=3), max_leaves=6)


@st.composite
def rectangles(draw: st.DrawFn) -> list[Any]:
    shape = draw(hnp.array_shapes(max_dims=4, min_side=0, max_side=5))
    leaves = draw(st.sampled_from([FLOATS, FLOATS, FLOATS, TEXT, st.booleans(), LEAVES]))
    size = int(np.prod(shape))
    flat = np.empty(size, dtype=object)
    flat[:] = draw(st.lists(leaves, min_size=size, max_size=size)) if size <= 30 else [draw(leaves)] * size
    nested: list[Any] = flat.reshape(shape).tolist()
    return nested


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    values = draw(st.lists(FLOATS, max_size=8))
    fitting = st.sampled_from([[len(values)], [1, len(values)], [len(values), 1, 1]])
    shape = draw(fitting | st.lists(st.integers(-1, 4), max_size=3))
    return pb.Tensor(shape=shape, values=values)


@st.composite
def data(draw: st.DrawFn) -> Any:
    message = pb.DefaultData(names=draw(st.lists(TEXT, max_size=3)))
    kind = draw(st.sampled_from(["tensor", "ndarray", "ndarray", "tftensor", None]))
    if kind == "tensor":
        message.tensor.CopyFrom(draw(tensors()))
    elif kind == "ndarray":
        message.ndarray.CopyFrom(value_of(draw(rectangles() | st.lists(JSON, max_size=3))).list_value)
        message.ndarray.SetInParent()
    elif kind == "tftensor":
        message.tftensor.dtype = draw(st.integers(0, 3))
        message.tftensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=1)))
    return message


@st.composite
def metas(draw: st.DrawFn) -> Any:
    meta = pb.Meta(puid=draw(TEXT), routing=draw(st.dictionaries(TEXT, st.integers(-(2**31), 2**31 - 1), max_size=2)))
    meta.requestPath.update(draw(st.dictionaries(TEXT, TEXT, max_size=2)))
    for key, tag in draw(st.dictionaries(TEXT, JSON, max_size=2)).items():
        meta.tags[key].CopyFrom(value_of(tag))
    for value in draw(st.lists(st.floats(width=32), max_size=2)):
        meta.metrics.add(key=draw(TEXT), type=draw(st.integers(0, 3)), value=value, tags={"a": draw(TEXT)})
    return meta


@st.composite
def messages(draw: st.DrawFn) -> Any:
    message = pb.SeldonMessage()
    kind = draw(st.sampled_from(["data", "data", "data", "strData", "binData", "jsonData", None]))
    if kind == "data":
        message.data.CopyFrom(draw(data()))
    elif kind == "jsonData":
        message.jsonData.CopyFrom(value_of(draw(JSON)))
    elif kind == "strData":
        message.strData = draw(TEXT)
    elif kind == "binData":
        message.binData = draw(st.binary(max_size=4))
    if draw(st.booleans()):
        message.meta.CopyFrom(draw(metas()) if draw(st.booleans()) else pb.Meta())
    if draw(st.integers(0, 4)) == 0:
        message.status.info = draw(TEXT)
    return message


# -- unusual ways to write the same ------------------------------------------------------------------------------------


def varint(number: int, padded: int = 0) -> bytes:
    """A number, with more bytes than it needs where padded; that is legal."""
    out = []
    while number > 127 or padded > 0:
        out.append(number & 127 | 128)
        number, padded = number >> 7, padded - 1
    return bytes([*out, number])


def fields_of(content: bytes) -> list[tuple[int, Any]]:
    """The fields of a message that protobuf wrote: for each its tag, and its content where it has a length."""
    found: list[tuple[int, Any]] = []
    pos = 0
    while pos < len(content):
        tag, pos = content[pos], pos + 1
        if tag & 7 == 2:
            size = shift = 0
            while True:
                byte, pos = content[pos], pos + 1
                size, shift = size | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            found.append((tag, content[pos : pos + size]))
            pos += size
        else:
            width = (
                8 if tag & 7 == 1 else 4 if tag & 7 == 5 else next(i for i in range(10) if content[pos + i] < 128) + 1
            )
            found.append((tag, (content[pos : pos + width],)))
            pos += width
    return found


NESTED: dict[str, dict[int, str]] = {
    "SeldonMessage": {0x12: "Meta", 0x1A: "DefaultData"},
    "DefaultData": {0x12: "Tensor", 0x1A: "ListValue"},
    "ListValue": {0x0A: "Value"},
    "Value": {0x32: "ListValue"},
    "Tensor": {},
    "Meta": {},
}


def rewritten(draw: st.DrawFn, content: bytes, name: str) -> bytes:
    """The same message with its fields in another order, cut in pieces, or with padded lengths, here and there."""
    out: list[bytes] = []
    for tag, part in fields_of(content):
        if isinstance(part, tuple):
            out.append(bytes((tag,)) + part[0])
            continue
        inner = NESTED[name].get(tag)
        change = draw(st.sampled_from(["none", "none", "none", "inside", "padded", "pieces"]))
        if inner is not None and change == "inside":
            part = rewritten(draw, part, inner)
        if name == "Tensor" and change == "inside":
            unpacked = [part[i : i + 8] for i in range(0, len(part), 8)] if tag == 0x12 else None
            if unpacked is not None:
                out += [b"\x11" + number for number in unpacked]
                continue
        pieces = [part]
        if change == "pieces" and inner is not None:
            parts = [t.to_bytes() + (p[0] if isinstance(p, tuple) else varint(len(p)) + p) for t, p in fields_of(part)]
            cut = draw(st.integers(0, len(parts)))
            pieces = [b"".join(parts[:cut]), b"".join(parts[cut:])]
        out += [bytes((tag,)) + varint(len(p), 1 if change == "padded" else 0) + p for p in pieces]
    if name in ("SeldonMessage", "DefaultData", "Tensor") and draw(st.booleans()):
        out = draw(st.permutations(out))
    return b"".join(out)


@st.composite
def unusual(draw: st.DrawFn) -> bytes:
    return rewritten(draw, draw(messages()).SerializeToString(), "SeldonMessage")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(messages()).SerializeToString())
    for _ in range(draw(st.integers(1, 3))):
        if content:
            place = draw(st.integers(0, len(content) - 1))
            change = draw(st.sampled_from(["byte", "cut", "drop", "insert"]))
            if change == "byte":
                content[place] = draw(st.integers(0, 255))
            elif change == "cut":
                del content[place:]
            elif change == "drop":
                del content[place]
            else:
                content.insert(place, draw(st.integers(0, 255)))
    return bytes(content)


# -- comparing ---------------------------------------------------------------------------------------------------------


def ordered(value: Any) -> str:
    """A value as text, with the keys in order: those of protobuf's maps have none."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {ordered(inner)}' for key, inner in sorted(value.items()))}}}"
    if isinstance(value, list):
        return f"[{', '.join(ordered(item) for item in value)}]"
    return repr(value)


def told(message: Message) -> Any:
    """All of a message, in a form in which equal is equal: NaN too, and types and order of arrays."""
    value = message.value
    if isinstance(value, np.ndarray):
        content = ordered(value.tolist()) if value.dtype.kind in "OU" else value.tobytes()
        value = (value.dtype.str, value.shape, value.flags.writeable, value.flags.c_contiguous, content)
    meta = message.meta
    maps = [ordered(part) for part in (meta.tags, meta.routing, meta.request_path, meta.metrics)]
    return (
        message.kind,
        ordered(value),
        message.names,
        message.encoding,
        meta.puid,
        maps,
        message.status,
    )


def slowly(content: bytes) -> Any:
    """What protobuf's classes make of bytes; 400 where they are no message, or a malformed one."""
    try:
        return told(read_proto(pb.SeldonMessage.FromString(content)))
    except (DecodeError, UnicodeDecodeError, SeldonMicroserviceException):
        return 400


def quickly(content: bytes) -> Any:
    try:
        return told(wire.message_from_wire(content))
    except SeldonMicroserviceException as exc:
        return exc.status_code


@given(messages())
def test_message_is_read_as_protobuf_reads_it(message: Any) -> None:
    assert quickly(message.SerializeToString()) == slowly(message.SerializeToString())
    try:
        again = told(wire.message_from_proto(message))
    except SeldonMicroserviceException as exc:
        again = exc.status_code
    assert again == slowly(message.SerializeToString())


@given(unusual())
def test_unusual_but_legal_bytes_are_read_as_protobuf_reads_them(content: bytes) -> None:
    assert quickly(content) == slowly(content)


@given(damaged())
@example(b"\x1a\x05\x1a\x03\x0a\x09\x11")
@example(b"\x1a\x03\x1a\x01\x0a")
@example(b"\x1a\x06\x12\x04\x12\x02\x00\x00")
def test_damaged_bytes_are_read_as_protobuf_reads_them(content: bytes) -> None:
    assert quickly(content) == slowly(content)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_protobuf_reads_them(content: bytes) -> None:
    assert quickly(content) == slowly(content)
    for read in (wire.feedback_from_wire, wire.messages_from_wire):
        try:
            read(content)
        except SeldonMicroserviceException as exc:
            status = exc.status_code
        else:
            status = 400
        assert status == 400


NUMBER = b"\x0a\x09\x11" + struct.pack("<d", 1.5)


@given(st.integers(1, 3), st.integers(0, 150), st.integers(0, 4000), st.integers(0, 255))
def test_array_with_one_byte_changed_is_read_as_protobuf_reads_it(
    columns: int, rows: int, place: int, byte: int
) -> None:
    row = NUMBER * columns
    item = b"\x32" + varint(len(row)) + row
    content = bytearray((b"\x0a" + varint(len(item)) + item) * rows)
    if content:
        content[place % len(content)] = byte
    inner = b"\x1a" + varint(len(content)) + content
    message = b"\x1a" + varint(len(inner)) + inner
    assert quickly(message) == slowly(message)


@given(messages(), messages(), messages(), st.floats(width=32), st.booleans())
def test_feedback_is_read_as_protobuf_reads_it(first: Any, second: Any, third: Any, reward: float, cut: bool) -> None:
    source = pb.Feedback(request=first, response=second, reward=reward)
    content = source.SerializeToString() + (b"" if cut else pb.Feedback(truth=third).SerializeToString())
    source = pb.Feedback.FromString(content)
    wanted = [slowly(getattr(source, name).SerializeToString()) for name in ("request", "response", "truth")]
    for read, argument in ((wire.feedback_from_wire, content), (wire.feedback_from_proto, source)):
        try:
            feedback = read(argument)
        except SeldonMicroserviceException as exc:
            assert exc.status_code in wanted  # noqa: PT017
        else:
            assert [told(m) for m in (feedback.request, feedback.response, feedback.truth)] == wanted
            assert struct.pack("<f", feedback.reward) == struct.pack("<f", reward)


# -- writing -----------------------------------------------------------------------------------------------------------


def with_words(item: Any) -> Any:
    """A value with words for the numbers that a `Value` may not hold."""
    if isinstance(item, float) and not math.isfinite(item):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(item)]
    if isinstance(item, list):
        return [with_words(inner) for inner in item]
    return {key: with_words(inner) for key, inner in item.items()} if isinstance(item, dict) else item


def is_valid(message: Any) -> bool:
    """Whether protobuf has JSON for a message: not where a `Value` holds NaN or infinity."""
    try:
        json_format.MessageToDict(message)
    except json_format.SerializeToJsonError:
        return False
    return True


@given(
    hnp.arrays(
        st.sampled_from(["f8", "f4", "i8", "u1", "?", ">f8", ">i2"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    ),
    st.sampled_from(["tensor", "ndarray", None]),
    st.lists(TEXT, max_size=3),
)
def test_array_is_written_as_protobuf_writes_it(array: Any, encoding: Any, names: list[str]) -> None:
    wanted = pb.SeldonMessage(meta=pb.Meta(), data=pb.DefaultData(names=names))
    if encoding == "ndarray" or array.dtype.kind == "b":
        plain = array if array.dtype.kind == "b" else array.astype(float)
        nested = (plain if plain.ndim else plain.reshape(1)).tolist()
        wanted.data.ndarray.CopyFrom(value_of(with_words(nested)).list_value)
        wanted.data.ndarray.SetInParent()
    else:
        wanted.data.tensor.CopyFrom(pb.Tensor(shape=array.shape, values=array.astype(float).ravel().tolist()))
        wanted.data.tensor.SetInParent()
    assert wire.message_to_wire(Message("data", array, names, encoding)) == wanted.SerializeToString()


@given(JSON, st.dictionaries(TEXT, JSON, max_size=3))
def test_json_value_is_written_as_protobuf_writes_it(value: Any, tags: dict[str, Any]) -> None:
    wanted = pb.SeldonMessage(jsonData=value_of(with_words(value)), meta=pb.Meta())
    for key, tag in tags.items():
        wanted.meta.tags[key].CopyFrom(value_of(with_words(tag)))
    found = wire.message_to_proto(Message("jsonData", value, meta=Meta(tags=tags)))
    assert found.SerializeToString(deterministic=True) == wanted.SerializeToString(deterministic=True)


@given(messages(), messages())
def test_message_is_written_as_it_was_read(first: Any, second: Any) -> None:
    assume(is_valid(first) and is_valid(second))
    if 400 in (slowly(first.SerializeToString()), slowly(second.SerializeToString())):
        return
    read, other = wire.message_from_proto(first), wire.message_from_proto(second)
    assert told_but_copied(wire.message_from_wire(wire.message_to_wire(read))) == told_but_copied(read)
    again = wire.messages_from_wire(wire.messages_to_wire([read, other]))
    assert [told_but_copied(m) for m in again] == [told_but_copied(read), told_but_copied(other)]
    feedback = wire.feedback_from_wire(wire.feedback_to_wire(Feedback(read, other)))
    assert told_but_copied(feedback.response) == told_but_copied(other)


def told_but_copied(message: Message) -> Any:
    """All of a message but what bytes cannot tell.

    That is the shape of an array without elements, the encoding, and the room that an array has for longer texts.
    """
    value = message.value
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = np.array(value.tolist())
    if isinstance(value, np.ndarray):
        empty = not value.size
        value = np.empty(0) if empty else value
    copied = Message(message.kind, value, message.names, None, message.meta, message.status)
    return told(copied)


def test_written_message_is_valid_for_protobufs_json() -> None:
    message = Message("data", np.array([["a", "b"]]), ["x"], meta=Meta("p", {"t": [1, {"a": None}]}))
    assert json_format.MessageToDict(wire.message_to_proto(message)) == {
        "meta": {"puid": "p", "tags": {"t": [1.0, {"a": None}]}},
        "data": {"names": ["x"], "ndarray": [["a", "b"]]},
    }
