"""JSON with the words of Python's codec for NaN and infinity."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_http import serving
from tree_kit import function_of, node

from servegraph import jsoncodec
from servegraph.errors import RequestError
from servegraph.serving.limits import JsonLimits
from servegraph.serving.seldon.json_reading import read_json

LIMITS = JsonLimits(8, 40)
texts = st.text(max_size=6) | st.sampled_from(["NaN", "Infinity", "1e400", '"NaN', "\\u0041"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def shown(value: Any) -> str:
    """A text that is the same for the same value, NaN included; integers beyond 64 bits count as floats."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{k!r}:{shown(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    large = type(value) is int and not -(2**63) <= value < 2**64
    return repr(float(value)) if large else repr(value)


@given(values, st.booleans())
def test_whatever_python_writes_is_read(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    for form in (text, text.encode(), b"\xef\xbb\xbf" + text.encode()):
        assert shown(read_json(form)) == shown(value)


@given(st.text(st.sampled_from('NaInfity1e4[]{},:"\\\\ud8')), st.binary(max_size=20))
def test_any_text_is_read_or_refused(text: str, more: bytes) -> None:
    for form in (text, text.encode() + more):
        for limits in (None, LIMITS):
            try:
                value = read_json(form, limits)
            except (jsoncodec.JSONDecodeError, RequestError):
                continue
            jsoncodec.dumps(value)


@pytest.mark.parametrize(("text", "value"), [("1e400", math.inf), ("-1e400", -math.inf), ("9" * 400, math.inf)])
def test_number_beyond_floats_is_infinite(text: str, value: float) -> None:
    assert read_json(f"[{text}]") == [value]


@pytest.mark.parametrize("text", ["[nan]", "[NaN", "[NaN,]", '["\\ud800", NaN]', "[NaN] x", "'NaN'", "\udc80"])
def test_what_is_no_json_even_so_is_refused(text: str) -> None:
    with pytest.raises(jsoncodec.JSONDecodeError):
        read_json(text)


def test_pair_of_halves_is_a_character_beside_nan() -> None:
    assert read_json('["\\ud83d\\ude00", Infinity]') == ["\U0001f600", math.inf]


def test_limits_hold_for_what_the_fast_decoder_refuses() -> None:
    with pytest.raises(RequestError, match=r"more than 40 values \(limits\.json_elements\)"):
        read_json(json.dumps([math.nan] * 41), LIMITS)
    for levels in (9, 2_000, 100_000):
        with pytest.raises(RequestError, match=r"deeper than 8 \(limits\.json_depth\)"):
            read_json('{"a":' * levels + "NaN" + "}" * levels, JsonLimits(8))


def test_deployment_takes_them_too() -> None:
    class Counter:
        def predict(self, X: Any, names: Any) -> Any:
            return [[float(sum(map(math.isfinite, X.ravel())))]]

    with serving(function_of(node("counter"), {"counter": Counter()})) as served:
        answer = served.ask("/api/v1.0/predictions", b'{"data":{"ndarray":[[NaN,1.0,-Infinity]]}}')
    assert answer.status == 200, answer
    assert json.loads(answer.body)["data"]["ndarray"] == [[1.0]]
