"""The one table of what a graph's spec may hold; reading, writing and the JSON Schema all come from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servegraph.errors import SpecError, closest
from servegraph.graph.steps import MAX_ROUTES

NAME_PATTERN = r"^[^/\s][^/]*$"
"""Names of steps and keys of routes: they stand in paths such as ``ensemble/model:v2``."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a field's value may be."""

    words: str
    """For messages: ``must be …``."""
    schema: Mapping[str, Any]
    """The JSON Schema of the value; null, which means "not given", is allowed beside it."""
    accepts: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_int(value: Any, least: int = -(2**53)) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_names(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, (list, tuple)) and all(map(_is_text, value)))


def _is_code(value: Any) -> bool:
    # A dict made in Python may hold the class or function itself.
    return _is_text(value) or not isinstance(value, (Mapping, Sequence, int, float))


def choice_of(*values: str) -> ValueType:
    """One of these words."""
    return ValueType("one of " + ", ".join(values), {"enum": [*values]}, lambda v: _is_text(v) and v in values)


TEXT = ValueType("text", {"type": "string"}, _is_text)
CODE = ValueType("a class's or function's name", {"type": "string", "minLength": 1}, lambda v: _is_code(v) and v != "")
NAMES = ValueType(
    "a list of step names",
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    _is_names,
)
FLAG = ValueType("true or false", {"type": "boolean"}, lambda v: isinstance(v, bool))
WHOLE = ValueType("a whole number", {"type": "integer", "minimum": 0}, lambda v: _is_int(v, 0))
COUNT = ValueType("a whole number above 0", {"type": "integer", "minimum": 1}, lambda v: _is_int(v, 1))
SECONDS = ValueType("a number of seconds", {"type": "number", "minimum": 0}, lambda v: _is_number(v) and v >= 0)
SPAN = ValueType("a number above 0", {"type": "number", "exclusiveMinimum": 0}, lambda v: _is_number(v) and v > 0)
OBJECT = ValueType("an object", {"type": "object"}, lambda v: isinstance(v, Mapping))
ANYTHING = ValueType("anything", {}, lambda _: True)


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a spec."""

    key: str
    type: ValueType
    doc: str
    attribute: str = ""
    """The attribute of the step or graph where it is not named like the key."""
    stripped: bool = False
    """Left out with ``strip=True``."""
    always: bool = False
    """Written even when it is empty or false."""

    @property
    def name(self) -> str:
        """The attribute that holds the value."""
        return self.attribute or self.key


_NAME = Field("name", TEXT, "The step's name; the key it stands under.")
_CODE_FIELDS = (
    Field("class_name", CODE, "Class to run: a name, 'module:attr' or 'package.module.Class'."),
    Field("class_args", OBJECT, "Arguments of the class; a key that starts with '_' names a function."),
    Field("handler", CODE, "Function to run, the class's method, or an '(expression)' over event."),
)
_COMMON_FIELDS = (
    Field("input_path", TEXT, "Dotted path of the part of the body that the code gets."),
    Field("result_path", TEXT, "Dotted path in the body where the result is written."),
    Field("full_event", FLAG, "The code gets and returns the event instead of its body.", always=True),
    Field("function", TEXT, "Child function that runs the step."),
    Field("responder", FLAG, "The step's output is the answer to the caller."),
    Field("policy", OBJECT, "Timeout, retries, failure and load."),
    Field("mutates", FLAG, "False: the code never changes the body that it is given.", always=True),
    Field("shape", TEXT, "Graphviz shape of the step in a plot."),
    Field("plot_label", TEXT, "What a plot says of the step below its name, in place of its code."),
    Field("max_iterations", COUNT, "How often one event may pass the step in a cyclic graph."),
    Field("after", NAMES, "The steps that lead to this one; none makes it a start step."),
    Field("cycle_from", NAMES, "Those of 'after' that lead back."),
    Field("on_error", TEXT, "The error step that takes over when this one fails."),
    Field("endpoint_type", WHOLE, "Kept for specs that carry it.", stripped=True),
    Field("model_endpoint_creation_strategy", TEXT, "Kept for specs that carry it.", stripped=True),
)
_QUEUE_FIELDS = (
    Field("path", TEXT, "URI of the stream; may be empty where steps follow.", always=True),
    Field("shards", COUNT, "Number of the stream's shards when it is made."),
    Field("retention_in_hours", COUNT, "How long the stream keeps records when it is made."),
    Field("trigger_args", OBJECT, "Arguments of the trigger of the function behind the queue."),
    Field("options", OBJECT, "Options of the stream, such as the consumer group.", "stream_options"),
)
_ERROR_FIELDS = (
    Field("base_step", TEXT, "The step whose failures are handled."),
    Field("before", NAMES, "Where the graph goes on after the handler; none ends it there."),
)

STEP_FIELDS: dict[str, tuple[Field, ...]] = {
    "task": (*_CODE_FIELDS, *_COMMON_FIELDS),
    "router": (_NAME, *_CODE_FIELDS, *_COMMON_FIELDS),
    "queue": (*_QUEUE_FIELDS, *_COMMON_FIELDS),
    "error_step": (*_CODE_FIELDS, *_COMMON_FIELDS, *_ERROR_FIELDS),
}
"""The fields of each kind of step, in the order in which they are written; routers have ``routes`` besides."""

STEP_ALIASES = {"choice": "task"}
"""Kinds of other frameworks that are read as one of ours."""

FLOW_FIELDS: tuple[Field, ...] = (
    Field("engine", choice_of("sync", "async"), "Whether requests pass through coroutines.", always=True),
    Field("allow_cyclic", FLAG, "Whether steps may lead back to earlier ones.", always=True),
    Field("max_iterations", COUNT, "How often one event may pass a step of a cycle."),
    Field("fail_fast", FLAG, "A failing branch cancels the others."),
    Field("on_error", TEXT, "The error step that takes over when any step fails."),
)

FLOW_KINDS = ("flow", "root")
KEPT_FLOW_FIELDS: dict[str, ValueType] = {
    "model_endpoints_routes_names": ANYTHING,
    "model_endpoints_names": ANYTHING,
    "track_models": ANYTHING,
    "endpoint_type": ANYTHING,
    "model_endpoint_creation_strategy": ANYTHING,
    "comment": ANYTHING,
}
"""Keys of a flow that mean nothing here and are kept."""

IGNORED_STEP_KEYS = ("comment", "skip_context")
"""Keys of a step that mean nothing here; they are read and not written again."""

POLICY_TYPES: dict[str, ValueType] = {
    "timeout_s": SPAN,
    "retries": WHOLE,
    "backoff_s": SECONDS,
    "backoff_max_s": SECONDS,
    "on_error": choice_of("fail", "skip", "fallback", "default"),
    "fallback": TEXT,
    "default": ANYTHING,
    "max_in_flight": COUNT,
    "execution": choice_of("auto", "inline", "thread"),
}

UNSUPPORTED_KINDS: dict[str, str] = {
    "flow": "a flow inside a flow is not supported: put its steps into the outer one, "
    "or call another function with a $remote step",
    "root": "a flow inside a flow is not supported: put its steps into the outer one, "
    "or call another function with a $remote step",
    "monitoring_application": "monitoring applications do not run as steps: "
    "turn monitoring on with set_tracking and configure it there",
    "model_runner": "model runners are not supported: add the models as routes of a router step "
    "('*servegraph.serving.ParallelRun' runs all of them)",
    "hub_task": "steps from a hub are not fetched: install the package that has the class, and name it in class_name",
}
"""Kinds of step that are known and not run here, each with the alternative."""

MAX_SPEC_ROUTES = MAX_ROUTES


def at(path: str, key: object) -> str:
    """The path of a key below a path: ``$.steps.enrich``; odd keys are quoted, indices bracketed."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    text = str(key)
    return f"{path}.{text}" if re.fullmatch(r"[A-Za-z_][\w-]*", text) else f"{path}[{text!r}]"


def misfit(path: str, why: str) -> SpecError:
    """The error about what stands at a path of a spec."""
    return SpecError(f"{path}: {why}")


def field_value(field: Field, value: Any, path: str) -> Any:
    """The value of a field; None for one that is not given.

    Raises:
        SpecError: it has the wrong type.
    """
    if value is None:
        return None
    if not field.type.accepts(value):
        raise misfit(at(path, field.key), f"must be {field.type.words}, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value in a message: short, with its type where that helps."""
    text = repr(value)
    if len(text) > 60:
        text = f"{text[:57]}..."
    return f"{type(value).__name__} {text}" if isinstance(value, (Mapping, list, tuple, set)) else text


def check_keys(spec: Mapping[Any, Any], valid: Sequence[str], path: str, what: str) -> None:
    """Refuse keys that mean nothing.

    Raises:
        SpecError: names the key's path and the nearest valid one.
    """
    for key in spec:
        if not isinstance(key, str):
            raise misfit(path, f"the key {key!r} is {type(key).__name__}; keys are text")
        if key in valid:
            continue
        others = [k for k, fields in STEP_FIELDS.items() if any(f.key == key for f in fields)]
        if key == "routes":
            others.append("router")
        elsewhere = f" (only {' and '.join(others)} steps have it)" if others and what.startswith("a step") else ""
        raise misfit(at(path, key), f"{what} has no {key!r}{elsewhere}; {closest(key, valid)}")
