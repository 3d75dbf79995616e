"""What must hold in a deployment as a whole: names, traffic, shadows, and that each node has something to run."""

from __future__ import annotations

from typing import Final

from servegraph.graph.spec_fields import misfit
from servegraph.serving.seldon.deployment import (
    GRPC_TIMEOUT,
    MESSAGE_SIZE,
    REST_TIMEOUT,
    WITHOUT_MODEL_URI,
    Deployment,
    PredictorSpec,
    UnitSpec,
)
from servegraph.serving.seldon.servers.implementations import IMPLEMENTATIONS

NO_ENGINE: Final = "seldon.io/no-engine"


def check_deployment(deployment: Deployment, path: str = "$") -> None:
    """Raise `SpecError` for the first thing that contradicts itself."""
    spec = f"{path}.spec"
    if deployment.protocol != "seldon":
        why = f"is {deployment.protocol!r}: graphs are run by Seldon's own protocol; leave it out, or write seldon"
        raise misfit(f"{spec}.protocol", why)
    seen: set[str] = set()
    for predictor in deployment.predictors:
        if predictor.name in seen:
            raise misfit(f"{predictor.path}.name", f"there are two predictors {predictor.name!r}")
        seen.add(predictor.name)
        _check_predictor(predictor)
    _check_traffic(deployment, spec)


def _check_traffic(deployment: Deployment, spec: str) -> None:
    answering = deployment.split
    shadows = [p for p in deployment.predictors if p.shadow]
    if not answering:
        raise misfit(f"{shadows[0].path}.shadow", "a shadow cannot be the only predictor")
    if len(shadows) > 1:
        raise misfit(f"{shadows[1].path}.shadow", "there is a shadow already, and one is all there may be")
    total = sum(p.traffic for p in answering)
    if len(answering) == 1:
        if total not in (0, 100):
            raise misfit(f"{answering[0].path}.traffic", f"is {total}, and the only predictor gets all: 100, or none")
    elif total != 100:
        shares = ", ".join(f"{p.name} {p.traffic}" for p in answering)
        raise misfit(f"{spec}.predictors", f"traffic adds up to {total} ({shares}), not to 100")


def _check_predictor(predictor: PredictorSpec) -> None:
    seen: dict[str, str] = {}
    for unit in predictor.graph.walk():
        if unit.name in seen:
            raise misfit(f"{unit.path}.name", f"there is a node {unit.name!r} already, at {seen[unit.name]}")
        seen[unit.name] = unit.path
        _check_unit(unit)
    if predictor.annotations.get(NO_ENGINE, "").lower() == "true" and predictor.graph.children:
        raise misfit(f"{predictor.path}.graph", f"{NO_ENGINE} is for graphs of one node")
    for key, unit_of in ((REST_TIMEOUT, "milliseconds"), (GRPC_TIMEOUT, "milliseconds"), (MESSAGE_SIZE, "bytes")):
        text = predictor.annotations.get(key)
        if text is not None and (not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) == 0):
            why = f"the annotation {key} is a number of {unit_of} above 0, not {text!r}"
            raise misfit(f"{predictor.path}.annotations", why)


def _check_unit(unit: UnitSpec) -> None:
    nothing_known = unit.type == "UNKNOWN_TYPE" and not unit.methods
    if nothing_known and not unit.hard_coded:
        raise misfit(f"{unit.path}.type", f"node {unit.name!r} has no type: UNKNOWN_TYPE goes with methods")
    needs_uri = unit.implementation in IMPLEMENTATIONS or (unit.packaged and unit.implementation.endswith("_SERVER"))
    if needs_uri and not unit.model_uri and unit.implementation not in WITHOUT_MODEL_URI and unit.endpoint is None:
        given = {p.name for p in unit.parameters}
        if "model_uri" not in given:
            raise misfit(f"{unit.path}.modelUri", f"{unit.implementation} needs the URI of a model")
    if unit.type == "ROUTER" and not unit.children and not unit.hard_coded:
        raise misfit(f"{unit.path}.children", f"router {unit.name!r} has nothing to choose from")
    if unit.implementation == "RANDOM_ABTEST":
        _check_ab_test(unit)


def _check_ab_test(unit: UnitSpec) -> None:
    if len(unit.children) != 2:
        raise misfit(f"{unit.path}.children", f"RANDOM_ABTEST chooses one of 2 children, not of {len(unit.children)}")
    for parameter in unit.parameters:
        if parameter.name == "ratioA":
            try:
                good = 0.0 <= float(parameter.value) <= 1.0
            except ValueError:
                good = False
            if not good:
                raise misfit(f"{unit.path}.parameters", f"ratioA is {parameter.value!r}; it is a number from 0 to 1")
