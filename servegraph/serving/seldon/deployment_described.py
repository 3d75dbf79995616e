"""What a deployment tells people of itself: its predictors, its paths, and a request that its first node takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from servegraph.serving.description import SelfDescription
from servegraph.serving.seldon.example_messages import ANY_MESSAGE, said_example
from servegraph.serving.seldon.openapi import deployment_json
from servegraph.serving.seldon.predictors import SeldonPredictor
from servegraph.serving.seldon.unit import SeldonUnit

PREDICTIONS: Final = "/api/v1.0/predictions"


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
        found = said_example(unit.step.user_object if unit.step is not None else None, unit.metadata)
        if found is not None:
            return found
    return ANY_MESSAGE


def _way(predictor: SeldonPredictor) -> Iterator[SeldonUnit]:
    """The nodes that a message comes to, the first child of each."""
    routes: Mapping[str, Any] = predictor.routes
    while routes:
        unit = next(iter(routes.values())).target
        if not isinstance(unit, SeldonUnit):
            return
        yield unit
        routes = unit.routes
