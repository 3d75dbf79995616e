"""A function as Nuclio's function configuration, with its code inline.

The code becomes one plain module: the user's text and a footer with ``init_context`` and an ``async def handler``,
which is the one form that every version of Nuclio's Python wrapper takes. The spec goes into an environment variable.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SpecError
from servegraph.graph.spec_text import write_yaml
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.function_spec import function_to_dict, refuse_secrets
from servegraph.runtimes.nuclio.build import build_commands
from servegraph.runtimes.nuclio.module import module_text
from servegraph.runtimes.nuclio.validate import validate_config
from servegraph.runtimes.serving_spec import SECRETS_VARIABLE, SPEC_VARIABLE, spec_text
from servegraph.settings import ServerSettings, load_settings

RUNTIME: Final = "python:3.11"
PROJECT_LABEL: Final = "nuclio.io/project-name"
MAX_ENV_BYTES: Final = 120 * 1024
"""The longest value of an environment variable; Linux takes 128 KiB with the name."""
_MIN_READINESS_S: Final = 120
_BUILD_ONLY: Final = (
    "description",
    "image",
    "requirements",
    "commands",
    "config",
    "env",
    "filename",
    "workdir",
    "source",
)
_APPENDED: Final = ("env", "commands", "envFrom", "volumes")
"""Lists to which the function's own configuration adds; it replaces any other value."""


def export_nuclio(function: ServingFunction, path: str | Path | None = None) -> dict[str, Any]:
    """The Nuclio function configuration of a function; the same function always gives the same.

    Fields that Nuclio has and a function has not are given in ``function.spec.config``; they go over the rest. Secrets
    are not in it: their names are, and each is read from the environment variable of its name, which the
    configuration has to fill from the cluster.

    Args:
        function: the function.
        path: the YAML file to write as well.

    Raises:
        SpecError: the graph names code that the deployment does not have, or something cannot be written or would
            be refused by Nuclio; the message has the path.
    """
    data = function_to_dict(function)
    _check_tracking(function)
    code = module_text(function, data["spec"])
    settings = load_settings(environ={}, function=function.spec.settings)
    module = f"{function.name}-nuclio"  # the hyphen keeps it apart from everything that can be imported by name
    config: dict[str, Any] = {
        "apiVersion": "nuclio.io/v1",
        "kind": "NuclioFunction",
        "metadata": {
            "name": function.name,
            "labels": {PROJECT_LABEL: function.project, **function.labels},
        },
        "spec": {
            **({"description": function.spec.description} if function.spec.description else {}),
            "handler": f"{module}:{code.handler}",
            "runtime": RUNTIME,
            "env": _environment(function, data),
            "readinessTimeoutSeconds": _readiness_s(function, settings),
            "eventTimeout": f"{math.ceil(settings.timeouts.request_s + settings.timeouts.hang_grace_s)}s",
            "build": {
                "functionSourceCode": base64.b64encode(code.text.encode()).decode("ascii"),
                **({"baseImage": function.spec.image} if function.spec.image else {}),
                "commands": build_commands(function, data["spec"]),
            },
            "triggers": {"http": _http_trigger(settings)},
        },
    }
    config = _merged(config, function.spec.config)
    refuse_secrets(config, function)
    refuse_secrets(code.text, function, "the function's code")
    validate_config(config)
    if path is not None:
        Path(path).write_text(write_yaml(config), "utf-8")
    return config


def _check_tracking(function: ServingFunction) -> None:
    tracking = function.spec.tracking
    if tracking is not None and tracking.enabled and tracking.stream_path is None:
        raise SpecError("$.spec.tracking: predictions are tracked but no stream is named: set_tracking('kafka://…')")


def _environment(function: ServingFunction, data: Mapping[str, Any]) -> list[dict[str, str]]:
    runtime = {**data, "spec": {k: v for k, v in data["spec"].items() if k not in _BUILD_ONLY}}
    text = spec_text(runtime)
    if len(text) > MAX_ENV_BYTES:
        raise SpecError(
            f"the spec takes {len(text)} bytes of the environment even when packed; {MAX_ENV_BYTES} are possible: keep "
            "large data in files or parameters' addresses"
        )
    ours = {SPEC_VARIABLE: text}
    if function._secrets:
        ours[SECRETS_VARIABLE] = ",".join(sorted(function._secrets))
    for name in function.spec.env:
        if name in ours:
            raise SpecError(f"$.spec.env.{name}: the name is taken by the function's spec")
    return [{"name": n, "value": v} for n, v in {**function.spec.env, **ours}.items()]


def _readiness_s(function: ServingFunction, settings: ServerSettings) -> int:
    """How long a worker may take to become ready: its models are loaded before it is."""
    load_s = function.spec.load_timeout_s or settings.timeouts.load_s
    return max(_MIN_READINESS_S, math.ceil(load_s) + 30)


def _http_trigger(settings: ServerSettings) -> dict[str, Any]:
    limits = settings.limits
    return {
        "kind": "http",
        "numWorkers": settings.workers,
        "workerTerminationTimeout": f"{math.ceil(min(settings.timeouts.drain_timeout_s, 20))}s",
        "attributes": {"maxRequestBodySize": max(limits.body_json_bytes, limits.body_binary_bytes)},
    }


def _merged(base: Any, over: Any, key: str = "") -> Any:
    if isinstance(base, dict) and isinstance(over, Mapping):
        merged = dict(base)
        for name, value in over.items():
            merged[name] = _merged(base[name], value, name) if name in base else value
        return merged
    if isinstance(base, list) and isinstance(over, list) and key in _APPENDED:
        return [*base, *over]
    return over


__all__ = ["export_nuclio"]
