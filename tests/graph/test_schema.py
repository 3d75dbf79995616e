from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_examples import CYCLE, FLOW, ROUTER
from test_spec import graphs

from servegraph.errors import SpecError
from servegraph.graph.flow import Graph
from servegraph.graph.schema import graph_schema
from servegraph.graph.spec import graph_from_dict, graph_to_dict

VALIDATOR = jsonschema.Draft202012Validator(graph_schema())


def _accepted(spec: Any) -> bool:
    return bool(VALIDATOR.is_valid(spec))


def _read(spec: Any) -> bool:
    try:
        graph_from_dict(spec)
    except SpecError:
        return False
    return True


def test_schema_is_a_valid_schema_of_its_dialect_and_json() -> None:
    schema = graph_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_schema_is_a_new_dict_each_time() -> None:
    graph_schema()["$defs"]["flow"]["properties"].clear()
    assert "steps" in graph_schema()["$defs"]["flow"]["properties"]


@pytest.mark.parametrize("spec", [ROUTER, FLOW, CYCLE], ids=["router", "flow", "cycle"])
def test_schema_accepts_what_another_tool_writes(spec: dict[str, Any]) -> None:
    VALIDATOR.validate(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"kind": "flow", "steps": None},
        {"kind": None, "steps": {"a": {"handler": "f", "class_name": None, "after": None}}},
        {"steps": {"a": {"kind": "choice", "class_name": "C"}}},
        {"steps": {"a": {"handler": "f"}, "b": {"handler": "f", "after": "a"}}},
        {"steps": {"q": {"kind": "queue", "path": ""}}},
        {"steps": {"r": {"kind": "router", "routes": {"x": {"kind": "router"}}}}},
        {"steps": {"a": {"handler": "f", "policy": {"on_error": "default", "default": None}}}},
        {"steps": {"a": {"handler": "f", "policy": {"on_error": "fallback", "fallback": "b", "retries": None}}}},
        {"kind": "router", "model_endpoints_routes_names": [], "routes": None},
    ],
)
def test_schema_accepts_what_is_read(spec: dict[str, Any]) -> None:
    assert _read(spec)
    VALIDATOR.validate(spec)


@pytest.mark.parametrize(
    "spec",
    [
        [],
        "flow",
        {"kind": "tree"},
        {"stepps": {}},
        {"steps": []},
        {"engine": "fast"},
        {"allow_cyclic": 1},
        {"max_iterations": 0},
        {"max_iterations": True},
        {"steps": {"a": {}}},
        {"steps": {"a": {"handler": None}}},
        {"steps": {"a": {"hander": "f"}}},
        {"steps": {"a": {"handler": ""}}},
        {"steps": {"a/b": {"handler": "f"}}},
        {"steps": {" a": {"handler": "f"}}},
        {"steps": {"a": {"kind": "flow", "steps": {}}}},
        {"steps": {"a": {"kind": "model_runner", "class_name": "C"}}},
        {"steps": {"a": {"kind": "queue", "class_name": "C"}}},
        {"steps": {"a": {"kind": "queue", "shards": 0}}},
        {"steps": {"a": {"kind": "error_step"}}},
        {"steps": {"a": {"handler": "f", "after": [1]}}},
        {"steps": {"a": {"handler": "f", "class_args": []}}},
        {"steps": {"a": {"handler": "f", "policy": {"retry": 1}}}},
        {"steps": {"a": {"handler": "f", "policy": {"timeout_s": 0}}}},
        {"steps": {"a": {"handler": "f", "policy": {"retries": -1}}}},
        {"steps": {"a": {"handler": "f", "policy": {"on_error": "default"}}}},
        {"steps": {"a": {"handler": "f", "policy": {"fallback": "b"}}}},
        {"steps": {"a": {"handler": "f", "policy": {"default": 1}}}},
        {"kind": "router", "routes": []},
        {"kind": "router", "routes": {"a": {"kind": "queue", "path": "x"}}},
        {"kind": "router", "routes": {"a/b": {"class_name": "M"}}},
        {"kind": "router", "steps": {}},
    ],
    ids=str,
)
def test_schema_refuses_what_is_not_read(spec: Any) -> None:
    assert not _read(spec)
    assert not _accepted(spec)


@given(graphs())
@settings(max_examples=50, deadline=None)
def test_schema_accepts_any_graph(graph: Graph) -> None:
    VALIDATOR.validate(graph_to_dict(graph))


_VALUES: list[Any] = [None, "x", "", 0, 1, -1, 2.5, True, [], ["a"], [1], {}, {"x": 1}, "sync", "router", "queue"]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each object or list of a spec with each key of it, but not what is inside the arguments."""
    places = []
    if isinstance(value, dict):
        for key, inner in value.items():
            places.append((value, key))
            if key not in ("class_args", "options", "trigger_args", "default"):
                places += _places(inner)
    return places


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_schema_and_reader_agree_on_changed_specs(data: st.DataObject) -> None:
    spec = copy.deepcopy(data.draw(st.sampled_from([ROUTER, FLOW, CYCLE])))
    spec.get("steps", {}).get("st", {})["policy"] = {"timeout_s": 1, "on_error": "fallback", "fallback": "s2"}
    places = _places(spec)
    holder, key = places[data.draw(st.integers(0, len(places) - 1))]
    change = data.draw(st.sampled_from(["value", "remove", "rename"]))
    if change == "value":
        holder[key] = data.draw(st.sampled_from(_VALUES))
    else:
        value = holder.pop(key)
        if change == "rename":
            holder[f"{key}s"] = value
    named_otherwise = "named" in _failure(spec)  # a schema cannot compare a name with its key
    assert named_otherwise or _accepted(spec) == _read(spec)


def _failure(spec: Any) -> str:
    try:
        graph_from_dict(spec)
    except SpecError as exc:
        return exc.message
    return ""
