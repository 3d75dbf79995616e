from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import StreamError
from servegraph.streams import MemoryStream, OutputStream, PushError, Record, open_stream, redact
from servegraph.streams.base import Encoded


class Counting(OutputStream):
    def __init__(self) -> None:
        super().__init__("count://user:secret@here")
        self.calls: list[str] = []

    def _write(self, batch: Sequence[Encoded]) -> None:
        self.calls.append(f"write {len(batch)}")

    def _flush(self, timeout_s: float) -> None:
        self.calls.append("flush")

    def _release(self) -> None:
        self.calls.append("release")


def test_record_payload_is_json_or_the_bytes_themselves() -> None:
    assert Record({"a": [1, None]}).payload() == b'{"a":[1,null]}'
    assert Record("text").payload() == b'"text"'
    for data in (b"\xff\x00raw", bytearray(b"\xff\x00raw"), memoryview(b"\xff\x00raw")):
        assert Record(data).payload() == b"\xff\x00raw"
        assert Record(data).is_bytes


def test_record_of_json_text_is_sent_as_it_is_and_counts_as_json() -> None:
    record = Record(b'{"a": 1}', is_json=True)
    assert record.payload() == b'{"a": 1}'
    assert not record.is_bytes
    assert Record('["é"]', is_json=True).payload() == '["é"]'.encode()
    with open_stream("dummy://") as stream:
        stream.push([record])
        assert isinstance(stream, MemoryStream)
        assert stream.event_list == [{"a": 1}]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_record_payload_reads_back_as_the_data(data: object) -> None:
    assert jsoncodec.loads(Record(data).payload()) == data


def test_close_flushes_releases_once_and_ends_pushing() -> None:
    with Counting() as stream:
        stream.push([Record(1), Record(2)])
        stream.push([])
    stream.close()
    stream.flush()
    assert stream.calls == ["write 2", "flush", "release"]
    with pytest.raises(StreamError, match=r"count://\*\*\*@here is closed"):
        stream.push([Record(1)])
    assert "secret" not in repr(stream)


def test_push_of_something_else_than_records_is_told() -> None:
    stream = MemoryStream("dummy://")
    with pytest.raises(StreamError, match=r"item 1 of a push is a dict; wrap data in Record\(data\)"):
        stream.push([Record(1), {"a": 1}])  # type: ignore[list-item]
    assert stream.records == []


def test_push_of_a_record_without_json_sends_nothing_and_names_it() -> None:
    stream = MemoryStream("dummy://")
    good, bad = Record(1), Record({"x": object()})
    with pytest.raises(PushError, match="record 1 cannot be written") as caught:
        stream.push([good, bad])
    assert (caught.value.undelivered, caught.value.refused) == ((good,), (bad,))
    assert stream.records == []


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("kafka://a:9092,b:9092/topic", "kafka://a:9092,b:9092/topic"),
        ("kafka://a?topic=t", "kafka://a?topic=t"),
        ("https://u:secret@host:8443/p", "https://***@host:8443/p"),
        ("https://secret@host/p", "https://***@host/p"),
        ("https://host/p?token=secret&x=secret", "https://host/p?token=***&x=***"),
        ("https://host/p?secret", "https://host/p?***"),
        ("https://host/p#secret", "https://host/p#***"),
        ("https://u:secret/secret@host/p", "https://***@host/p"),
        ("https://u:secret?secret@host/p", "https://***"),
        ("https://u:secret@secret@host/p", "https://***@host/p"),
        ("https://host/@name/p", "https://host/@name/p"),
        ("https://[::1]:80/@name", "https://[::1]:80/@name"),
        ("u:secret@host/topic", "***@host/topic"),
        ("BAD_SCHEME://u:secret@host/x", "BAD_SCHEME://***@host/x"),
        ("file:///logs/a@b:c.jsonl", "file:///logs/a@b:c.jsonl"),
    ],
)
def test_redact_hides_credentials(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@given(st.sampled_from(["https", "kafka", "x+y"]), st.text(min_size=1), st.text(min_size=1))
def test_redact_never_fails_and_hides_quoted_credentials(scheme: str, user: str, password: str) -> None:
    from urllib.parse import quote

    redact(f"{scheme}://{user}:{password}@host/path")
    shown = redact(f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@host/path")
    assert shown == f"{scheme}://***@host/path"
