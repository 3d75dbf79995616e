from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import ServegraphError
from servegraph.runtimes.worker_protocol import Drain, Failure, Heartbeat, Lines, Message, Start, decode, encode


@pytest.mark.parametrize(
    "message",
    [
        Start("m:f", {"a": [1, "é"]}, {"workers": 1}, {"slot": 0}, {"http": 3}, 4, True, ["/x", ""]),
        Drain(0.5),
        Heartbeat(7, 2, 0, "ready"),
        Failure("line 1\nline 2"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_after_encode_and_decode_is_the_same(message: Message) -> None:
    (line,) = Lines().feed(encode(message))
    assert decode(line) == message


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{", b'{"version":2,"kind":"no"}', b'{"version":2,"kind":"drain"}', b'{"kind":"drain"}']
)
def test_decode_of_something_else_is_refused(line: bytes) -> None:
    with pytest.raises(ServegraphError, match="not a message"):
        decode(line)


def test_decode_of_another_version_is_refused() -> None:
    with pytest.raises(ServegraphError, match="message version 1, not 2"):
        decode(b'{"version":1,"kind":"drain","delay_s":0}')


@given(st.lists(st.binary(max_size=8).filter(lambda data: b"\n" not in data)), st.integers(1, 5))
def test_lines_fed_in_pieces_come_out_whole(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    cutter = Lines()
    got = [line for i in range(0, len(data), size) for line in cutter.feed(data[i : i + size])]
    assert got == lines
