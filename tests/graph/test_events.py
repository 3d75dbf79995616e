from __future__ import annotations

import copy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.graph.events import DROP, Event, Headers, MockEvent, Response, Trigger, new_id

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(st.dictionaries(names.map(str.lower), st.text(max_size=20), max_size=8), st.booleans())
def test_headers_of_any_spelling_are_found(fields: dict[str, str], as_bytes: bool) -> None:
    latin = {k: v for k, v in fields.items() if all(ord(c) < 256 for c in v)}
    pairs: list[tuple[object, object]] = [
        (k.upper().encode("latin-1"), v.encode("latin-1")) if as_bytes else (k.upper(), v) for k, v in latin.items()
    ]
    headers = Headers(pairs)
    assert dict(headers) == latin
    assert all(headers[k.title()] == v and k.swapcase() in headers for k, v in latin.items())


def test_headers_of_a_repeated_field_keep_the_last() -> None:
    headers = Headers([(b"X-A", b"1"), ("x-a", "2")])
    assert headers["X-a"] == "2"
    assert len(headers) == 1
    assert 3 not in headers  # type: ignore[comparison-overlap]
    assert headers.get("none", "d") == "d"
    assert "x-a" in repr(headers)
    with pytest.raises(KeyError):
        headers["b"]


def test_event_without_anything_has_defaults() -> None:
    event = Event()
    assert (event.body, event.path, event.method, event.content_type) == (None, "/", None, None)
    assert (event.key, event.offset, event.error, event.terminated, event.deadline) == ("", 0, None, False, None)
    assert (event.trigger.kind, event.trigger.name) == ("", "")
    assert dict(event.headers) == {}
    assert event.fields == {}
    assert MockEvent is Event


def test_event_id_is_drawn_once_and_when_asked() -> None:
    event = Event()
    assert event.id == event.id
    assert len(event.id) == 32
    assert int(event.id, 16) >= 0
    assert event.id != Event().id
    event.id = "mine"
    assert event.id == "mine"
    assert Event(event_id="given").id == "given"
    assert len({new_id() for _ in range(1000)}) == 1000


def test_event_time_given_is_kept_under_both_names() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    event = Event(time=when, offset=7, trigger=Trigger("kafka", "t"))
    assert event.time is when
    assert event.timestamp is when
    assert event.offset == 7
    assert repr(event.trigger) == "Trigger('kafka', 't')"


def test_event_headers_are_looked_up_without_regard_to_case() -> None:
    event = Event(headers={"X-Kind": "a"})
    assert event.get_header("x-kind") == "a"
    assert event.get_header("X-None", "d") == "d"
    event.headers = {"Other": "b"}
    assert event.headers["OTHER"] == "b"
    assert "x-kind" not in event.headers


def test_event_query_gives_fields() -> None:
    event = Event()
    event._query = "a=1&a=2&b=&c=%20x"
    assert event.fields == {"a": ["1", "2"], "b": [""], "c": [" x"]}
    event.fields = {"z": ["0"]}
    assert event.fields == {"z": ["0"]}


def test_event_fork_has_a_body_of_its_own_and_the_rest_in_common() -> None:
    event = Event({"a": 1}, headers={"h": "v"}, path="/p", method="POST")
    event.key = "k"
    other = event.fork({"b": 2})
    assert (event.body, other.body) == ({"a": 1}, {"b": 2})
    assert (other.path, other.method, other.key, other.headers["H"]) == ("/p", "POST", "k", "v")
    other.path = "/q"
    assert event.path == "/p"


def test_event_fork_before_its_id_was_asked_for_has_the_same_id() -> None:
    event = Event()
    other = event.fork(None)
    assert other.id == event.id


def test_event_repr_of_a_deep_or_huge_body_is_short() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    for body in (deep, "x" * 10_000, b"y" * 10_000, {"k": deep}):
        assert len(repr(Event(body))) < 200
    assert "body=3" in repr(Event(3))
    assert "body='s'" in repr(Event("s"))


def test_drop_is_one_object_under_copies() -> None:
    assert copy.copy(DROP) is DROP
    assert copy.deepcopy([DROP])[0] is DROP
    assert repr(DROP) == "servegraph.DROP"


def test_response_keeps_its_own_headers() -> None:
    given_headers = {"a": "b"}
    response = Response(given_headers, {"x": 1}, status_code=418)
    response.headers["c"] = "d"
    assert given_headers == {"a": "b"}
    assert response.content_type is None
    assert "418" in repr(response)
    assert Response().headers == {}
