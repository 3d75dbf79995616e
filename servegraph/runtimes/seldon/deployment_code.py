"""Where the code of a deployment's nodes is on this machine: named by hand, by annotations, or found by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SpecError, closest
from servegraph.graph.spec_text import read_yaml
from servegraph.serving.seldon.deployment import CLASS, PredictorSpec, UnitSpec
from servegraph.serving.seldon.environment import S2I_FILE, s2i_environment
from servegraph.serving.seldon.servers.implementations import IMPLEMENTATIONS

COMPONENTS_FILES: Final = ("components.yaml", "components.yml", "components.json")
_KEYS: Final = ("class", "endpoint", "parameters")
_REMOTE: Final = {"http": "REST", "rest": "REST", "grpc": "GRPC"}


@dataclass(frozen=True, slots=True)
class Code:
    """What answers for a node."""

    reference: Any = None
    """Its class or object, or the name of one; see `find_component`."""
    endpoint: dict[str, Any] | None = None
    """Where it runs, when that is elsewhere."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Arguments besides those in the deployment, over them."""


class CodeFinder:
    """Finds what answers for each node of a deployment.

    In this order: what is given for its name, its container's image, or the image without version; the annotation
    ``servegraph.io/class``; its packaged server; its endpoint; ``MODEL_NAME`` of its container; a folder of its name
    beside the deployment.

    Args:
        folder: the folder of the deployment; a ``components.yaml`` in it is read.
        components: what is given, over that file: ``module:Class``, ``folder/File.py[:Class]``, ``http://host:port``
            or ``grpc://host:port``; a class or an object; or a mapping with ``class`` (or ``endpoint``) and
            ``parameters``.

        optional: whether a node may be without code: a drawing needs none.

    Raises:
        SpecError: the file, or one of its entries, cannot be read.
    """

    def __init__(self, folder: Path, components: Mapping[str, Any] | None = None, *, optional: bool = False) -> None:
        self.folder = folder.resolve()
        given = {**_from_file(self.folder), **(components or {})}
        self._given = {name: _code_of(name, value) for name, value in given.items()}
        self._extra = set(components or {})
        self._optional = optional
        self._missing: dict[str, UnitSpec] = {}

    def find(self, unit: UnitSpec, predictor: PredictorSpec) -> Code:
        """What answers for a node; no code where there is none, which `check` then tells.

        Raises:
            SpecError: there is no such packaged server.
        """
        given = self._named(_names_of(unit))
        if given is not None:
            return given
        annotated = annotation_of(unit, predictor, CLASS)
        if annotated:
            return _code_of(unit.name, annotated)
        if unit.packaged and unit.implementation in IMPLEMENTATIONS:
            return Code()
        if unit.endpoint is not None and unit.endpoint.host and unit.endpoint.port:
            return Code(endpoint=dict(unit.endpoint.to_dict()))
        found = self._in_folder(unit)
        if found is not None:
            return Code(found)
        if unit.packaged and not self._optional:
            raise SpecError(
                f"{unit.path}.implementation: there is no packaged server {unit.implementation!r}; "
                f"{closest(unit.implementation, IMPLEMENTATIONS)}. A server of your own is named by --component "
                f"{unit.name}=module:Class, or in components.yaml"
            )
        self._missing.setdefault(unit.name, unit)
        return Code()

    def check(self) -> None:
        """Raise `SpecError` for all nodes that have no code, and for code that was given by hand and is of no node."""
        missing = [] if self._optional else list(self._missing.values())
        found = [self._without_code(missing)] if missing else []
        found += [
            f"component {name!r} is given, and no node, container or image has that name"
            for name in sorted(self._extra)
        ]
        if found:
            raise SpecError("; ".join(found))

    def _without_code(self, missing: list[UnitSpec]) -> str:
        """What to say of nodes that have no code."""
        first, *others = missing
        options = " ".join(f"--component {unit.name}=module:Class" for unit in missing)
        if not others:
            return (
                f"{first.path}.name: there is no code here for node {first.name!r}: give {options}, write it into "
                f"components.yaml, or put its code into the folder {str(self.folder / first.name)!r}"
            )
        names = ", ".join(repr(unit.name) for unit in missing)
        return (
            f"{first.path}.name: there is no code here for {len(missing)} nodes, {names}: give {options}, write them "
            f"into components.yaml, or put the code of each into a folder of its name in {str(self.folder)!r}"
        )

    def _named(self, names: Iterable[str]) -> Code | None:
        found = None
        for name in names:
            if name in self._given:
                self._extra.discard(name)
                found = found or self._given[name]
        return found

    def _in_folder(self, unit: UnitSpec) -> str | None:
        """The reference of code in the node's folder, or of the module that its container names."""
        folder = self.folder / unit.name
        container = unit.container
        named = container.env.get("MODEL_NAME", "") if container is not None else ""
        named = named or s2i_environment(folder / S2I_FILE).get("MODEL_NAME", "")
        if named:
            module, _, name = named.partition(".")
            for place in (unit.name, ""):
                file = self.folder / place / f"{module}.py"
                if file.is_file():
                    return f"{file.relative_to(self.folder)}:{name or module}"
            return None
        if not folder.is_dir():
            return None
        for file in (folder / "Model.py", folder / f"{unit.name}.py"):
            if file.is_file():
                return f"{file.relative_to(self.folder)}:{file.stem}"
        files = [f for f in sorted(folder.glob("*.py")) if f.name != "__init__.py"]
        return f"{files[0].relative_to(self.folder)}:{files[0].stem}" if len(files) == 1 else None


def _names_of(unit: UnitSpec) -> list[str]:
    """The names under which code may be given for a node."""
    image = unit.container.image if unit.container is not None else ""
    bare = image.partition("@")[0]
    head, colon, tag = bare.rpartition(":")
    without = head if colon and "/" not in tag else bare
    return [unit.name, *(n for n in (image, without, without.rpartition("/")[2]) if n)]


def annotation_of(unit: UnitSpec, predictor: PredictorSpec, name: str) -> str:
    """What an annotation says of a node: with the node's name behind it, or in a pod that is the node's alone."""
    pod = unit.container.annotations if unit.container is not None else {}
    key = f"{name}.{unit.name}"
    own = pod.get(key) or predictor.annotations.get(key)
    alone = unit.container is not None and unit.container.alone
    return own or (pod.get(name, "") if alone else "") or ""


def _from_file(folder: Path) -> dict[str, Any]:
    for name in COMPONENTS_FILES:
        file = folder / name
        if file.is_file():
            try:
                value, _ = read_yaml(file.read_bytes())
            except SpecError as exc:
                raise SpecError(f"{file}: {exc.message}") from exc
            if not isinstance(value, dict):
                raise SpecError(f"{file}: must be an object: for each node, container or image its code")
            inner = value.get("components", value)
            return inner if isinstance(inner, dict) else {}
    return {}


def _code_of(name: str, value: Any) -> Code:
    """The code that an entry names.

    Raises:
        SpecError: it is none.
    """
    parameters: Any = {}
    if not isinstance(value, (str, Mapping, int, float, list)) and value is not None:
        return Code(value)
    if isinstance(value, Mapping):
        for key in value:
            if key not in _KEYS:
                raise SpecError(f"components.{name}: has no {key!r}; {closest(str(key), _KEYS)}")
        parameters = value.get("parameters") or {}
        value = value.get("class") or value.get("endpoint")
        if isinstance(value, type) and isinstance(parameters, Mapping):
            return Code(value, None, dict(parameters))
    if not isinstance(value, str) or not value or not isinstance(parameters, Mapping):
        raise SpecError(f"components.{name}: must be module:Class, a file, an address, or an object with class")
    scheme, separator, rest = value.partition("://")
    if not separator:
        return Code(value, None, dict(parameters))
    host, _, port = rest.rstrip("/").rpartition(":")
    if scheme not in _REMOTE or not host or not port.isdigit():
        raise SpecError(f"components.{name}: {value!r} is no address: write http://host:port or grpc://host:port")
    return Code(None, {"host": host.strip("[]"), "port": int(port), "type": _REMOTE[scheme]})
