"""Functions as data: dictionaries, JSON and YAML that read back to an equal function.

Written in a stable order, with what is set and nothing else. A function's secrets are never in it. Read are our own
dictionaries, those of MLRun (what means nothing here is listed in `IGNORED`), and bare graphs; the form that a
deployed function gets is in ``serving_spec.py``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from servegraph.errors import SettingsError, SpecError
from servegraph.graph.spec import graph_from_dict, graph_to_dict, reference_of
from servegraph.graph.spec_fields import (
    CODE,
    FLAG,
    OBJECT,
    SPAN,
    TEXT,
    Field,
    ValueType,
    at,
    check_keys,
    choice_of,
    field_value,
    misfit,
    shown,
)
from servegraph.graph.spec_text import read_json, read_yaml, with_line, write_json, write_yaml
from servegraph.graph.spec_values import plain_value
from servegraph.runtimes.function import FunctionSpec, ServingFunction
from servegraph.settings import load_settings

_LEAST_SECRET = 6
"""From this length on a secret is also looked for inside of longer texts."""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


TEXTS: Final = ValueType("a list of texts", {"type": "array", "items": {"type": "string"}}, _is_texts)
TEXT_MAP: Final = ValueType(
    "an object of texts", {"type": "object", "additionalProperties": {"type": "string"}}, _is_text_map
)

METADATA_FIELDS: Final = (
    Field("name", TEXT, "The function's name."),
    Field("project", TEXT, "The project that it belongs to."),
    Field("tag", TEXT, "The tag of this version of it."),
    Field("labels", TEXT_MAP, "Labels of the function."),
)
SPEC_FIELDS: Final = (
    Field("description", TEXT, "For people."),
    Field("image", TEXT, "Container image of a deployment."),
    Field("requirements", TEXTS, "Packages that a deployment installs."),
    Field("commands", TEXTS, "Further commands that build a deployment's image."),
    Field("config", OBJECT, "Fields that go over those of a Nuclio function configuration."),
    Field("env", TEXT_MAP, "Environment variables of a deployment."),
    Field("filename", TEXT, "The file that holds the function's code."),
    Field("workdir", TEXT, "The folder that relative model paths start from."),
    Field("source", TEXT, "The Python text of the function's code."),
    Field("parameters", OBJECT, "Read by context.get_param."),
    Field("load_mode", choice_of("sync", "async"), "Whether the server waits for its models."),
    Field("load_timeout_s", SPAN, "Seconds that one attempt to load a model may take."),
    Field("default_content_type", TEXT, "The media type of requests that name none."),
    Field("error_stream", TEXT, "Stream URI that records of failed steps go to."),
    Field("graph_initializer", CODE, "Name of a function that is called with the server before its steps are built."),
    Field("tracking", OBJECT, "Where and how predictions are recorded."),
    Field("settings", OBJECT, "Settings of the local server, nested or dotted."),
    Field("graph", OBJECT, "The graph."),
)

IGNORED: Final[dict[str, tuple[str, ...]]] = {
    "function": ("status",),
    "metadata": ("hash", "updated", "uid", "categories", "credentials", "annotations", "namespace", "generate_name"),
    "spec": (
        "args", "entry_points", "default_handler", "disable_auto_mount", "allow_empty_resources", "clone_target_dir",
        "base_spec", "no_cache", "function_kind", "function_handler", "function_refs", "nuclio_runtime", "runtime",
        "readiness_timeout", "readiness_timeout_before_failure", "preemption_mode", "priority_class_name",
        "node_selector", "node_name", "affinity", "tolerations", "security_context", "resources", "replicas",
        "min_replicas", "max_replicas", "volumes", "volume_mounts", "service_account", "service_type",
        "add_templated_ingress_host_mode", "image_pull_secret", "image_pull_policy", "pythonpath", "mount_applied",
        "disable_default_http_trigger", "event_timeout", "state_thresholds", "model_endpoint_creation_task_name",
        "serving_spec", "deployment_mode", "auth", "output", "rundb", "code_origin",
    ),
}  # fmt: skip
"""Keys of MLRun's function dictionaries that mean nothing here: read, and not written again."""

_MLRUN_SPEC: Final = ("build", "command", "track_models")
_TRACKING_PARAMETERS: Final = ("log_stream", "log_stream_batch", "log_stream_sample")


# -- writing -----------------------------------------------------------------------------------------------------------


def function_to_dict(function: ServingFunction) -> dict[str, Any]:
    """A function as a dictionary of plain values, without its secrets.

    Classes and functions of the function's own code are written by their bare names, so that the dictionary means the
    same wherever that code is.

    Raises:
        SpecError: a class, function or value cannot be written, or a secret's value stands in it; the message has
            the path.
    """
    metadata = {"name": function.name, "project": function.project, "tag": function.tag, "labels": function.labels}
    spec: dict[str, Any] = {}
    for field in SPEC_FIELDS:
        value = _written(function.spec, field)
        if value not in (None, "", {}, []):
            spec[field.key] = value
    data: dict[str, Any] = {
        "kind": function.kind,
        "metadata": {k: plain_value(v, f"$.metadata.{k}") for k, v in metadata.items() if v},
        "spec": _with_bare_names(spec, own_modules(function.spec)),
    }
    if function.verbose:
        data["verbose"] = True
    refuse_secrets(data, function)
    return data


def function_to_json(function: ServingFunction, indent: bool = True) -> str:
    """A function as JSON text; see `function_to_dict`."""
    return write_json(function_to_dict(function), indent)


def function_to_yaml(function: ServingFunction) -> str:
    """A function as YAML text; see `function_to_dict`."""
    return write_yaml(function_to_dict(function))


def _written(spec: FunctionSpec, field: Field) -> Any:
    value, path = getattr(spec, field.name), at("$.spec", field.key)
    if value is None:
        return None
    if field.key == "graph":
        with _inside(path):
            return graph_to_dict(value)
    if field.key == "tracking":
        return plain_value(value.to_dict() | {"enabled": value.enabled}, path)
    if field.key == "graph_initializer":
        return value if isinstance(value, str) else reference_of(value, path)
    value = plain_value(value, path)
    if value not in ("", {}, []):
        field_value(field, value, "$.spec")
    return value


def own_modules(spec: FunctionSpec) -> list[str]:
    """The names under which the function's own code is imported in this process."""
    from servegraph.runtimes.source import module_names

    return module_names(spec.filename, spec.source)


def _with_bare_names(spec: dict[str, Any], modules: list[str]) -> dict[str, Any]:
    prefixes = tuple(f"{name}." for name in modules)

    def bare(value: Any) -> Any:
        found = next((p for p in prefixes if isinstance(value, str) and value.startswith(p)), "")
        return value[len(found) :] if found else value

    if "graph_initializer" in spec:
        spec["graph_initializer"] = bare(spec["graph_initializer"])
    for step in _steps(spec.get("graph") or {}):
        for key in ("class_name", "handler"):
            if key in step:
                step[key] = bare(step[key])
        for key, value in (step.get("class_args") or {}).items():
            if key.startswith("_"):
                step["class_args"][key] = bare(value)
    return spec


def _steps(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield graph
    for step in (graph.get("steps") or graph.get("routes") or {}).values():
        yield from _steps(step)


def refuse_secrets(data: Any, function: ServingFunction, path: str = "$") -> None:
    """Raise `SpecError` where a value of the function's secrets stands in the data."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            refuse_secrets(str(key), function, path)
            refuse_secrets(value, function, at(path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            refuse_secrets(value, function, at(path, index))
    elif isinstance(data, str) and data:
        for name, secret in function._secrets.items():
            if data == secret or (len(secret) >= _LEAST_SECRET and secret in data):
                raise misfit(path, f"holds the value of the secret {name!r}: read it with context.get_secret({name!r})")


# -- reading -----------------------------------------------------------------------------------------------------------


def function_from_dict(data: Mapping[str, Any]) -> ServingFunction:
    """The function that a dictionary describes: one of `function_to_dict`, or of MLRun with ``kind: serving``.

    Raises:
        SpecError: a key is unknown or a value has the wrong type; the message begins with the path.
    """
    if not isinstance(data, Mapping):
        raise misfit("$", f"a function's spec must be an object, not {shown(data)}")
    check_keys(data, ["kind", "metadata", "spec", "verbose", *IGNORED["function"]], "$", "a function")
    if data.get("kind", "serving") not in ("serving", ""):
        raise misfit("$.kind", f"a function cannot be of kind {data['kind']!r}; valid: serving")
    metadata = _section(data, "metadata", METADATA_FIELDS, ())
    spec = _section(data, "spec", SPEC_FIELDS, _MLRUN_SPEC)
    function = made_function(metadata, spec)
    function.verbose = bool(field_value(Field("verbose", FLAG, ""), data.get("verbose"), "$"))
    return function


def made_function(metadata: Mapping[str, Any], values: Mapping[str, Any]) -> ServingFunction:
    """A function of checked values by field."""
    spec = FunctionSpec(**{k: v for k, v in values.items() if k not in _READERS})
    for key, read in _READERS.items():
        if key in values:
            try:
                setattr(spec, key, read(values[key]))
            except SettingsError as exc:
                raise misfit(at("$.spec", key), exc.message) from exc
    try:
        function = ServingFunction(
            metadata.get("name") or "function", metadata.get("project") or "default", metadata.get("tag") or "", spec
        )
    except SettingsError as exc:
        raise misfit("$.metadata.name", exc.message) from exc
    function.labels = dict(metadata.get("labels") or {})
    return function


def _section(data: Mapping[str, Any], name: str, fields: tuple[Field, ...], more: tuple[str, ...]) -> dict[str, Any]:
    """The checked values of a part of the dictionary, by field."""
    path = at("$", name)
    given = data.get(name)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise misfit(path, f"must be an object, not {shown(given)}")
    check_keys(given, [*(f.key for f in fields), *more, *IGNORED[name]], path, f"a function's {name}")
    if more:
        given = _from_mlrun(given)
    values: dict[str, Any] = {}
    for field in fields:
        value = field_value(field, given.get(field.key), path)
        if value not in (None, "", {}, []):
            # A dictionary made in Python may hold classes and functions; the graph's reader copies them.
            own = field.key == "graph" or callable(value)
            values[field.key] = value if own else plain_value(value, at(path, field.key))
    return values


def _from_mlrun(given: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with what MLRun says in other words said in ours."""
    spec = dict(given)
    build = spec.pop("build", None) or {}
    if not isinstance(build, Mapping):
        raise misfit("$.spec.build", f"must be an object, not {shown(build)}")
    if build.get("functionSourceCode"):
        spec["source"] = _decoded(build["functionSourceCode"], "$.spec.build.functionSourceCode")
    elif isinstance(spec.get("source"), str) and "\n" not in spec["source"] and "://" in spec["source"]:
        raise misfit("$.spec.source", "code is not fetched from an address: give the text, or a file in filename")
    for key in ("requirements", "commands"):
        if build.get(key) and not spec.get(key):
            spec[key] = build[key]
    command = spec.pop("command", None)
    if command and not spec.get("filename") and not spec.get("source"):
        spec["filename"] = command
    if isinstance(spec.get("env"), list):
        spec["env"] = _env_of_list(spec["env"])
    if spec.pop("track_models", None) and "tracking" not in spec:
        parameters = spec.get("parameters") or {}
        spec["tracking"] = {k: parameters[k] for k in _TRACKING_PARAMETERS if parameters.get(k) is not None}
        spec["tracking"]["enabled"] = True
    return spec


def _decoded(code: Any, path: str) -> str:
    try:
        return base64.b64decode(code, validate=True).decode("utf-8")
    except (TypeError, ValueError, binascii.Error) as exc:
        raise misfit(path, "must be base64 of UTF-8 text") from exc


def _env_of_list(variables: list[Any]) -> dict[str, str]:
    """Kubernetes' list of ``{name, value}`` as a mapping."""
    env: dict[str, str] = {}
    for index, variable in enumerate(variables):
        path = at("$.spec.env", index)
        if not isinstance(variable, Mapping) or not isinstance(variable.get("name"), str):
            raise misfit(path, f"must be an object with name and value, not {shown(variable)}")
        if variable.get("valueFrom"):
            raise misfit(path, f"{variable['name']!r} takes its value from the cluster: put it into config instead")
        env[variable["name"]] = str(variable.get("value") or "")
    return env


def _read_graph(value: Mapping[str, Any]) -> Any:
    with _inside("$.spec.graph"):
        return graph_from_dict(value)


def _read_tracking(value: Mapping[str, Any]) -> Any:
    from servegraph.monitoring.tracking import Tracking

    return Tracking.from_dict(value)


def _read_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    load_settings(environ={}, function=value)  # what is wrong is told now, not when it is served
    return dict(value)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "graph": _read_graph,
    "tracking": _read_tracking,
    "settings": _read_settings,
}


class _inside:  # noqa: N801 - used like a function
    """Puts what is wrong with a graph at the graph's place in the function."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        if isinstance(exc, SpecError) and exc.message.startswith("$"):
            raise SpecError(self._path + exc.message[1:]) from exc


# -- text --------------------------------------------------------------------------------------------------------------


def function_from_json(text: str | bytes) -> ServingFunction:
    """The function that a JSON text describes; see `function_from_dict`."""
    return function_from_dict(read_json(text))


def function_from_yaml(text: str | bytes) -> ServingFunction:
    """The function that a YAML text describes; see `function_from_dict`. Every error names the line."""
    value, lines = read_yaml(text)
    try:
        return function_from_dict(value)
    except SpecError as exc:
        raise with_line(exc, lines) from exc
