"""Bytes of protobuf messages that are nearly right, lie, or are no message at all; the same for the same seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message
from seldon_fuzz import DTYPES, seeds

from servegraph.runtimes.seldon.grpc_methods import METADATA_METHODS, METHODS
from servegraph.serving.seldon.proto import prediction_pb2 as pb

_PACKAGE: Final = "/seldon.protos."
_SIZES: Final = (0, 1, 1, 2, 2, 3, 5, 127, 128, 2**16, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**64 - 1)


class Call(NamedTuple):
    """One gRPC call."""

    method: str
    data: bytes


def calls(seed: int, count: int) -> Iterator[Call]:
    """So many calls over all methods."""
    r = random.Random(seed)
    known = _known()
    names = [*METHODS, *METADATA_METHODS]
    for _ in range(count):
        name = r.choice(names)
        kind = "list" if name.endswith("Aggregate") else "feedback" if name.endswith("Feedback") else "message"
        own = known[kind] if r.random() < 0.9 else known[r.choice(list(known))]
        yield Call(_PACKAGE + name, _made(r, kind, own))


def _known() -> dict[str, list[bytes]]:
    """For each kind of message the bytes of right ones."""
    kinds: dict[str, type[Message]] = {
        "message": pb.SeldonMessage,
        "list": pb.SeldonMessageList,
        "feedback": pb.Feedback,
    }
    found: dict[str, list[bytes]] = {kind: [b""] for kind in kinds}
    for body in seeds():
        for kind, message in kinds.items():
            value: Any = {"seldonMessages": body} if kind == "list" and isinstance(body, list) else body
            try:
                found[kind].append(json_format.ParseDict(value, message()).SerializeToString())
            except json_format.ParseError:
                continue
    return found


def _made(r: random.Random, kind: str, known: list[bytes]) -> bytes:
    way = r.random()
    if way < 0.35:
        return changed(r.choice(known), r)
    if way < 0.85:
        message = r.choice(PAYLOADS)(r)
        if r.random() < 0.3:
            message = field(2, r.choice(METAS)(r)) + message
        if r.random() < 0.25:
            message = changed(message, r)
        if kind == "list":
            return b"".join(field(1, message) for _ in range(r.choice((1, 2, 3, 50))))
        if kind == "feedback":
            parts = [field(1, message), field(2, field(2, r.choice(METAS)(r))), field(4, message)]
            return b"".join(parts[: r.randrange(4)]) + b"\x1d" + r.choice(FLOATS)
        return message
    if way < 0.95:
        return r.randbytes(r.choice((1, 2, 5, 20, 200)))
    return b"".join(r.choice(known) for _ in range(3))  # merged, as protobuf does it


_NUMBERS: Final = (0.0, 1.0, -1.0, float("nan"), float("inf"), 1e38, 1e-45)
FLOATS: Final = (*(struct.pack("<f", x) for x in _NUMBERS), b"", b"\x00")


def varint(number: int) -> bytes:
    """A whole number of any size."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def field(number: int, content: bytes, size: int | None = None) -> bytes:
    """A field of bytes, whose length may lie."""
    return varint(number << 3 | 2) + varint(len(content) if size is None else size) + content


def changed(data: bytes, r: random.Random) -> bytes:
    """Bytes with a few changes."""
    raw = bytearray(data)
    for _ in range(r.choice((0, 1, 1, 2, 4))):
        at = r.randrange(len(raw) + 1)
        kind = r.randrange(8)
        if kind == 0:
            del raw[at:]
        elif kind == 1 and raw:
            raw[at % len(raw)] = r.randrange(256)
        elif kind == 2:
            raw[at:at] = r.randbytes(r.choice((1, 2, 8)))
        elif kind == 3:
            del raw[at : at + r.randrange(1, 5)]
        elif kind == 4:
            raw[at:at] = r.choice(UNKNOWN)
        elif kind == 5 and raw:
            raw[at % len(raw)] ^= 1 << r.randrange(8)
        elif kind == 6:
            raw += raw[at : at + 30]
        else:
            raw[at:at] = varint(r.choice(_SIZES))
    return bytes(raw)


UNKNOWN: Final = (
    field(99, b"unknown"), field(2**29 - 1, b""), b"\xf8\x07\x01", b"\x00", b"\x08", b"\x80" * 11, b"\x07", b"\x0e",
    b"\x0b\x0c", b"\x0b" * 50 + b"\x0c" * 50, b"\x0b" * 3000, b"\x0c", b"\x0a\xff\xff\xff\xff\x07",
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x1a\x80\x80\x80\x80\x80\x80", b"\x12\x00" * 20,
)  # fmt: skip
"""Fields that no message has, groups, and lengths that are none."""


def _packed(numbers: list[int]) -> bytes:
    return b"".join(varint(n & 0xFFFF_FFFF_FFFF_FFFF) for n in numbers)


def _shape(r: random.Random) -> list[int]:
    if r.random() < 0.4:
        return [r.choice((1, 2))]
    return [
        r.choice((0, 1, 2, 3, -1, 2**10, 2**31 - 1, 2**31, 2**40, 2**62)) for _ in range(r.choice((0, 1, 2, 3, 9, 70)))
    ]


def _tensor(r: random.Random) -> bytes:
    values = r.choice(
        (b"", struct.pack("<d", 1.0), struct.pack("<2d", float("nan"), float("inf")), b"\x00" * 9, b"\x00" * 4096)
    )
    parts = [field(1, _packed(_shape(r))), field(2, values)]
    if r.random() < 0.3:
        parts = [
            b"".join(b"\x08" + varint(n & 0xFFFF_FFFF_FFFF_FFFF) for n in _shape(r)),
            b"\x11" + b"\x00" * r.choice((8, 7)),
        ]
    if r.random() < 0.1:
        parts *= 2
    return field(3, field(2, b"".join(parts)))


def _tftensor(r: random.Random) -> bytes:
    dtype = r.choice([*range(33), 101, 126, 2**31, *(d for d in DTYPES if isinstance(d, int))])
    dims = b"".join(field(2, b"\x08" + varint(n & 0xFFFF_FFFF_FFFF_FFFF)) for n in _shape(r))
    tensor = b"\x08" + varint(dtype & 0xFFFF_FFFF_FFFF_FFFF) + field(2, dims + r.choice((b"", b"", b"\x18\x01")))
    if r.random() < 0.4:
        tensor += field(4, r.randbytes(r.choice((0, 1, 2, 4, 8, 16, 17))))
    for number in r.sample(range(5, 19), r.randrange(3)):
        tensor += field(number, r.choice((b"", b"\x00", b"\x01\x02", b"\xff" * 10, b"\x00" * 8, b"\x00" * 16, b"ab")))
    return field(3, field(4, tensor))


def _value(r: random.Random, depth: int) -> bytes:
    """The content of a ``Value``."""
    kind = r.randrange(8)
    if depth and kind < 3:
        return field(6, b"".join(field(1, _value(r, depth - 1)) for _ in range(r.choice((0, 1, 1, 2)))))
    if depth and kind == 3:
        return field(5, field(1, field(1, b"key") + field(2, _value(r, depth - 1))))
    if kind == 4:
        return field(3, r.choice((b"", b"a", b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"x" * 500)))
    if kind == 5:
        return r.choice((b"\x08\x00", b"\x08\x05", b"\x20\x01", b"\x20\x02", b""))
    return b"\x11" + struct.pack("<d", r.choice((0.0, 1.5, float("nan"), float("inf"), -0.0, 1e308)))


def _deep(r: random.Random, depth: int) -> bytes:
    """A ``Value`` of lists or structs in one another."""
    value = b"\x20\x01"
    for _ in range(depth):
        value = field(6, field(1, value)) if r.random() < 0.7 else field(5, field(1, field(1, b"k") + field(2, value)))
    return value


_DEPTHS: Final = (1, 10, 30, 31, 32, 33, 46, 48, 49, 50, 64, 100, 1000)

PAYLOADS: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    _tensor,
    _tensor,
    _tftensor,
    _tftensor,
    _tftensor,
    lambda r: field(3, field(3, b"".join(field(1, _value(r, 3)) for _ in range(r.choice((0, 1, 2, 5)))))),
    lambda r: field(3, field(3, field(1, _deep(r, r.choice(_DEPTHS))))),
    lambda r: field(
        3, field(1, r.choice((b"a", b"\xff", b""))) * r.choice((1, 500)) + field(3, field(1, _value(r, 1)))
    ),
    lambda r: field(6, _deep(r, r.choice(_DEPTHS))),
    lambda r: field(6, _value(r, 4)),
    lambda r: field(5, r.choice((b"text", b"", b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"x" * 5000))),
    lambda r: field(4, r.randbytes(r.choice((0, 1, 1000)))),
    lambda r: field(7, r.choice((b"", field(1, b"type.googleapis.com/os.system"), field(2, b"\xff"), b"\xff"))),
    lambda r: field(3, b"", r.choice(_SIZES)),
    lambda r: field(3, field(3, b"", r.choice(_SIZES))),
    lambda r: field(1, b"\x08\x01" + field(2, b"info")) + field(5, b"with a status"),
    lambda r: b"",
)

METAS: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    lambda r: b"",
    lambda r: field(1, r.choice((b"p", b"", b"\xff", b"a\r\nb: c", b"x" * 3000))),
    lambda r: field(2, field(1, b"tag") + field(2, _value(r, 2))),
    lambda r: field(2, field(1, b"tag") + field(2, _deep(r, r.choice(_DEPTHS)))),
    lambda r: field(2, b""),
    lambda r: field(3, field(1, b"0") + b"\x10" + varint(r.choice(_SIZES))),
    lambda r: field(4, field(1, b"node") + field(2, b"\xff")),
    lambda r: field(5, field(1, b"m") + b"\x10" + varint(r.choice(_SIZES)) + b"\x1d" + r.choice(FLOATS)),
    lambda r: field(5, field(4, field(1, b"a") + field(2, b"b")) * 3),
)
