"""What is sent, as JSON and as gRPC frame, and how an answer is found right or wrong."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from typing import Any

Rows = Sequence[Sequence[float]]

SMALL: Rows = ((5.1, 3.5, 1.4, 0.2),)
TREE_ANSWER: Rows = ((16.05,),)
"""What the tree makes of the small array."""
TOLERANCE = 1e-9
PREDICT = "/seldon.protos.Model/Predict"
"""The gRPC method that is called."""
_SEED = 20


@functools.cache
def large() -> Rows:
    """1000 rows of 100 floats with all their digits; the same ones each time."""
    numbers = random.Random(_SEED)
    return [[numbers.random() for _ in range(100)] for _ in range(1000)]


@functools.cache
def body(is_large: bool) -> bytes:
    """The JSON of a request."""
    return json.dumps({"data": {"ndarray": large() if is_large else SMALL}}).encode()


@functools.cache
def message(is_large: bool) -> bytes:
    """The protobuf message of a request, with an ``ndarray``."""
    from google.protobuf import json_format

    from servegraph.serving.seldon.proto import prediction_pb2

    value = prediction_pb2.SeldonMessage()
    json_format.Parse(body(is_large), value)
    data: bytes = value.SerializeToString()
    return data


def frame(data: bytes) -> bytes:
    """A message as it travels: a zero byte for what is not compressed, its length, itself."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def wrong_rest(status: int, content: bytes, expected: Rows) -> str:
    """What is wrong with an answer over REST; empty when it holds these rows."""
    if status != 200:
        return f"status {status}: {content[:150].decode(errors='replace')}"
    try:
        right = same(json.loads(content)["data"]["ndarray"], expected)
    except (ValueError, KeyError, TypeError):
        right = False
    return "" if right else f"wrong answer {content[:150].decode(errors='replace')}"


def wrong_message(data: bytes, expected: Rows) -> str:
    """What is wrong with an answer over gRPC; empty when it holds these rows."""
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError

    from servegraph.serving.seldon.proto import prediction_pb2

    try:
        answer = json_format.MessageToDict(prediction_pb2.SeldonMessage.FromString(data))
        right = same(answer["data"]["ndarray"], expected)
    except (DecodeError, KeyError, TypeError):
        right = False
    return "" if right else f"wrong answer {data[:150]!r}"


def same(rows: Any, expected: Rows) -> bool:
    """Whether both hold the same numbers, in the same places."""
    return len(rows) == len(expected) and all(
        len(row) == len(wanted) and all(abs(a - b) < TOLERANCE for a, b in zip(row, wanted, strict=True))
        for row, wanted in zip(rows, expected, strict=True)
    )
