"""The JSON Schema of a graph's spec, made from the table that reading and writing use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from servegraph.graph.spec_fields import (
    FLOW_FIELDS,
    FLOW_KINDS,
    IGNORED_STEP_KEYS,
    KEPT_FLOW_FIELDS,
    MAX_SPEC_ROUTES,
    NAME_PATTERN,
    POLICY_TYPES,
    STEP_ALIASES,
    STEP_FIELDS,
    TEXT,
    Field,
    ValueType,
)
from servegraph.graph.spec_values import copied

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def graph_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that accepts the specs that `graph_from_dict` reads; a new dict each time.

    What it cannot tell are mistakes between steps (an unknown name in ``after``, a loop): `validate` does.
    """
    steps = {f"step_{kind}": _step(kind) for kind in STEP_FIELDS}
    return {
        "$schema": DIALECT,
        "title": "servegraph graph",
        "description": "A flow of steps, or a router with routes.",
        "type": "object",
        "if": {"required": ["kind"], "properties": {"kind": {"const": "router"}}},
        "then": {"$ref": "#/$defs/router"},
        "else": {"$ref": "#/$defs/flow"},
        "$defs": {
            "flow": _flow(),
            "router": _router(),
            "step": _by_kind(STEP_FIELDS),
            "route": _by_kind(("task", "router")),
            "policy": _policy(),
            **steps,
        },
    }


def _flow() -> dict[str, Any]:
    properties: dict[str, Any] = {"kind": {"enum": [*FLOW_KINDS, None]}}
    properties.update(_properties(FLOW_FIELDS))
    steps = {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/step"}}
    properties["steps"] = {**steps, "propertyNames": {"pattern": NAME_PATTERN}}
    for key, kind in KEPT_FLOW_FIELDS.items():
        properties[key] = {**_nullable(kind), "description": "Kept; it means nothing here."}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _router() -> dict[str, Any]:
    """The root router: a router step that may also carry a key of the graph's."""
    schema = _step("router")
    schema["properties"]["model_endpoints_routes_names"] = {"description": "Read and left out."}
    return schema


def _step(kind: str) -> dict[str, Any]:
    aliases = [alias for alias, meant in STEP_ALIASES.items() if meant == kind]
    default = [None] if kind == "task" else []
    properties: dict[str, Any] = {"kind": {"enum": [kind, *aliases, *default]}, "name": _nullable(TEXT)}
    properties.update(_properties(STEP_FIELDS[kind]))
    if "policy" in properties:
        properties["policy"] = {"anyOf": [{"$ref": "#/$defs/policy"}, {"type": "null"}]}
    if kind == "router":
        routes = {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/route"}}
        properties["routes"] = {
            **routes,
            "maxProperties": MAX_SPEC_ROUTES,
            "propertyNames": {"pattern": NAME_PATTERN},
        }
    for key in IGNORED_STEP_KEYS:
        properties[key] = {"description": "Read and left out."}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if kind in ("task", "error_step"):
        schema["anyOf"] = [_given("class_name"), _given("handler")]
    if kind != "task":
        schema["required"] = ["kind"]
    return schema


def _given(key: str) -> dict[str, Any]:
    return {"required": [key], "properties": {key: {"type": "string"}}}


def _by_kind(kinds: Iterable[str]) -> dict[str, Any]:
    """The schema of the kind that a step names, so that what is wrong in it is told about that kind alone."""
    names = list(kinds)
    schema: dict[str, Any] = {"$ref": "#/$defs/step_task"}
    for kind in reversed([k for k in names if k != "task"]):
        schema = {
            "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
            "then": {"$ref": f"#/$defs/step_{kind}"},
            "else": schema,
        }
    return {"type": "object", **schema}


def _policy() -> dict[str, Any]:
    properties = {key: _nullable(kind) for key, kind in POLICY_TYPES.items()}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": [
            {
                "if": _stands_in("fallback"),
                "then": {"required": ["fallback"], "properties": {"fallback": {"type": "string"}}},
                "else": {"properties": {"fallback": {"type": "null"}}},
            },
            {
                "if": _stands_in("default"),
                "then": {"required": ["default"]},
                "else": {"properties": {"default": False}},
            },
        ],
    }


def _stands_in(value: str) -> dict[str, Any]:
    return {"required": ["on_error"], "properties": {"on_error": {"const": value}}}


def _properties(fields: Iterable[Field]) -> dict[str, Any]:
    return {f.key: {**_nullable(f.type), "description": f.doc} for f in fields}


def _nullable(kind: ValueType) -> dict[str, Any]:
    """The schema of a value that may also be null, which means that it is not given."""
    schema: dict[str, Any] = copied(kind.schema)
    if "anyOf" in schema:
        schema["anyOf"].append({"type": "null"})
    elif "enum" in schema:
        schema["enum"].append(None)
    elif "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema
