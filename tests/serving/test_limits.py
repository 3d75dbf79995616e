from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import RequestError
from servegraph.serving.limits import JsonLimits, check_json, parse_json

texts = st.text(st.sampled_from('ab[]{},"\\: '), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def count(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(inner) + sum(map(count, inner))


@given(values, st.integers(1, 6), st.integers(1, 20), st.booleans())
def test_parse_json_takes_what_is_within_the_limits_and_refuses_the_rest(
    value: Any, most_depth: int, most_values: int, spaced: bool
) -> None:
    limits = JsonLimits(most_depth, most_values)
    body = json.dumps(value, indent=1 if spaced else None).encode()
    for read in (parse_json, check_json):
        if depth(value) <= most_depth and count(value) <= most_values:
            assert read(body, limits) == value
        else:
            with pytest.raises(RequestError, match=r"nested deeper|more than"):
                read(body, limits)


@given(st.binary(max_size=40))
def test_parse_json_of_any_bytes_gives_a_value_or_a_known_error(data: bytes) -> None:
    for read in (parse_json, check_json):
        try:
            value = read(data, JsonLimits(4, 8))
        except (RequestError, jsoncodec.JSONDecodeError):
            continue
        assert depth(value) <= 4


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("levels", [65, 10_000, 1_000_000])
def test_parse_json_of_a_deep_body_is_refused_without_reading_it_whole(opening: bytes, levels: int) -> None:
    with pytest.raises((RequestError, jsoncodec.JSONDecodeError)):
        parse_json(opening * levels, JsonLimits())
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[opening]
    with pytest.raises((RequestError, jsoncodec.JSONDecodeError)):
        parse_json(opening * levels + b"1" + closing * levels, JsonLimits())


def test_parse_json_counts_nested_values_too() -> None:
    body = b"[" + b",".join([b"[[[[1]]]]"] * 100) + b"]"
    with pytest.raises(RequestError, match="more than 200 values"):
        parse_json(body, JsonLimits(64, 200))


def test_parse_json_does_not_take_brackets_in_strings_for_nesting() -> None:
    value = {"text": "[" * 500 + "{" * 500, "more": ["," * 50]}
    assert parse_json(json.dumps(value).encode(), JsonLimits(4, 10)) == value


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"[1e999]", b"{'a': 1}", b"[1,]", b"", b"\xff"])
def test_parse_json_of_what_is_no_json_says_so(body: bytes) -> None:
    with pytest.raises(jsoncodec.JSONDecodeError):
        parse_json(body, JsonLimits())


def test_parse_json_counts_exactly_also_in_small_bodies() -> None:
    assert parse_json(b"[[1,2]]", JsonLimits(4, 3)) == [[1, 2]]
    with pytest.raises(RequestError, match="more than 2 values"):
        parse_json(b"[[1,2]]", JsonLimits(4, 2))


@pytest.mark.parametrize(
    "body",
    [b"[" * 4_000_000, b"[" * 2_000_000 + b"]" * 2_000_000, b"[" + b",".join([b"[" * 60 + b"]" * 60] * 30_000) + b"]",
     b'["",' + b",".join([b"[" * 900 + b"]" * 900] * 2_000) + b"]", b'["' + b'\\"' * 2_000_000 + b"[" * 20_000],
)  # fmt: skip
def test_parse_json_of_a_hostile_body_is_refused_soon(body: bytes) -> None:
    start = time.process_time()
    with pytest.raises((RequestError, jsoncodec.JSONDecodeError)):
        parse_json(body, JsonLimits())
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("levels", [65, 2_000, 200_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_parse_json_of_a_deep_body_names_the_setting_at_any_depth(opening: bytes, levels: int) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    with pytest.raises(RequestError, match=r"nested deeper than 64 \(limits\.json_depth\)$"):
        parse_json(opening * levels + b"1" + closing * levels, JsonLimits())
