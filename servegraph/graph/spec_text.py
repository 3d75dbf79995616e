"""Specs as text: JSON and the safe part of YAML, read within limits, with the line of what is wrong."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from servegraph import jsoncodec
from servegraph.errors import SpecError
from servegraph.graph.spec_fields import at

MAX_SPEC_BYTES = 8 * 2**20
"""The longest text that is read."""
MAX_SPEC_NODES = 1_000_000
"""How many values a YAML text may stand for once its aliases are written out."""
MAX_SPEC_DEPTH = 100
"""How deep values may be nested in each other."""
_TOO_DEEP = f"is nested deeper than the {MAX_SPEC_DEPTH} levels of lists and objects that are read"

_YAML_TYPES = ("null", "bool", "int", "float", "str", "seq", "map")
_TAG = "tag:yaml.org,2002:"
# The parsers of libyaml, where the yaml package was built with it, are ten times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Lines = Mapping[str, int]
"""The line, from 1, on which the value at each path stands."""


class _PlainDumper(yaml.SafeDumper):
    """Writes a value as often as it occurs, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text with line breaks of any kind goes between double quotes: it would not come back from others."""
        style = '"' if re.search("[\n\r\x85\u2028\u2029\ufeff]", data) else None
        return self.represent_scalar(f"{_TAG}str", data, style=style)


_PlainDumper.add_representer(str, _PlainDumper.represent_str)


def write_json(value: Any, indent: bool = True) -> str:
    """A plain value as JSON text."""
    return jsoncodec.dumps(value, indent=indent).decode()


def write_yaml(value: Any) -> str:
    """A plain value as YAML text; objects keep the order of their keys."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=110)


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        SpecError: it is no JSON, too long, or an object in it has a key twice.
    """
    _check_size(text)
    try:
        value = jsoncodec.loads(text)
        json.loads(text, object_pairs_hook=_refuse_duplicates)  # the codec lets the last of two keys win
    except jsoncodec.JSONDecodeError as exc:
        raise SpecError(f"line {exc.lineno}, column {exc.colno}: this is no JSON: {exc.msg}") from exc
    except RecursionError as exc:
        raise SpecError(f"the JSON {_TOO_DEEP}") from exc
    return value


def read_yaml(text: str | bytes) -> tuple[Any, Lines]:
    """The value of a YAML text, and the line of each path in it. Only plain data is read: no tags, no dates.

    Raises:
        SpecError: it is no YAML, too long, holds something other than plain data, or a key twice.
    """
    with _readable(text):
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise SpecError("the text is empty: a graph's spec is an object with 'steps' or 'routes'")
        return _YamlReader().read(node)


def read_yaml_documents(text: str | bytes) -> list[tuple[Any, Lines]]:
    """What `read_yaml` gives for each document of a text that may hold several; empty ones are left out.

    Raises:
        SpecError: see `read_yaml`.
    """
    with _readable(text):
        reader = _YamlReader()  # one for all: what aliases multiply is bounded over the whole text
        return [reader.read(node) for node in yaml.compose_all(text, Loader=_Loader) if not _is_empty(node)]


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"


@contextlib.contextmanager
def _readable(text: str | bytes) -> Iterator[None]:
    """Check the bounds of a YAML text, and say of what is wrong in it where it stands."""
    _check_size(text)
    try:
        _check_depth(text)
        yield
    except yaml.MarkedYAMLError as exc:
        where = _place(exc.problem_mark or exc.context_mark)
        raise SpecError(f"{where}this is no YAML that can be read: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as exc:
        raise SpecError(f"this is no YAML that can be read: {exc}") from exc
    except RecursionError as exc:
        raise SpecError(f"the YAML {_TOO_DEEP}") from exc


def with_line(error: SpecError, lines: Lines) -> SpecError:
    """An error about a path, with the line that the path has in the text."""
    path = error.message.partition(": ")[0]
    line = lines.get(path)
    return SpecError(f"line {line}: {error.message}", step=error.step) if line else error


def _check_size(text: str | bytes) -> None:
    if len(text) > MAX_SPEC_BYTES:
        raise SpecError(f"the text is longer than the {MAX_SPEC_BYTES // 2**20} MiB that a spec may have")


def _check_depth(text: str | bytes) -> None:
    """Refuse deep nesting before nodes are made of it: the parser in C would exhaust the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_SPEC_DEPTH:
                raise SpecError(f"{_place(event.start_mark)}it {_TOO_DEEP}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise SpecError(f"the key {key!r} stands twice in one object: each step and field is given once")
        seen.add(key)


class _YamlReader:
    """Makes plain values from YAML's nodes, counting what aliases multiply."""

    def __init__(self) -> None:
        self.count = 0
        self.lines: dict[str, int] = {}
        self.scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node) -> tuple[Any, Lines]:
        self.lines = {}
        value = self._value(node, "$", 0)
        return value, self.lines

    def _value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.count += 1
        self.lines.setdefault(path, node.start_mark.line + 1)
        if self.count > MAX_SPEC_NODES:
            raise self._refused(node, f"written out, its aliases make more than {MAX_SPEC_NODES} values")
        if depth > MAX_SPEC_DEPTH:
            raise self._refused(node, f"it {_TOO_DEEP}, or holds itself")
        if node.tag.removeprefix(_TAG) not in _YAML_TYPES:
            shown = node.tag.removeprefix(_TAG)
            hint = "write it in quotes" if shown == "timestamp" else f"only {', '.join(_YAML_TYPES)} are read"
            raise self._refused(node, f"{path} is of YAML's type {shown!r}: {hint}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(n, at(path, i), depth + 1) for i, n in enumerate(node.value)]
        return self.scalars.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._value(key_node, f"{path}\0", depth + 1)
            if not isinstance(key, str):
                raise self._refused(key_node, f"{path}: the key {key!r} is no text: write it in quotes")
            if key in plain:
                raise self._refused(key_node, f"{at(path, key)} stands twice: each step and field is given once")
            self.lines[at(path, key)] = key_node.start_mark.line + 1
            plain[key] = self._value(value_node, at(path, key), depth + 1)
        return plain

    @staticmethod
    def _refused(node: yaml.Node, why: str) -> SpecError:
        return SpecError(f"{_place(node.start_mark)}{why}")
