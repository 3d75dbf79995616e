"""What is known about a model besides its file: inputs, outputs, parameters, labels and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from servegraph.errors import ModelLoadError, closest

_TENSOR_TYPES = {
    "bool": "BOOL", "boolean": "BOOL",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "int": "INT64", "integer": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "float": "FP64", "double": "FP64", "number": "FP64",
    "str": "BYTES", "string": "BYTES", "bytes": "BYTES", "object": "BYTES", "category": "BYTES",
}  # fmt: skip
_TENSOR_NAMES = frozenset({*_TENSOR_TYPES.values(), "BF16"})


@dataclass(frozen=True, slots=True)
class Feature:
    """One input or output of a model."""

    name: str
    value_type: str = ""
    """The type as the metadata names it, such as ``float`` or ``int64``; empty when it names none."""
    shape: tuple[int | None, ...] | None = None
    """The dimensions of one value; ``None`` for one of any size."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the metadata says of it: description, labels, default …"""

    @property
    def datatype(self) -> str:
        """The type as the Open Inference Protocol names it, such as ``FP64``; empty when there is no such type."""
        upper = self.value_type.upper()
        return upper if upper in _TENSOR_NAMES else _TENSOR_TYPES.get(self.value_type.lower(), "")

    def to_dict(self) -> dict[str, Any]:
        """The feature as plain data: ``name``, ``value_type``, ``shape`` where known, and the other keys."""
        out: dict[str, Any] = {"name": self.name, "value_type": self.value_type}
        if self.shape is not None:
            out["shape"] = list(self.shape)
        return {**out, **{k: v for k, v in self.extra.items() if k not in out}}

    @classmethod
    def from_data(cls, data: object, where: str = "feature") -> Feature:
        """The feature that a name, or a mapping with ``name`` and more, stands for.

        ``datatype`` is read where there is no ``value_type``, and ``dims`` where there is no ``shape``.

        Raises:
            ModelLoadError: it is neither; the message begins with ``where``.
        """
        if isinstance(data, str):
            return cls(_text(data, f"{where}"))
        if not isinstance(data, Mapping):
            raise ModelLoadError(f"{where}: a feature is a name or a mapping with 'name', not {_kind(data)}")
        rest = {k: v for k, v in _mapping(data, where).items() if v is not None}
        if "name" not in rest:
            raise ModelLoadError(f"{where}: a feature needs a 'name'; it has {sorted(rest)}")
        name = _text(rest.pop("name"), f"{where}.name")
        type_key = "value_type" if "value_type" in rest else "datatype"
        shape_key = "shape" if "shape" in rest else "dims"
        value_type = _text(rest.pop(type_key, ""), f"{where}.{type_key}", empty=True)
        return cls(name, value_type, _shape(rest.pop(shape_key, None), f"{where}.{shape_key}"), rest)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The metadata of a model."""

    inputs: list[Feature] = field(default_factory=list)
    """What the model takes, in order."""
    outputs: list[Feature] = field(default_factory=list)
    """What it gives, in order."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters kept with the model. Arguments that a graph gives to the model's class win over them."""
    labels: dict[str, Any] = field(default_factory=dict)
    tag: str = ""
    framework: str = ""
    algorithm: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    """How good the model was when it was trained, by name."""
    model_file: str = ""
    """The model's file or folder, relative to the folder of the metadata; empty when the metadata names none."""
    extra_data: dict[str, str] = field(default_factory=dict)
    """Further files by name: paths relative to the folder of the metadata, or URIs."""
    feature_stats: dict[str, Any] = field(default_factory=dict)
    """Statistics of the training set by feature, as MLRun writes them."""

    def to_dict(self) -> dict[str, Any]:
        """The metadata as plain data, always in the same order, without what is empty."""
        out: dict[str, Any] = {"kind": "model"}
        for key in _TEXTS:
            out[key] = getattr(self, key)
        for key in ("inputs", "outputs"):
            out[key] = [feature.to_dict() for feature in getattr(self, key)]
        for key in _MAPPINGS:
            out[key] = dict(sorted(getattr(self, key).items()))
        return {k: v for k, v in out.items() if v}

    @classmethod
    def from_dict(cls, data: object, source: str = "model metadata", *, strict: bool = False) -> ModelSpec:
        """The metadata in a mapping: flat, or in ``metadata``, ``spec`` and ``status`` as MLRun nests it.

        Args:
            data: the mapping.
            source: what messages name as the origin, usually the file.
            strict: whether an unknown key is an error; MLRun writes many that only it reads.

        Raises:
            ModelLoadError: a value is of the wrong kind; the message names source and key.
        """
        if not isinstance(data, Mapping):
            raise ModelLoadError(f"{source}: model metadata is a mapping, not {_kind(data)}")
        if data.get("kind", "model") != "model":
            raise ModelLoadError(f"{source}: kind: these are metadata of a {data['kind']!r}, not of a model")
        found = _flatten(data, source, strict=strict)
        values: dict[str, Any] = {}
        for key, (where, value) in found.items():
            if key in _TEXTS:
                values[key] = _text(value, where, empty=True)
            elif key in ("inputs", "outputs"):
                values[key] = _features(value, where)
            elif key == "extra_data":
                values[key] = {k: _text(v, f"{where}.{k}") for k, v in _mapping(value, where).items() if v is not None}
            else:
                values[key] = _mapping(value, where)
        return cls(**values)


_TEXTS = ("tag", "framework", "algorithm", "model_file")
_MAPPINGS = ("parameters", "labels", "metrics", "extra_data", "feature_stats")
_KEYS = (*_TEXTS, "inputs", "outputs", *_MAPPINGS)


def _flatten(data: Mapping[Any, Any], source: str, *, strict: bool) -> dict[str, tuple[str, Any]]:
    """Each known key that has a value, with its place for messages."""
    nested = isinstance(data.get("spec"), Mapping) or isinstance(data.get("metadata"), Mapping)
    groups = [("", data)]
    if nested:
        groups += [(f"{name}.", data[name]) for name in ("metadata", "spec", "status") if data.get(name) is not None]
    found: dict[str, tuple[str, Any]] = {}
    for prefix, group in groups:
        for key, value in _mapping(group, f"{source}: {prefix.rstrip('.')}").items():
            if key in _KEYS and value is not None:
                found[key] = (f"{source}: {prefix}{key}", value)
            elif strict and key not in (*_KEYS, "kind", *(("metadata", "spec", "status") if nested else ())):
                raise ModelLoadError(f"{source}: {prefix}{key}: there is no such key; {closest(key, _KEYS)}")
    return found


def _features(value: object, where: str) -> list[Feature]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ModelLoadError(f"{where}: a list of features is needed, not {_kind(value)}")
    features = [Feature.from_data(each, f"{where}[{i}]") for i, each in enumerate(value)]
    names = [f.name for f in features]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ModelLoadError(f"{where}: more than one feature has the name {twice[0]!r}")
    return features


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelLoadError(f"{where}: a mapping is needed, not {_kind(value)}")
    return {key if isinstance(key, str) else str(key): each for key, each in value.items()}


def _shape(value: object, where: str) -> tuple[int | None, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(
        n is None or (isinstance(n, int) and not isinstance(n, bool)) for n in value
    ):
        raise ModelLoadError(f"{where}: a list of whole numbers is needed, not {_kind(value)}")
    return tuple(value)


def _text(value: object, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise ModelLoadError(f"{where}: a text is needed, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    """A value in an error message: short, whatever it is."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)[:40]
    if isinstance(value, str):
        return repr(value[:40])
    return {"dict": "a mapping", "list": "a list"}.get(type(value).__name__, f"a {type(value).__name__}")
