"""JSON in a form, in a query, and in the parts of a multipart body."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.forms import json_field, multipart_value
from servegraph.serving.seldon.rest import message_from_rest

BOUNDARY = "f47ac10b58cc4372"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, content: bytes | str, filename: str | None = None, *fields: str) -> bytes:
    """One part of a multipart body, as clients write it."""
    disposition = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = "\r\n".join((disposition, *fields))
    return head.encode() + b"\r\n\r\n" + (content.encode() if isinstance(content, str) else content)


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + p + b"\r\n" for p in parts) + f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("json=%7B%22a%22%3A1%7D", '{"a":1}'),
        ("isDefault=true&json=%5B1%2C+2%5D", "[1, 2]"),
        ("json=1&json=2", "1"),
        ("json=", ""),
        ("json", ""),
        ("json=%C3%A4", "ä"),
        ("JSON=1", None),
        ("other=1", None),
        ("", None),
    ],
)
def test_json_is_the_field_of_that_name(text: str, expected: str | None) -> None:
    assert json_field(text, "form") == expected


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(SeldonMicroserviceException, match="the query cannot be read: Max number of fields") as caught:
        json_field("&".join(["a=1"] * 1001), "query")
    assert caught.value.status_code == 400


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text(), max_size=3))
def test_any_text_comes_through_a_form(text: str, others: dict[str, str]) -> None:
    others.pop("json", None)
    assert json_field(urlencode({**others, "json": text}), "form") == text


def test_multipart_fields_are_json_but_for_text() -> None:
    body = multipart(
        part("strData", '{"not": "json"}'),
        part("meta", '{"puid": "p"}'),
        part("jsonData", "[1, 2.5]", None, "Content-Type: application/json"),
    )
    expected = {"strData": '{"not": "json"}', "meta": {"puid": "p"}, "jsonData": [1, 2.5]}
    assert multipart_value(body, TYPE) == expected


def test_multipart_files_are_bytes_or_text() -> None:
    body = multipart(
        part("binData", b"\x00\xff\r\n--\r\n", "model.bin", "Content-Type: application/octet-stream"),
        part("strData", "tëxt\n", "notes.txt"),
        part("notes", "more", "more.txt"),
    )
    value = multipart_value(body, TYPE)
    assert base64.b64decode(value["binData"]) == b"\x00\xff\r\n--\r\n"
    assert (value["strData"], value["notes"]) == ("tëxt\n", "more")
    assert message_from_rest({"binData": value["binData"]}).value == b"\x00\xff\r\n--\r\n"


def test_multipart_field_with_bytes_is_their_base64() -> None:
    assert multipart_value(multipart(part("binData", '"AAH/"')), TYPE) == {"binData": "AAH/"}


def test_multipart_part_may_be_encoded_for_transfer() -> None:
    encoded = part("binData", base64.encodebytes(b"\x00\x01"), "m.bin", "Content-Transfer-Encoding: base64")
    assert multipart_value(multipart(encoded), TYPE) == {"binData": "AAE="}


def test_last_part_of_a_name_counts() -> None:
    assert multipart_value(multipart(part("strData", "a"), part("strData", "b")), TYPE) == {"strData": "b"}


def test_field_called_json_is_nothing_special() -> None:
    value = multipart_value(multipart(part("json", '{"strData": "x"}')), TYPE)
    assert value == {"json": {"strData": "x"}}
    with pytest.raises(SeldonMicroserviceException, match=r"the message has none of .*; it has json"):
        message_from_rest(value)


@pytest.mark.parametrize(
    ("body", "content_type", "problem"),
    [
        (b"", TYPE, "the body is no multipart form with this boundary"),
        (b"{}", TYPE, "the body is no multipart form with this boundary"),
        (multipart(part("strData", "x")), "multipart/form-data", "the body is no multipart form with this boundary"),
        (multipart(part("strData", "x")), "multipart/form-data; boundary=other", "no multipart form"),
        (multipart(b"Content-Type: text/plain\r\n\r\nx"), TYPE, "a part of the multipart form has no name"),
        (multipart(b"Content-Disposition: form-data\r\n\r\nx"), TYPE, "a part of the multipart form has no name"),
        (multipart(part("data", "{")), TYPE, "the part 'data' of the form cannot be read: "),
        (multipart(part("meta", "")), TYPE, "the part 'meta' of the form cannot be read: "),
        (multipart(part("strData", b"\xff")), TYPE, "the part 'strData' of the form cannot be read: 'utf-8' codec"),
        (multipart(part("notes", b"\xff", "n.txt")), TYPE, "the part 'notes' of the form cannot be read"),
        (multipart(*(part(f"p{i}", "1") for i in range(1001))), TYPE, "the multipart form has too many parts"),
    ],
    ids=range(11),
)
def test_malformed_multipart_is_refused(body: bytes, content_type: str, problem: str) -> None:
    with pytest.raises(SeldonMicroserviceException, match=problem) as caught:
        multipart_value(body, content_type)
    assert caught.value.status_code == 400


def test_content_type_cannot_bring_in_header_fields() -> None:
    body = multipart(part("strData", "x"))
    assert multipart_value(body, TYPE.replace("; ", ";\r\n ")) == {"strData": "x"}
    with pytest.raises(SeldonMicroserviceException, match="no multipart form with this boundary"):
        multipart_value(body, f"{TYPE}\r\nContent-Disposition: attachment")


@given(st.binary())
def test_any_file_comes_through(content: bytes) -> None:
    if BOUNDARY.encode() in content:
        return
    body = multipart(part("binData", content, "f"), part("strData", "behind"))
    value = multipart_value(body, TYPE)
    assert base64.b64decode(value["binData"]) == content
    assert value["strData"] == "behind"


_TEXT = st.text(st.characters(codec="utf-8"))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT, lambda c: st.lists(c), max_leaves=5
)


@given(_TEXT, _JSON)
def test_any_fields_come_through(text: str, value: Any) -> None:
    body = multipart(part("strData", text), part("jsonData", json.dumps(value)))
    assert multipart_value(body, TYPE) == {"strData": text, "jsonData": value}


@given(st.binary(max_size=200), st.sampled_from([b"", b"--" + BOUNDARY.encode() + b"\r\n"]))
def test_any_body_is_read_or_refused(content: bytes, start: bytes) -> None:
    outcome: Any
    try:
        outcome = multipart_value(start + content, TYPE)
    except SeldonMicroserviceException as exc:
        outcome = exc.status_code
    assert isinstance(outcome, dict) or outcome == 400
