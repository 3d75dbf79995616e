"""YAML and JSON documents from files that others wrote: plain data only, bounded in size, depth and aliases."""

from __future__ import annotations

from typing import Any

import yaml

from servegraph import jsoncodec

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

MAX_BYTES = 1024**2
"""The largest document that is read."""
MAX_ALIAS_NODES = 10_000
"""How many nodes aliases may add to what is written."""
MAX_DEPTH = 64
"""How deep lists and mappings may be nested."""


def read_yaml(data: bytes) -> Any:
    """The plain data of one YAML document.

    Raises:
        ValueError: it is no YAML, holds a tag other than the standard ones, or is beyond a bound.
    """
    text = _text(data)
    try:
        _check_events(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as exc:
        raise ValueError(f"no readable YAML: {exc}") from exc


def read_json(data: bytes) -> Any:
    """The data of one JSON document.

    Raises:
        ValueError: it is no JSON or too large.
    """
    return jsoncodec.loads(_text(data))


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return data.decode("utf-8-sig")


def _check_events(text: str) -> None:
    """Refuse what would grow when it is built: the parser's events are counted before anything is made of them."""
    sizes: dict[str, int] = {}  # how many nodes an anchor stands for
    open_nodes: list[tuple[str | None, int]] = []  # the anchor of each open collection, and the count at its start
    count = added = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            # An alias to nothing is told by the loader; one inside of what it names would never end.
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise ValueError(f"the anchor {event.anchor!r} holds itself")
            size = sizes.get(event.anchor or "", 1)
            count += size
            added += size
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, start = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = count - start
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if added > MAX_ALIAS_NODES:
            raise ValueError(f"its aliases stand for more than {MAX_ALIAS_NODES} values")
        if len(open_nodes) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
