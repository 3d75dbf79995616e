from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest

from servegraph.errors import StreamError
from servegraph.streams import MemoryStream, Record, open_stream


def opened(uri: str, **options: object) -> MemoryStream:
    stream = open_stream(uri, **options)
    assert isinstance(stream, MemoryStream)
    return stream


def test_push_keeps_records_and_data_in_order() -> None:
    stream = opened("dummy://")
    records = [Record({"n": 1}, key="k", headers={"h": "v"}), Record(b"raw"), Record("text")]
    stream.push(records)
    assert stream.records == records
    assert stream.event_list == [{"n": 1}, b"raw", "text"]


def test_push_keeps_data_as_a_reader_would_see_it() -> None:
    stream = opened("dummy://")
    data = {"a": np.array([1, 2]), "b": (1.5, np.float32(0.5))}
    buffer = bytearray(b"raw")
    stream.push([Record(data), Record(buffer)])
    data["a"] = "changed later"
    buffer[:] = b"xxx"
    assert stream.event_list == [{"a": [1, 2], "b": [1.5, 0.5]}, b"raw"]


def test_named_streams_share_their_records() -> None:
    name = uuid.uuid4().hex
    with opened(f"dummy://{name}") as one:
        one.push([Record(1)])
    assert opened(f"dummy://{name}").event_list == [1]
    assert opened(f"dummy://{name}2").event_list == []
    opened(f"dummy://{name}").clear()
    assert one.event_list == []


def test_nameless_streams_are_each_their_own() -> None:
    one = opened("dummy://")
    one.push([Record(1)])
    assert opened("dummy://").event_list == []


def test_max_records_drops_the_oldest_and_counts() -> None:
    stream = opened("dummy://", max_records=3)
    stream.push([Record(n) for n in range(5)])
    stream.push([Record(n) for n in range(5, 7)])
    assert stream.event_list == [4, 5, 6]
    assert stream.dropped == 4


def test_max_records_of_an_open_name_cannot_change() -> None:
    uri = f"dummy://{uuid.uuid4().hex}"
    opened(uri, max_records=3)
    assert opened(uri).event_list == []
    with pytest.raises(StreamError, match="open with max_records=3; it cannot be 4"):
        opened(uri, max_records=4)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_max_records_of_a_wrong_kind_is_told(value: object) -> None:
    with pytest.raises(StreamError, match="max_records must be a whole number of at least 1"):
        opened("dummy://", max_records=value)


def test_push_from_several_threads_loses_nothing() -> None:
    stream = opened("dummy://", max_records=1_000)

    def work() -> None:
        for _ in range(300):
            stream.push([Record(1), Record(2)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stream.records) + stream.dropped == 2_400
