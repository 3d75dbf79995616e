"""Graphs as data: dictionaries, JSON and YAML that read back to an equal graph.

A spec is written in a stable order: fields as the table in ``spec_fields.py`` lists them, steps as they were
added. What is not set is left out. Reading refuses what it does not know and says where it stands. Reading
runs no code of the spec: names are resolved when the graph is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from servegraph.errors import GraphError, SpecError
from servegraph.graph.flow import FlowGraph, Graph, RouterGraph
from servegraph.graph.policies import StepPolicy, as_policy
from servegraph.graph.spec_fields import (
    FLOW_FIELDS,
    FLOW_KINDS,
    IGNORED_STEP_KEYS,
    KEPT_FLOW_FIELDS,
    NAME_PATTERN,
    NAMES,
    POLICY_TYPES,
    STEP_ALIASES,
    STEP_FIELDS,
    UNSUPPORTED_KINDS,
    Field,
    at,
    check_keys,
    field_value,
    misfit,
    shown,
)
from servegraph.graph.spec_text import read_json, read_yaml, with_line, write_json, write_yaml
from servegraph.graph.spec_values import code_of, copied, plain_value, reference_of
from servegraph.graph.steps import ErrorStep, QueueStep, RouterStep, Step, as_names

_CLASSES: dict[str, type[Step]] = {"task": Step, "router": RouterStep, "queue": QueueStep, "error_step": ErrorStep}
_CODE_KEYS = ("class_name", "class_args", "handler")


# -- writing -----------------------------------------------------------------------------------------------------------


def graph_to_dict(graph: Graph, strip: bool = False) -> dict[str, Any]:
    """A graph as a dictionary of plain values.

    Args:
        graph: the graph; it is not changed, and shares nothing with the result.
        strip: leave out ``endpoint_type`` and ``model_endpoint_creation_strategy``.

    Raises:
        SpecError: a class, function or argument cannot be written; the message has its path and says what to do.
    """
    if isinstance(graph, RouterGraph):
        return step_to_dict(graph, strip=strip, path="$")
    spec: dict[str, Any] = {}
    for field in FLOW_FIELDS:
        _write(spec, field, getattr(graph, field.name))
    spec["steps"] = {n: step_to_dict(s, strip=strip, path=at("$.steps", n)) for n, s in graph.steps.items()}
    for key, value in graph.extra.items():
        if not strip or key not in ("endpoint_type", "model_endpoint_creation_strategy"):
            spec[key] = plain_value(value, at("$", key))
    return spec


def step_to_dict(step: Step, strip: bool = False, path: str = "$") -> dict[str, Any]:
    """A step, with its routes if it is a router, as a dictionary of plain values; see `graph_to_dict`.

    Args:
        step: the step.
        strip: as for `graph_to_dict`.
        path: where the step stands in its spec, for messages.
    """
    fields = STEP_FIELDS.get(step.kind)
    if fields is None:
        raise misfit(path, f"a step of kind {step.kind!r} cannot be written; {_kinds()}")
    spec: dict[str, Any] = {"kind": step.kind}
    code = dict(zip(_CODE_KEYS, code_of(step, path), strict=True))
    for field in fields:
        if strip and field.stripped:
            continue
        value = code[field.key] if field.key in code else getattr(step, field.name)
        if isinstance(value, StepPolicy):
            value = value.to_dict()
        if field.type is not NAMES and isinstance(value, (Mapping, list)):
            value = plain_value(value, at(path, field.key))
        _write(spec, field, value)
    if isinstance(step, RouterStep):
        routes = at(path, "routes")
        spec["routes"] = {k: step_to_dict(r, strip=strip, path=at(routes, k)) for k, r in step.routes.items()}
        for route in spec["routes"].values():
            route.pop("name", None)
    return spec


def _write(spec: dict[str, Any], field: Field, value: Any) -> None:
    if field.type is NAMES:
        value = list(value)
    unset = value is None or (not field.always and (value is False or value in ([], {})))
    if not unset and not (field.key == "name" and value == ""):
        spec[field.key] = value


# -- reading -----------------------------------------------------------------------------------------------------------


def graph_from_dict(spec: Mapping[str, Any]) -> Graph:
    """The graph that a dictionary describes: a flow, or with ``kind: router`` a router.

    Raises:
        SpecError: a key is unknown, a value has the wrong type, or a kind is not supported; the message begins
            with the path, such as ``$.steps.enrich.hander``.
    """
    if not isinstance(spec, Mapping):
        raise misfit("$", f"a graph's spec must be an object, not {shown(spec)}")
    kind = spec.get("kind")
    if kind == "router":
        return _router_graph(spec)
    if kind is not None and kind not in FLOW_KINDS:
        raise misfit("$.kind", f"a graph cannot be {kind!r}; valid: flow, router")
    return _flow_graph(spec)


def _flow_graph(spec: Mapping[str, Any]) -> FlowGraph:
    check_keys(spec, ["kind", *(f.key for f in FLOW_FIELDS), "steps", *KEPT_FLOW_FIELDS], "$", "a flow")
    values = _values(spec, FLOW_FIELDS, "$")
    on_error = values.pop("on_error", None)
    try:
        graph = FlowGraph(**values)
    except GraphError as exc:
        raise misfit("$", exc.message) from exc
    graph.on_error = on_error
    graph.extra = {k: copied(v) for k, v in spec.items() if k in KEPT_FLOW_FIELDS}
    steps = spec.get("steps")
    if steps is None:
        return graph
    if not isinstance(steps, Mapping):
        raise misfit("$.steps", f"must be an object of steps by name, not {shown(steps)}")
    for name, step_spec in steps.items():
        place = at("$.steps", name)
        step = step_from_dict(_checked_name(name, place), step_spec, place)
        if isinstance(step, ErrorStep):
            graph.own(step)
        else:
            graph.insert_step(name, step)
    return graph


def _router_graph(spec: Mapping[str, Any]) -> RouterGraph:
    graph = RouterGraph()
    own = {k: v for k, v in spec.items() if k != "model_endpoints_routes_names"}
    _fill(graph, own, "$")
    graph.name = field_value(STEP_FIELDS["router"][0], spec.get("name"), "$") or ""
    return graph


def step_from_dict(name: str, spec: Mapping[str, Any], path: str = "$") -> Step:
    """The step that a dictionary describes.

    Args:
        name: the step's name; empty to take the ``name`` in the spec, if any.
        spec: the dictionary.
        path: where it stands in its graph, for messages.

    Raises:
        SpecError: see `graph_from_dict`.
    """
    if not isinstance(spec, Mapping):
        raise misfit(path, f"a step's spec must be an object, not {shown(spec)}")
    own_name = spec.get("name")
    if name or own_name is not None:
        name = _checked_name(name or own_name, path)
    step = _new_step(spec, path)
    _fill(step, spec, path)
    step.name = name
    if own_name not in (None, name):
        raise misfit(at(path, "name"), f"the step is named {name!r} by its key and {own_name!r} here")
    return step


def _checked_name(name: Any, path: str) -> str:
    if not isinstance(name, str) or not re.match(rf"{NAME_PATTERN[:-1]}\Z", name):
        raise misfit(path, f"{name!r} is no name of a step: it must be text, not be empty and hold no '/'")
    return name


def _new_step(spec: Mapping[str, Any], path: str) -> Step:
    kind = spec.get("kind")
    kind = "task" if kind is None else kind
    if not isinstance(kind, str):
        raise misfit(at(path, "kind"), f"must be text, not {shown(kind)}")
    if kind in UNSUPPORTED_KINDS:
        raise misfit(at(path, "kind"), f"{kind!r}: {UNSUPPORTED_KINDS[kind]}")
    kind = STEP_ALIASES.get(kind, kind)
    if kind not in _CLASSES:
        raise misfit(at(path, "kind"), f"there is no kind of step {kind!r}; {_kinds()}")
    return _CLASSES[kind]()


def _kinds() -> str:
    return "valid: " + ", ".join([*STEP_FIELDS, *STEP_ALIASES])


def _fill(step: Step, spec: Mapping[str, Any], path: str) -> None:
    """Set a step's attributes from its spec."""
    fields = STEP_FIELDS[step.kind]
    routes = ["routes"] if isinstance(step, RouterStep) else []
    valid = ["kind", "name", *(f.key for f in fields), *routes, *IGNORED_STEP_KEYS]
    check_keys(spec, list(dict.fromkeys(valid)), path, f"a step of kind {step.kind!r}")
    values = _values(spec, fields, path)
    values.pop("name", None)
    if "policy" in values:
        values["policy"] = _policy(values["policy"], at(path, "policy"))
    code = {k: values.pop(k) for k in _CODE_KEYS if k in values}
    if code:  # the constructor tells functions from classes
        made = Step(**code)
        step.class_name, step.class_args, step.handler = made.class_name, made.class_args, made.handler
    if step.kind in ("task", "error_step") and step.class_name is None and step.handler is None:
        raise misfit(path, "the step has no code: give class_name or handler")
    for attribute, value in values.items():
        setattr(step, attribute, value)
    if isinstance(step, RouterStep):
        _add_routes(step, spec.get("routes"), at(path, "routes"))


def _values(spec: Mapping[str, Any], fields: Sequence[Field], path: str) -> dict[str, Any]:
    """The values that a spec gives, by the attribute they are for."""
    values: dict[str, Any] = {}
    for field in fields:
        value = field_value(field, spec.get(field.key), path)
        if value is not None:
            values[field.name] = as_names(value) if field.type is NAMES else copied(value)
    return values


def _policy(spec: Mapping[str, Any], path: str) -> StepPolicy:
    check_keys(spec, list(POLICY_TYPES), path, "a policy")
    given: dict[str, Any] = {}
    for key, value in spec.items():
        value = field_value(Field(key, POLICY_TYPES[key], ""), value, path)
        if value is not None or key == "default":
            given[key] = value
    try:
        return as_policy(given)
    except GraphError as exc:
        raise misfit(path, exc.message.removeprefix("policy: ")) from exc


def _add_routes(router: RouterStep, routes: Any, path: str) -> None:
    if routes is None:
        return
    if not isinstance(routes, Mapping):
        raise misfit(path, f"must be an object of routes by key, not {shown(routes)}")
    for key, spec in routes.items():
        place = at(path, key)
        route = step_from_dict(_checked_name(key, place), spec, place)
        if route.kind not in ("task", "router"):
            raise misfit(at(place, "kind"), f"a route cannot be of kind {route.kind!r}; valid: task, router")
        try:
            router.add_route(key, route)
        except GraphError as exc:
            raise misfit(place, exc.message) from exc


# -- text --------------------------------------------------------------------------------------------------------------


def graph_to_json(graph: Graph, strip: bool = False, indent: bool = True) -> str:
    """A graph as JSON text; see `graph_to_dict`."""
    return write_json(graph_to_dict(graph, strip=strip), indent)


def graph_to_yaml(graph: Graph, strip: bool = False) -> str:
    """A graph as YAML text; see `graph_to_dict`."""
    return write_yaml(graph_to_dict(graph, strip=strip))


def graph_from_json(text: str | bytes) -> Graph:
    """The graph that a JSON text describes; see `graph_from_dict`. Errors in the JSON name line and column."""
    return graph_from_dict(read_json(text))


def graph_from_yaml(text: str | bytes) -> Graph:
    """The graph that a YAML text describes; see `graph_from_dict`. Every error names the line."""
    value, lines = read_yaml(text)
    try:
        return graph_from_dict(value)
    except SpecError as exc:
        raise with_line(exc, lines) from exc


__all__ = [
    "graph_from_dict",
    "graph_from_json",
    "graph_from_yaml",
    "graph_to_dict",
    "graph_to_json",
    "graph_to_yaml",
    "reference_of",
    "step_from_dict",
    "step_to_dict",
]
