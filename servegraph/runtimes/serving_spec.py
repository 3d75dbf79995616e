"""The spec that a deployed function finds in its environment, and specs of whatever form.

A deployment writes the spec into a variable (`SPEC_VARIABLE`) or mounts it as a file: JSON, or base64 of gzipped
JSON where it is large. Read are our own form (of ``function_spec.py``), the one that MLRun writes, and bare graphs.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SettingsError, SpecError
from servegraph.graph.spec_fields import check_keys, misfit, shown
from servegraph.graph.spec_text import MAX_SPEC_BYTES, read_json, read_yaml, with_line, write_json
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.function_spec import function_from_dict, made_function

SPEC_VARIABLE: Final = "SERVING_SPEC_ENV"
SECRETS_VARIABLE: Final = "SERVING_SECRETS_ENV"
"""Names of the variables that hold the function's secrets, comma-separated."""
SPEC_FILE: Final = "/tmp/mlrun/serving-conf/serving_spec.json"  # noqa: S108 - where MLRun mounts it, read-only
LARGE: Final = 4096
"""Texts of more bytes are packed."""

_TAKEN: Final = (
    "parameters", "graph", "load_mode", "graph_initializer", "error_stream", "default_content_type", "track_models",
)  # fmt: skip
_IGNORED: Final = (
    "function_tag", "function_hash", "version", "functions", "model_endpoint_creation_task_name", "verbose",
    "tracking_policy", "server_class",
)  # fmt: skip
_OTHERS: Final = ("function_name", "function_uri", "project", "filename", "secret_sources")
_UNSUPPORTED: Final = {
    "streaming": "functions that answer piece by piece are not supported",
    "api_handler_config": "mapped interfaces are not supported: map the body with input_path and result_path",
}


def function_from_spec(data: Any, name: str = "function") -> ServingFunction:
    """The function that a spec of any form describes.

    Args:
        data: a function's dictionary, a serving spec, or a bare graph.
        name: the name of the function around a bare graph.

    Raises:
        SpecError: it is none of them, or something in it is wrong.
    """
    if not isinstance(data, Mapping):
        raise misfit("$", f"a spec must be an object, not {shown(data)}")
    if str(data.get("apiVersion", "")).startswith("nuclio.io/"):
        raise misfit("$", "this is a configuration for Nuclio: serve the file or spec that it was exported from")
    if data.get("kind") == "SeldonDeployment":
        from servegraph.runtimes.seldon.deployment import function_from_deployment

        return function_from_deployment(data)
    if "metadata" in data or "spec" in data or data.get("kind") == "serving":
        return function_from_dict(data)
    if "graph" in data:
        return _from_serving_spec(data, name)
    known = {"steps", "routes", "engine"} & set(data) or data.get("kind") in ("router", "flow", "root")
    if not known:
        raise misfit(
            "$",
            f"this is no spec that is known (it has {shown(sorted(map(str, data)))}): a function has metadata and "
            "spec, a flow has steps, a router has kind: router and routes",
        )
    try:
        return made_function({"name": name}, {"graph": data})
    except SpecError as exc:
        raise SpecError(exc.message.replace("$.spec.graph", "$", 1)) from exc


def _from_serving_spec(data: Mapping[str, Any], name: str) -> ServingFunction:
    check_keys(data, [*_TAKEN, *_OTHERS, *_IGNORED, *_UNSUPPORTED], "$", "a serving spec")
    for key, why in _UNSUPPORTED.items():
        if data.get(key):
            raise misfit(f"$.{key}", why)
    project, uri_name, tag = _parts(str(data.get("function_uri") or ""))
    metadata = {
        "name": data.get("function_name") or uri_name or name,
        "project": data.get("project") or project,
        "tag": data.get("function_tag") or tag,
    }
    spec = {k: data[k] for k in _TAKEN if data.get(k) is not None}
    filename = data.get("filename")
    if isinstance(filename, str) and filename.endswith(".py") and Path(filename).is_file():
        spec["filename"] = filename  # elsewhere it is a path of the machine that wrote the spec
    try:
        function = function_from_dict({"metadata": {k: v for k, v in metadata.items() if v}, "spec": spec})
    except SpecError as exc:
        raise SpecError(exc.message.replace("$.spec.", "$.", 1)) from exc
    for index, source in enumerate(data.get("secret_sources") or []):
        if not isinstance(source, Mapping):
            raise misfit(f"$.secret_sources[{index}]", "must be an object with kind and source")
        try:
            function.with_secrets(str(source.get("kind")), source.get("source"))
        except SettingsError as exc:
            raise misfit(f"$.secret_sources[{index}]", exc.message) from exc
    return function


def _parts(uri: str) -> tuple[str, str, str]:
    """Project, name and tag of ``project/name[:tag][@hash]``."""
    project, _, rest = uri.rpartition("/")
    name, _, tag = rest.partition("@")[0].partition(":")
    return project, name, tag


def function_from_text(data: str | bytes, name: str = "function", *, is_json: bool = False) -> ServingFunction:
    """The function that a text describes.

    Args:
        data: JSON, YAML, or base64 of gzipped JSON.
        name: the name of the function around a bare graph.
        is_json: the text is JSON or packed JSON, and no YAML.

    Raises:
        SpecError: the text cannot be read, or is no spec; for YAML the message has the line.
    """
    try:
        text = (data.decode("utf-8-sig") if isinstance(data, bytes) else data).strip()
    except UnicodeDecodeError as exc:
        raise SpecError("a spec is UTF-8 text") from exc
    if _is_packed(text):
        return function_from_spec(read_json(unpack(text)), name)
    if is_json:
        return function_from_spec(read_json(text), name)
    value, lines = read_yaml(text)
    try:
        return function_from_spec(value, name)
    except SpecError as exc:
        raise with_line(exc, lines) from exc


def spec_text(data: Mapping[str, Any]) -> str:
    """A spec as one line of JSON, packed where it is large. Equal specs give equal texts."""
    text = write_json(data, indent=False)
    if len(text.encode()) <= LARGE:
        return text
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # gzip, without a time in its head
    return base64.b64encode(packer.compress(text.encode()) + packer.flush()).decode("ascii")


def unpack(text: str) -> bytes:
    """The JSON in a packed text.

    Raises:
        SpecError: it is not base64 of gzip, or holds more than a spec may have.
    """
    try:
        packed = base64.b64decode(text, validate=True)
        reader = zlib.decompressobj(31)
        data = reader.decompress(packed, MAX_SPEC_BYTES + 1)
    except (binascii.Error, zlib.error, ValueError) as exc:
        raise SpecError("a packed spec is base64 of gzipped JSON, and this is not") from exc
    if len(data) > MAX_SPEC_BYTES:
        raise SpecError(f"the packed spec holds more than the {MAX_SPEC_BYTES // 2**20} MiB that a spec may have")
    if not reader.eof:
        raise SpecError("the packed spec is cut off")
    return data


def _is_packed(text: str) -> bool:
    return text.startswith("H4sI")  # base64 of gzip's first three bytes
