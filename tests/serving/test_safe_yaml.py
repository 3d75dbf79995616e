from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegraph.serving.safe_yaml import MAX_BYTES, read_json, read_yaml


def test_read_yaml_plain_document_gives_its_data() -> None:
    assert read_yaml(b"a: [1, 2.5, x]\nb: {c: true}\n") == {"a": [1, 2.5, "x"], "b": {"c": True}}


def test_read_yaml_aliases_within_bounds_are_expanded() -> None:
    assert read_yaml(b"a: &x [1, 2]\nb: *x\nc: {<<: &y {k: 1}, z: 2}\nd: *y\n")["b"] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system ''",
        "!custom {a: 1}",
        "a: [1",
        "a: *nowhere",
        "? [a]\n: 1",
        "when: 2024-13-45",
        "number: " + "9" * 5000,
        "- 1\n--- \n- 2\n",
        "a: \x00",
    ],
)
def test_read_yaml_what_is_not_plain_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        read_yaml(text.encode())


def test_read_yaml_bytes_that_are_no_utf8_raise_value_error() -> None:
    with pytest.raises(ValueError):
        read_yaml(b"a: \xff\xfe\xfa")


def test_read_yaml_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"aliases stand for more than 10000"):
        read_yaml("\n".join(lines).encode())
    assert time.perf_counter() - start < 10


def test_read_yaml_value_that_holds_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a' holds itself"):
        read_yaml(b"&a [1, *a]")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_read_yaml_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(ValueError):
        read_yaml((opening * 50_000).encode())


def test_read_yaml_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=r"larger than"):
        read_yaml(b"#" * (MAX_BYTES + 1))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "nan", '{"a": 1} x', ""])
def test_read_json_what_is_no_json_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text.encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="&*a[]{}:,-? !\n'\"|>%#", max_size=60).map(str.encode))
def test_read_yaml_any_bytes_give_data_or_value_error(data: bytes) -> None:
    try:
        read_yaml(data)
    except ValueError:
        pass
