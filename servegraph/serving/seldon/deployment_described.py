"""What a deployment tells people of itself: its predictors, its paths, and a request that its first node takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from servegraph.serving.description import EXAMPLE_INPUTS, SelfDescription
from servegraph.serving.seldon.openapi import deployment_json
from servegraph.serving.seldon.predictors import SeldonPredictor
from servegraph.serving.seldon.unit import SeldonUnit

PREDICTIONS: Final = "/api/v1.0/predictions"
_ANY_ROWS: Final = [[1.0, 2.0]]
_MOST_VALUES: Final = 100


def describe_deployment(name: str, prefix: str, predictors: Mapping[str, SeldonPredictor]) -> SelfDescription:
    """A deployment of a name, whose paths are also below a prefix."""
    main = next(p for p in predictors.values() if not p.shadow)
    nodes = list(dict.fromkeys(n for p in predictors.values() for n in p.units))
    return SelfDescription(
        path=PREDICTIONS,
        body=example_message(main),
        also=f"{prefix}{PREDICTIONS}",
        rows=tuple(_row(p) for p in predictors.values()),
        openapi=deployment_json(name, prefix, nodes),
    )


def _row(predictor: SeldonPredictor) -> tuple[str, str]:
    share = f", {predictor.traffic} %" if predictor.traffic not in (0, 100) else ""
    label = "shadow" if predictor.shadow else "predictor"
    return label, f"{predictor.name}{share}: {', '.join(predictor.units)}"


def example_message(predictor: SeldonPredictor) -> dict[str, Any]:
    """A message for a predictor: what the first of its nodes that says so gives as example or has as inputs."""
    for unit in _way(predictor):
        rows: Any = getattr(unit.step.user_object, EXAMPLE_INPUTS, None) if unit.step is not None else None
        rows = rows.tolist() if hasattr(rows, "tolist") else rows
        if isinstance(rows, (list, tuple)):
            return {"data": {"ndarray": rows}}
        found = _by_metadata(unit)
        if found is not None:
            return found
    return {"data": {"ndarray": _ANY_ROWS}}


def _way(predictor: SeldonPredictor) -> Iterator[SeldonUnit]:
    """The nodes that a message comes to, the first child of each."""
    routes: Mapping[str, Any] = predictor.routes
    while routes:
        unit = next(iter(routes.values())).target
        if not isinstance(unit, SeldonUnit):
            return
        yield unit
        routes = unit.routes


def _by_metadata(unit: SeldonUnit) -> dict[str, Any] | None:
    """A message of zeros in the form of a node's first input; ``None`` where its metadata does not say it."""
    if unit.metadata is None or unit.metadata.problem:
        return None
    inputs = unit.metadata.to_dict()["inputs"]
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
