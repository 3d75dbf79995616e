"""Typed parameters, as deployments write them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import SettingsError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.parameters import read_parameters, typed_parameters


def typed(value: Any, kind: Any) -> Any:
    return typed_parameters([{"name": "p", "value": value, "type": kind}])["p"]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", "INT", 3), (3, "INT", 3), (" -3 ", "INT", -3), ("0.5", "FLOAT", 0.5), ("1e3", "DOUBLE", 1000.0),
        (2, "FLOAT", 2.0), ("a b", "STRING", "a b"), ("", "STRING", ""), (1, "STRING", "1"), ("x", None, "x"),
        (True, "BOOL", True), (False, "BOOL", False),
    ],
)  # fmt: skip
def test_value_becomes_what_its_type_says(value: Any, kind: Any, expected: Any) -> None:
    found = typed(value, kind)
    assert (found, type(found)) == (expected, type(expected))


@given(st.sampled_from(["y", "yes", "t", "true", "on", "1"]), st.sampled_from(["n", "no", "f", "false", "off", "0"]))
def test_words_for_booleans_are_known_in_any_case(yes: str, no: str) -> None:
    assert [typed(word, "BOOL") for word in (yes, yes.upper(), yes.title())] == [True] * 3
    assert [typed(word, "BOOL") for word in (no, no.upper(), no.title())] == [False] * 3


@pytest.mark.parametrize(
    ("value", "kind"),
    [("x", "INT"), ("1.5", "INT"), ("", "FLOAT"), (None, "INT"), ([], "DOUBLE"), ("maybe", "BOOL"), ("", "BOOL")],
)
def test_value_that_is_not_of_its_type_is_told_with_name_value_and_type(value: Any, kind: str) -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        typed(value, kind)
    assert caught.value.reason == "MICROSERVICE_BAD_PARAMETER"
    assert f"p is {value!r}, which is no {kind}" in caught.value.message


def test_unknown_type_lists_those_there_are() -> None:
    with pytest.raises(SeldonMicroserviceException) as caught:
        typed("1", "INTEGER")
    assert caught.value.reason == "MICROSERVICE_BAD_PARAMETER"
    assert "'INTEGER'" in caught.value.message
    assert "INT" in caught.value.message.partition(";")[2]


@given(st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.booleans())
def test_any_value_written_as_a_text_comes_back(whole: int, real: float, text: str, truth: bool) -> None:
    written = [
        {"name": "i", "value": str(whole), "type": "INT"},
        {"name": "f", "value": repr(real), "type": "FLOAT"},
        {"name": "s", "value": text, "type": "STRING"},
        {"name": "b", "value": str(truth), "type": "BOOL"},
    ]
    found = typed_parameters(read_parameters(json.dumps(written), "--parameters"))
    assert found == {"i": whole, "f": real, "s": text, "b": truth}
    assert math.copysign(1, found["f"]) == math.copysign(1, real)


def test_parameters_of_other_forms_are_taken() -> None:
    assert typed_parameters(None) == {}
    assert typed_parameters({"a": [1, 2]}) == {"a": [1, 2]}
    assert read_parameters("", "here") == []
    assert typed_parameters([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]) == {"a": "2"}


def test_debug_parameter_of_old_deployments_is_none_of_the_components() -> None:
    written = [{"name": "SELDON_DEBUG", "value": "1", "type": "BOOL"}, {"name": "n", "value": "2", "type": "INT"}]
    assert typed_parameters(written) == {"n": 2}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("[]", "parameters must be a list of objects, not str"),
        (3, "parameters must be a list of objects, not int"),
        ([{"name": "a", "value": "1"}, {"value": "1"}], r"parameters\[1\] must be an object with name, value and type"),
        (["a"], r"parameters\[0\] must be an object"),
    ],
)
def test_parameters_that_are_none_are_told_with_their_place(parameters: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        typed_parameters(parameters)


@pytest.mark.parametrize("text", ["{", "nothing", "[1,]"])
def test_text_that_is_no_json_is_told_with_its_place(text: str) -> None:
    with pytest.raises(SettingsError, match="--parameters is no JSON"):
        read_parameters(text, "--parameters")


@pytest.mark.parametrize("text", ["{}", "null", "1", '"[]"'])
def test_text_that_is_no_list_is_told_with_its_place(text: str) -> None:
    with pytest.raises(SettingsError, match="--parameters must be a JSON list"):
        read_parameters(text, "--parameters")
