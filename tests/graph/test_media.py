from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import UnsupportedMediaTypeError
from servegraph.graph.media import MediaType, parse_media_type

tokens = st.text(string.ascii_letters + string.digits + "!#$&-^_.", min_size=1, max_size=10)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(tokens, tokens, st.dictionaries(tokens.map(str.lower), values, max_size=4), st.sampled_from([";", "; ", " ; "]))
def test_media_type_written_out_is_read_back(
    kind: str, subtype: str, parameters: dict[str, str], separator: str
) -> None:
    text = separator.join([f"{kind}/{subtype}", *(f"{k}={_quote(v)}" for k, v in parameters.items())])
    media = parse_media_type(text)
    assert media.essence == f"{kind}/{subtype}".lower()
    assert dict(media.parameters) == parameters


@given(st.text(max_size=60))
def test_media_type_of_any_text_is_read_without_an_error(text: str) -> None:
    media = parse_media_type(text)
    assert media.essence == media.essence.lower()


@pytest.mark.parametrize(
    "text",
    ["application/json", "APPLICATION/JSON", "json", " Json ", "application/json; charset=utf-8", "text/json",
     "application/problem+json", "application/vnd.api+JSON;v=1"],
)  # fmt: skip
def test_media_type_of_json_is_seen_as_json(text: str) -> None:
    assert parse_media_type(text).is_json


@pytest.mark.parametrize("text", ["", "text/plain", "application/jsonp", "application/x-json-not", "/json", "a/", ";"])
def test_media_type_of_something_else_is_not_json(text: str) -> None:
    assert not parse_media_type(text).is_json


def test_media_type_malformed_is_empty() -> None:
    for text in ("", "nonsense", "/x", "x/"):
        assert parse_media_type(text) == MediaType()
        assert parse_media_type(text).essence == ""


def test_media_type_parameters_first_of_a_name_wins_and_the_unreadable_is_left_out() -> None:
    media = parse_media_type('a/b; x=1; x=2; flag; y="a;b\\"c"; z=3')
    assert media.parameters["x"] == "1"
    assert parse_media_type('a/b; y="a;b\\"c"; z=3').parameters == {"y": 'a;b"c', "z": "3"}


def test_media_type_charset_decodes_the_body() -> None:
    assert parse_media_type("text/plain").decode("grüß".encode()) == "grüß"
    assert parse_media_type("text/plain; charset=ISO-8859-1").decode(b"gr\xfc\xdf") == "grüß"
    assert parse_media_type('text/plain; charset="utf-16"').decode("x".encode("utf-16")) == "x"
    assert parse_media_type("text/plain").charset is None


@given(
    st.sampled_from(
        ["utf-8", "nope", "hex", "idna", "punycode", "undefined", "base64", "rot13", "utf-7", "utf-32", "é", "a" * 400]
    ),
    st.binary(max_size=60),
)
def test_media_type_charset_that_cannot_be_read_is_refused_and_nothing_else(name: str, data: bytes) -> None:
    media = parse_media_type(f"text/plain; charset={name}")
    with contextlib.suppress(UnsupportedMediaTypeError):  # its only way to fail
        assert isinstance(media.decode(data), str)
    with pytest.raises(UnsupportedMediaTypeError, match="'nope' is unknown"):
        parse_media_type("text/plain; charset=nope").decode(data)
