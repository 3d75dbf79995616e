"""Typed parameters of components."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import SettingsError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.parameters import PARAMETER_TYPES, read_parameters, truth_of, typed_parameters


def typed(value: Any, kind: Any) -> Any:
    return typed_parameters([{"name": "p", "value": value, "type": kind}])["p"]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", "INT", 3),
        (3, "INT", 3),
        (" -7 ", "INT", -7),
        ("0.5", "FLOAT", 0.5),
        (2, "FLOAT", 2.0),
        ("1e3", "DOUBLE", 1000.0),
        ("x", "STRING", "x"),
        (5, "STRING", "5"),
        ("x", None, "x"),
        ("x", "", "x"),
        (True, "BOOL", True),
        (False, "BOOL", False),
        (1, "BOOL", True),
        (0, "BOOL", False),
    ],
)
def test_value_has_the_type_that_is_named(value: Any, kind: Any, expected: Any) -> None:
    found = typed(value, kind)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("word", ["y", "yes", "t", "true", "on", "1"])
def test_words_for_yes_are_true(word: str) -> None:
    assert [typed(form, "BOOL") for form in (word, word.upper(), f" {word.title()} ")] == [True] * 3


@pytest.mark.parametrize("word", ["n", "no", "f", "false", "off", "0"])
def test_words_for_no_are_false(word: str) -> None:
    assert [typed(form, "BOOL") for form in (word, word.upper(), f" {word.title()} ")] == [False] * 3


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        ("three", "INT", "p is 'three', which is no INT: invalid literal"),
        ("1.5", "INT", "p is '1.5', which is no INT"),
        (None, "INT", "p is None, which is no INT"),
        (float("inf"), "INT", "p is inf, which is no INT: cannot convert float infinity"),
        ("", "FLOAT", "p is '', which is no FLOAT"),
        ([1], "FLOAT", r"p is \[1\], which is no FLOAT"),
        ("half", "DOUBLE", "p is 'half', which is no DOUBLE"),
        ("maybe", "BOOL", "p is 'maybe', which is no BOOL: 'maybe' is no boolean: write one of 0, 1, f, false, n, no"),
        (None, "BOOL", "p is None, which is no BOOL"),
        ("1", "INTEGER", "p has the type 'INTEGER'; did you mean 'INT'"),
        ("1", "int", "p has the type 'int'; valid: BOOL, DOUBLE, FLOAT, INT, STRING"),
    ],
)
def test_bad_parameter_is_named_with_its_value_and_its_type(value: Any, kind: str, problem: str) -> None:
    with pytest.raises(SeldonMicroserviceException, match=f"^Bad model parameter: {problem}") as caught:
        typed(value, kind)
    assert caught.value.reason == "MICROSERVICE_BAD_PARAMETER"


def test_parameters_are_arguments_by_name_and_the_last_of_a_name_counts() -> None:
    given_twice = [{"name": "a", "value": "1", "type": "INT"}, {"name": "b"}, {"name": "a", "value": "2"}]
    assert typed_parameters(given_twice) == {"a": "2", "b": ""}
    assert typed_parameters(None) == {}
    assert typed_parameters([]) == {}


def test_mapping_is_taken_as_it_is_and_copied() -> None:
    mapping = {"a": 1, "b": [2]}
    found = typed_parameters(mapping)
    found["c"] = 3
    assert mapping == {"a": 1, "b": [2]}
    assert found == {"a": 1, "b": [2], "c": 3}


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("a=1", "parameters must be a list of objects, not str"),
        (5, "parameters must be a list of objects, not int"),
        (["a"], r"parameters\[0\] must be an object with name, value and type"),
        ([{"name": "a"}, {"value": 1}], r"parameters\[1\] must be an object with name, value and type"),
    ],
)
def test_what_is_no_list_of_parameters_is_refused(parameters: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        typed_parameters(parameters)


def test_text_of_parameters_is_json() -> None:
    text = '[{"name": "a", "value": "1", "type": "INT"}]'
    assert typed_parameters(read_parameters(text, "--parameters")) == {"a": 1}
    assert read_parameters("", "--parameters") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[{", "--parameters is no JSON: "),
        ('{"name": "a"}', "--parameters must be a JSON list of objects with name, value and type"),
        ("5", "--parameters must be a JSON list"),
    ],
)
def test_text_that_holds_no_parameters_names_where_it_came_from(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=f"^{problem}"):
        read_parameters(text, "--parameters")


def test_no_boolean_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="'ja' is no boolean"):
        truth_of("ja")


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers())


@given(st.lists(st.fixed_dictionaries({"name": st.text(max_size=3), "value": _VALUES}), max_size=3), st.data())
def test_any_parameters_are_typed_or_refused(parameters: list[dict[str, Any]], data: st.DataObject) -> None:
    kinds = [data.draw(st.sampled_from((*PARAMETER_TYPES, "LIST"))) for _ in parameters]
    whole = [{**p, "type": kind} for p, kind in zip(parameters, kinds, strict=True)]
    problem = ""
    try:
        found = typed_parameters(whole)
    except SeldonMicroserviceException as exc:
        problem = str(exc)
    if problem:
        assert problem.startswith("Bad model parameter: ")
        return
    types = {"INT": int, "FLOAT": float, "DOUBLE": float, "STRING": str, "BOOL": bool}
    last = {p["name"]: types[p["type"]] for p in whole}
    assert {name: type(value) for name, value in found.items()} == last


@given(st.text(max_size=40) | st.lists(_VALUES, max_size=3).map(lambda v: jsoncodec.dumps(v).decode()))
def test_any_text_is_read_or_refused(text: str) -> None:
    outcome: Any
    try:
        outcome = read_parameters(text, "here")
    except SettingsError as exc:
        outcome = str(exc)
    assert isinstance(outcome, list) or outcome.startswith("here ")
