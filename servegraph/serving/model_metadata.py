"""Metadata files beside a model: read them, and write one for a model that was just saved."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from servegraph import jsoncodec
from servegraph.errors import ModelLoadError
from servegraph.serving.model_spec import Feature, ModelSpec
from servegraph.serving.safe_yaml import MAX_BYTES, read_json, read_yaml
from servegraph.serving.store_paths import resolve_inside

OWN_FILE = "servegraph-model.yaml"
"""Our own metadata file; a key in it that is unknown is an error."""

METADATA_FILES = (OWN_FILE, "model_spec.yaml", "model_spec.json")
"""The metadata files that are looked for beside a model; the first that is there is read."""

_UNUSUAL_BREAKS = re.compile("[\\x85\\u2028\\u2029\\ufeff]")


def parse_model_spec(data: bytes, source: str) -> ModelSpec:
    """The metadata in the bytes of a file; ``source`` is its path or URI and tells the format by its ending.

    Raises:
        ModelLoadError: they cannot be read; the message names the source and the key.
    """
    try:
        document = read_json(data) if source.endswith(".json") else read_yaml(data)
    except ValueError as exc:
        raise ModelLoadError(f"{source}: {exc}") from exc
    return ModelSpec.from_dict(document, source, strict=source.endswith(OWN_FILE))


def load_model_spec(path: str | os.PathLike[str]) -> ModelSpec:
    """The metadata in a local YAML or JSON file.

    Raises:
        ModelLoadError: it is not there or cannot be read; the message names the file and the key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ModelLoadError(f"{path}: {exc.strerror}") from exc
    return parse_model_spec(data, str(path))


def save_model_spec(
    folder: str | os.PathLike[str],
    model_file: str,
    *,
    inputs: Any = (),
    outputs: Any = (),
    parameters: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    framework: str = "",
) -> Path:
    """Write ``model_spec.yaml`` beside a saved model, and give its path. `write_model_spec` writes any other key.

    Args:
        folder: the folder that holds the model.
        model_file: the name of the model's file or folder in it.
        inputs: what the model takes: names, mappings with ``name`` and ``value_type``, or a pandas data frame
            or series that looks like it (its columns and their types are kept, its values are not).
        outputs: what the model gives, in the same ways.
        parameters: what ``get_param`` should find, unless the graph says otherwise.
        labels: anything else worth to know, by name.
        framework: the library that reads the model, such as ``sklearn``.

    Raises:
        ModelLoadError: there is no such file in the folder, or a value cannot be kept as YAML.
    """
    spec = ModelSpec(
        inputs=features_of(inputs, "inputs"),
        outputs=features_of(outputs, "outputs"),
        parameters=dict(parameters or {}),
        labels=dict(labels or {}),
        framework=framework,
        model_file=model_file,
    )
    return write_model_spec(folder, spec)


def write_model_spec(folder: str | os.PathLike[str], spec: ModelSpec) -> Path:
    """Write ``model_spec.yaml`` into a model's folder, and give its path. The same spec gives the same bytes.

    Raises:
        ModelLoadError: the model's file is not in the folder, or a value cannot be kept as YAML.
    """
    folder = Path(folder)
    target = folder / "model_spec.yaml"
    if spec.model_file and not resolve_inside(folder, spec.model_file, f"{target}: model_file").exists():
        raise ModelLoadError(f"{target}: model_file: there is no {spec.model_file!r} in {folder}")
    try:
        # Through JSON, so that numpy's numbers and the like become plain ones.
        plain = jsoncodec.loads(jsoncodec.dumps(spec.to_dict()))
    except TypeError as exc:
        raise ModelLoadError(f"{target}: {exc}") from exc
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    if _UNUSUAL_BREAKS.search(text):  # they would be folded like line breaks, unless they are escaped
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=False)
    ModelSpec.from_dict(read_yaml(text.encode()), str(target))
    handle, temporary = tempfile.mkstemp(prefix=".model_spec-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # As readable as the model itself; a temporary file is private to begin with.
        os.chmod(temporary, 0o644)  # noqa: PTH101
        os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
    return target


def features_of(value: Any, which: str = "inputs") -> list[Feature]:
    """The features that a list of names, features or mappings, or a pandas data frame or series, stands for.

    Raises:
        ModelLoadError: it is none of these; the message names ``which``.
    """
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        return [Feature(_column(name), _value_type(kind)) for name, kind in value.dtypes.items()]
    if hasattr(value, "dtype") and hasattr(value, "name") and hasattr(value, "index"):
        name = which.removesuffix("s") if value.name is None else _column(value.name)
        return [Feature(name, _value_type(value.dtype))]
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) or hasattr(value, "dtype"):
        raise ModelLoadError(
            f"{which}: a list of names or of mappings with 'name', or a pandas data frame or series, is needed, "
            f"not a {type(value).__name__}"
        )
    return [
        each if isinstance(each, Feature) else Feature.from_data(each, f"{which}[{i}]") for i, each in enumerate(value)
    ]


def _column(name: object) -> str:
    return "_".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _value_type(dtype: object) -> str:
    """A pandas type in one word."""
    name = str(dtype).lower()
    if name.startswith("datetime64"):
        return "datetime"
    if name.startswith("timedelta64"):
        return "timedelta"
    return "str" if name.startswith(("object", "str", "category")) else name.replace("boolean", "bool")
