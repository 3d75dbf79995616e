"""How the steps of a deployment are drawn: by what the deployment says of its nodes, so that no code is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from servegraph.graph.steps import StepOptions
from servegraph.serving.seldon.deployment import UNKNOWN_IMPLEMENTATION, Deployment, PredictorSpec, UnitSpec
from servegraph.serving.seldon.locate import class_name

_SHAPES: Final[Mapping[str, str]] = {
    "MODEL": "ellipse",
    "ROUTER": "diamond",
    "COMBINER": "invtrapezium",
    "TRANSFORMER": "box",
    "OUTPUT_TRANSFORMER": "box",
}
_BUILT_IN: Final[Mapping[str, str]] = {
    "SIMPLE_MODEL": "MODEL",
    "SIMPLE_ROUTER": "ROUTER",
    "RANDOM_ABTEST": "ROUTER",
    "AVERAGE_COMBINER": "COMBINER",
}


def drawn_unit(unit: UnitSpec, code: object = None) -> StepOptions:
    """How a node is drawn: with its type, and with its implementation, image or local code below its name."""
    kind = _BUILT_IN.get(unit.implementation, unit.type)
    what = "" if unit.implementation == UNKNOWN_IMPLEMENTATION else unit.implementation
    what = what or unit.image or (class_name(code) if isinstance(code, str) else "")
    what = what or (f"{unit.endpoint.host}:{unit.endpoint.port}" if unit.endpoint is not None else "")
    words = [] if kind == "UNKNOWN_TYPE" else [kind]
    words += [method for method in unit.methods if unit.implementation not in _BUILT_IN]
    label = " + ".join(words)
    return StepOptions(shape=_SHAPES.get(kind), plot_label=f"{label}: {what}" if what else label)


def drawn_predictor(predictor: PredictorSpec) -> StepOptions:
    """How a predictor is drawn: with its share of the traffic."""
    share = f", {predictor.traffic} %" if predictor.traffic else ""
    return StepOptions(plot_label="shadow" if predictor.shadow else f"predictor{share}")


def drawn_deployment(deployment: Deployment) -> StepOptions:
    """How the root of a deployment is drawn."""
    return StepOptions(plot_label=f"{deployment.namespace}/{deployment.name}")
