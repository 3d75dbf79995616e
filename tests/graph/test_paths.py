"""Dotted paths into bodies: what a step gets, and where its result goes."""

from __future__ import annotations

import collections
import contextlib
import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import GraphError, UnprocessableError
from servegraph.graph.paths import compile_input_path, compile_result_path


def pick(path: str, body: Any) -> Any:
    function = compile_input_path(path)
    assert function is not None
    return function(body)


def put(path: str, body: Any, result: Any) -> Any:
    function = compile_result_path(path)
    assert function is not None
    return function(body, result)


keys = st.text(st.sampled_from("ab.0é\\ "), min_size=1, max_size=4).filter(lambda k: "\\" not in k)
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
dicts = st.dictionaries(keys, values, max_size=4)


def joined(parts: list[str]) -> str:
    return ".".join(part.replace(".", "\\.") for part in parts)


@given(dicts, st.lists(keys, min_size=1, max_size=4), values)
def test_result_path_then_input_path_gives_the_value_back(body: Any, parts: list[str], value: Any) -> None:
    path = joined(parts)
    before = copy.deepcopy(body)
    with contextlib.suppress(UnprocessableError):  # a value is in the way
        assert pick(path, put(path, body, value)) is value
    assert body == before


@given(st.lists(keys, min_size=1, max_size=4), values)
def test_result_path_in_an_empty_body_is_always_written(parts: list[str], value: Any) -> None:
    path = joined(parts)
    bodies: list[Any] = [{}, None]
    for body in bodies:
        assert pick(path, put(path, body, value)) is value


@given(dicts, st.lists(keys, min_size=1, max_size=4))
def test_result_path_siblings_are_shared_not_copied(body: dict[str, Any], parts: list[str]) -> None:
    try:
        written = put(joined(parts), body, 1)
    except UnprocessableError:
        return
    assert all(written[key] is body[key] for key in body if key != parts[0])
    assert list(written)[: len(body)] == list(body)


def index(part: str) -> int:
    """A place in a list, in digits alone: int() takes spaces and signs too."""
    if not (part.isascii() and part.isdigit()):
        raise ValueError(part)
    return int(part)


@given(values, st.lists(keys, min_size=1, max_size=4))
def test_input_path_any_body_gives_what_indexing_gives(body: Any, parts: list[str]) -> None:
    expected: Any = body
    try:
        for part in parts:
            expected = expected[index(part)] if isinstance(expected, list) else expected[part]
    except (KeyError, IndexError, ValueError):
        expected = None
    except TypeError:
        expected = None if expected is None and expected is not body else UnprocessableError
    if expected is UnprocessableError:
        with pytest.raises(UnprocessableError):
            pick(joined(parts), body)
    else:
        assert pick(joined(parts), body) is expected


def test_no_path_means_no_function() -> None:
    assert compile_input_path(None) is None
    assert compile_result_path(None) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", {"b": {"c": 1}}),
        ("a.b", {"c": 1}),
        ("a.b.c", 1),
        ("x\\.y", 2),
        ("inputs.0.x", 3),
        ("inputs.1.x", None),
        ("inputs.x", None),
        ("missing", None),
        ("missing.b", None),
        ("a.missing.c", None),
        ("nothing.b", None),
        ("0", 4),
        ("pair.1", 6),
    ],
)
def test_input_path_picks_the_part(path: str, expected: Any) -> None:
    body = {
        "a": {"b": {"c": 1}}, "x.y": 2, "inputs": [{"x": 3}], "0": 4, "nothing": None, "pair": (5, 6),
    }  # fmt: skip
    assert pick(path, body) == expected


def test_input_path_list_body_is_indexed_by_digits_only() -> None:
    assert pick("1", ["a", "b"]) == "b"
    assert pick("2", ["a", "b"]) is None
    assert pick("name", ["a", "b"]) is None


def test_input_path_array_frame_and_mapping_are_indexed() -> None:
    assert pick("x.1", {"x": np.array([1.5, 2.5])}) == 2.5
    assert pick("x.7", {"x": np.array([1.5, 2.5])}) is None
    assert pick("a", pd.DataFrame({"a": [1, 2]})).tolist() == [1, 2]
    assert pick("b", pd.DataFrame({"a": [1, 2]})) is None
    assert pick("0", collections.UserDict({"0": "zero"})) == "zero"


def test_input_path_default_dict_is_not_filled() -> None:
    body: dict[str, Any] = collections.defaultdict(list)
    assert pick("a", body) is None
    assert pick("a.b", body) is None
    assert not body


@pytest.mark.parametrize("body", [None, 1, 1.5, "text", b"bytes", True, object()])
@pytest.mark.parametrize("path", ["a", "a.b", "a.b.c"])
def test_input_path_body_without_parts_is_refused(path: str, body: Any) -> None:
    with pytest.raises(UnprocessableError, match=f"input_path '{path}': the body is .*holds no parts"):
        pick(path, body)


@pytest.mark.parametrize("path", ["a.b", "a.b.c"])
def test_input_path_value_without_parts_on_the_way_is_named(path: str) -> None:
    with pytest.raises(UnprocessableError, match="the body's part 'a' is an int"):
        pick(path, {"a": 5})


def test_input_path_object_that_refuses_the_key_is_reported() -> None:
    with pytest.raises(UnprocessableError, match="the body is a range, which has no part 'a'"):
        pick("a", range(3))


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("r", {}, {"r": 1}),
        ("r", None, {"r": 1}),
        ("r", {"x": 0}, {"x": 0, "r": 1}),
        ("r", {"r": 0, "x": 2}, {"r": 1, "x": 2}),
        ("r.s", {}, {"r": {"s": 1}}),
        ("r.s", None, {"r": {"s": 1}}),
        ("r.s", {"r": None}, {"r": {"s": 1}}),
        ("r.s", {"r": {"t": 2}}, {"r": {"t": 2, "s": 1}}),
        ("r.s.t.u", {"x": 0}, {"x": 0, "r": {"s": {"t": {"u": 1}}}}),
        ("r\\.s", {}, {"r.s": 1}),
        ("0", {}, {"0": 1}),
        ("r.1", {"r": [0, 0]}, {"r": [0, 1]}),
        ("r.0.x", {"r": [{"y": 2}]}, {"r": [{"y": 2, "x": 1}]}),
    ],
)
def test_result_path_writes_into_a_copy(path: str, body: Any, expected: Any) -> None:
    before = copy.deepcopy(body)
    assert put(path, body, 1) == expected
    assert body == before


@pytest.mark.parametrize("path", ["r", "r.s", "r.s.t"])
def test_result_path_subclass_of_dict_keeps_its_type(path: str) -> None:
    body = collections.OrderedDict(a=1)
    written = put(path, body, 2)
    assert type(written) is collections.OrderedDict
    assert body == {"a": 1}


@pytest.mark.parametrize("body", [1, "text", [1], (1,), b"x", np.array([1])])
@pytest.mark.parametrize("path", ["r", "r.s", "r.s.t"])
def test_result_path_body_that_is_no_dict_is_refused(path: str, body: Any) -> None:
    with pytest.raises(UnprocessableError, match=f"result_path '{path}': the body is .*only be written into a dict"):
        put(path, body, 1)


@pytest.mark.parametrize("inner", [0, "", "text", (1,), False])
@pytest.mark.parametrize("path", ["r.s", "r.s.t"])
def test_result_path_value_in_the_way_is_not_overwritten(path: str, inner: Any) -> None:
    with pytest.raises(UnprocessableError, match=r"the body's part 'r' is an? (int|str|tuple|bool), which a result"):
        put(path, {"r": inner}, 1)


@pytest.mark.parametrize("path", ["r.2", "r.x", "r.2.x", "r.x.y"])
def test_result_path_place_outside_of_a_list_is_refused(path: str) -> None:
    with pytest.raises(UnprocessableError, match="the body's part 'r' is a list of length 2, which has no index"):
        put(path, {"r": [1, 2]}, 1)


@pytest.mark.parametrize("compile_path", [compile_input_path, compile_result_path])
@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_path_with_an_empty_part_is_refused_when_built(compile_path: Any, path: str) -> None:
    with pytest.raises(GraphError, match="has an empty part"):
        compile_path(path)


@pytest.mark.parametrize("compile_path", [compile_input_path, compile_result_path])
@pytest.mark.parametrize("path", [1, ["a"], b"a", False])
def test_path_that_is_no_string_is_refused_when_built(compile_path: Any, path: Any) -> None:
    with pytest.raises(GraphError, match="must be a dotted string"):
        compile_path(path)
