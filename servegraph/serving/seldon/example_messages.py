"""Messages that a component takes, for the request that a server offers to people."""

from __future__ import annotations

from typing import Any, Final

from servegraph.serving.description import EXAMPLE_INPUTS
from servegraph.serving.seldon.metadata import ModelMetadata

ANY_MESSAGE: Final[dict[str, Any]] = {"data": {"ndarray": [[1.0, 2.0]]}}
"""What is offered for a component that says nothing."""
_MOST_VALUES: Final = 100


def said_example(user_object: Any, metadata: ModelMetadata | None) -> dict[str, Any] | None:
    """A message by what a component gives as example, or says of its inputs; ``None`` where it does neither."""
    rows: Any = getattr(user_object, EXAMPLE_INPUTS, None)
    rows = rows.tolist() if hasattr(rows, "tolist") else rows
    return {"data": {"ndarray": rows}} if isinstance(rows, (list, tuple)) else _by_metadata(metadata)


def _by_metadata(metadata: ModelMetadata | None) -> dict[str, Any] | None:
    """A message of zeros in the form of the first input; ``None`` where the metadata does not say it."""
    if metadata is None or metadata.problem:
        return None
    inputs = metadata.to_dict()["inputs"]
    if len(inputs) != 1:
        return None
    kind = inputs[0].get("messagetype")
    if kind in ("strData", "jsonData"):
        return {kind: "" if kind == "strData" else {}}
    schema = inputs[0].get("schema") or {}
    shape = inputs[0].get("shape") or schema.get("shape") or [len(schema.get("names") or [])]
    return _zeros(shape) if kind in (None, "tensor", "ndarray", "tftensor") else None


def _zeros(shape: Any) -> dict[str, Any] | None:
    """Rows of zeros; a shape of one size is that of a row."""
    if not isinstance(shape, list) or not all(type(size) is int for size in shape) or not any(shape):
        return None
    sizes = [1 if size < 1 else size for size in ([1, *shape] if len(shape) == 1 else shape)]
    value: Any = 0.0
    count = 1
    for size in reversed(sizes):
        count *= size
        if count > _MOST_VALUES:
            return None
        value = [value] * size
    return {"data": {"ndarray": value}}
