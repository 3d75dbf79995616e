"""Lines of a batch: what they hold, which of them can be sent together, and how an answer is cut for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.serving.seldon.arrays import array_of
from servegraph.serving.seldon.errors import SeldonMicroserviceException

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Row:
    """One line."""

    index: int
    """Its number, from 0."""
    value: Any = None
    """What it holds."""
    problem: str | None = None
    """Why it cannot be sent."""


@dataclass(slots=True)
class Group:
    """Lines that are sent in one request."""

    rows: list[Row]
    value: Any
    """What is sent for all of them."""
    counts: list[int]
    """How many rows of the array belong to each line; empty when the answer is not to be cut."""


def read_row(index: int, line: bytes, data_type: str) -> Row:
    """The row of a line; one with a problem where the line is not what the data type says."""
    text = line.removeprefix(_BYTE_ORDER_MARK).strip() if index == 0 else line.strip()
    if not text:
        return Row(index, problem="the line is empty")
    try:
        value = jsoncodec.loads(text)
    except jsoncodec.JSONDecodeError as exc:
        return _text_row(index, text) if data_type == "str" else Row(index, problem=f"the line is not JSON: {exc}")
    if data_type == "str" and not isinstance(value, str):
        return _text_row(index, text)
    if data_type == "data" and not isinstance(value, list):
        return Row(index, problem="the line is not a list")
    if data_type == "raw":
        return _raw_row(index, value)
    return Row(index, value)


def _text_row(index: int, text: bytes) -> Row:
    try:
        return Row(index, text.decode())
    except UnicodeDecodeError as exc:
        return Row(index, problem=f"the line is not UTF-8: {exc}")


def _raw_row(index: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(index, problem="the line is not an object")
    meta = value.get("meta", {})
    if not isinstance(meta, dict) or not isinstance(meta.get("tags", {}), dict):
        return Row(index, problem="meta and its tags must be objects")
    return Row(index, value)


def grouped(rows: Iterable[Row], data_type: str) -> list[Group]:
    """The rows in groups that can be sent together; rows that fit no other are groups of their own.

    A flat list counts as one row of an array, however many lines there are to join it.
    """
    together: dict[Hashable, list[Row]] = {}
    for row in rows:
        if data_type == "data" and row.value and not any(isinstance(entry, list) for entry in row.value):
            row.value = [row.value]
        key = _key(row.value, data_type)
        together.setdefault(key if key is not None else ("alone", row.index), []).append(row)
    return [_joined(members, data_type) for members in together.values()]


def alone(row: Row) -> Group:
    """The group of one row, sent as it stands."""
    return Group([row], row.value, [])


def _key(value: Any, data_type: str) -> Hashable | None:
    """Rows with the same key can be sent together; ``None`` goes alone."""
    try:
        if data_type == "data":
            array = array_of(value)
            return (array.shape[1:], array.dtype.kind in "iuf") if value else None
        return _raw_key(value)
    except (SeldonMicroserviceException, KeyError, TypeError):  # the server says best what is wrong with it
        return None


def _raw_key(value: Mapping[str, Any]) -> Hashable | None:
    data = value.get("data")
    if not isinstance(data, dict) or value.keys() - {"data", "meta"}:
        return None
    names, meta = tuple(data.get("names") or ()), jsoncodec.dumps(value.get("meta", {}), sort_keys=True)
    kinds = data.keys() - {"names"}
    if kinds == {"ndarray"}:
        array = array_of(data["ndarray"])
        return ("ndarray", array.shape[1:], array.dtype.kind in "iuf", names, meta) if array.ndim > 1 else None
    if kinds == {"tensor"}:
        shape = data["tensor"]["shape"]
        fits = len(shape) > 1 and math.prod(shape) == len(data["tensor"]["values"])
        return ("tensor", tuple(shape[1:]), names, meta) if fits else None
    return None


def _joined(rows: list[Row], data_type: str) -> Group:
    if len(rows) == 1:
        return alone(rows[0])
    if data_type == "data":
        return Group(rows, [entry for row in rows for entry in row.value], [len(row.value) for row in rows])
    first = rows[0].value
    parts = [row.value["data"] for row in rows]
    names = {"names": first["data"]["names"]} if "names" in first["data"] else {}
    joined: dict[str, Any]
    if "ndarray" in parts[0]:
        counts = [len(data["ndarray"]) for data in parts]
        joined = {"ndarray": [entry for data in parts for entry in data["ndarray"]]}
    else:
        counts = [data["tensor"]["shape"][0] for data in parts]
        shape = [sum(counts), *parts[0]["tensor"]["shape"][1:]]
        values = [value for data in parts for value in data["tensor"]["values"]]
        joined = {"tensor": {"shape": shape, "values": values}}
    return Group(rows, {**first, "data": {**names, **joined}}, counts)


def cut(answer: Mapping[str, Any], counts: list[int]) -> list[dict[str, Any]] | None:
    """An answer's parts for lines with that many rows each; ``None`` where it does not have one row for each."""
    data = answer.get("data")
    if not isinstance(data, dict):
        return None
    spans = list(zip(itertools.accumulate([0, *counts[:-1]]), counts, strict=True))
    if isinstance(data.get("ndarray"), list):
        entries = data["ndarray"]
        if len(entries) != sum(counts):
            return None
        parts = [{"ndarray": entries[start : start + count]} for start, count in spans]
    elif isinstance(data.get("tensor"), dict):
        shape, values = data["tensor"].get("shape") or [0], data["tensor"].get("values", [])
        if shape[0] != sum(counts) or len(values) != math.prod(shape):
            return None
        width = math.prod(shape[1:])
        parts = [
            {"tensor": {"shape": [count, *shape[1:]], "values": values[start * width : (start + count) * width]}}
            for start, count in spans
        ]
    else:
        return None
    names = {"names": data["names"]} if "names" in data else {}
    return [{**answer, "data": {**names, **part}} for part in parts]
