"""The few pieces of protobuf's wire format that Seldon's messages are made of."""

from __future__ import annotations

import functools
from typing import Final

from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException

_MAX_LENGTH_BYTES: Final = 5


def varint(number: int) -> bytes:
    """A whole number; a negative one takes ten bytes, as protobuf's ``int32`` does."""
    if 0 <= number < 128:
        return _SMALL[number]
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL: Final = tuple(bytes((n,)) for n in range(128))


@functools.lru_cache(maxsize=1024)
def head(tag: int, size: int) -> bytes:
    """What stands before a field of so many bytes."""
    return bytes((tag,)) + varint(size)


def field(tag: int, content: bytes) -> bytes:
    """A field of bytes: a text, a message or packed numbers."""
    return head(tag, len(content)) + content


def text(tag: int, value: str, place: str) -> bytes:
    """A field of text.

    Raises:
        SeldonMicroserviceException: it has characters that no Unicode encoding has.
    """
    try:
        return field(tag, value.encode())
    except UnicodeEncodeError as exc:
        raise unwritable(place, f"text that is not valid Unicode ({exc.reason})") from exc


def spans(data: bytes, pos: int, end: int) -> list[tuple[int, int, int]] | None:
    """Tag, start and end of each field between two places; ``None`` where not all are ordinary ones.

    Ordinary are fields with a number below 16 that have a length or are four bytes long.

    Raises:
        IndexError: the data ends in the middle of a field (it may also give ``None``).
    """
    found = []
    while pos < end:
        tag = data[pos]
        if tag & 0x87 == 2:
            size = data[pos + 1]
            pos += 2
            if size > 127:
                size, pos = read_length(data, pos - 1)
            stop = pos + size
        elif tag & 0x87 == 5:
            pos += 1
            stop = pos + 4
        else:
            return None
        if stop > end:
            return None
        found.append((tag, pos, stop))
        pos = stop
    return found


def read_length(data: bytes, pos: int) -> tuple[int, int]:
    """The length that is written at a place, and where it ends; one past all data when it is none.

    Raises:
        IndexError: the data ends in the middle of it.
    """
    size = 0
    for place in range(_MAX_LENGTH_BYTES):
        byte = data[pos + place]
        size |= (byte & 127) << 7 * place
        if byte < 128:
            return size, pos + place + 1
    return len(data) + 1, pos


def unwritable(place: str, what: str) -> SeldonMicroserviceException:
    """The error for a value that no message can carry."""
    return SeldonMicroserviceException(f"{place} cannot be sent as protobuf: it has {what}", 500, reason=INTERNAL)
