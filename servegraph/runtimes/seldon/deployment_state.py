"""Where the state of a deployment's nodes is kept, as the deployment says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from servegraph.errors import SettingsError, SpecError, closest
from servegraph.runtimes.seldon.deployment_code import annotation_of
from servegraph.serving.seldon.deployment import Deployment, PredictorSpec, UnitSpec
from servegraph.serving.seldon.environment import kept_in
from servegraph.serving.seldon.step_state import state_place

STATE: Final = "servegraph.io/state-store"
"""The annotation that says where state is kept, and with ``.NODE`` behind it that of one node."""


def state_of(unit: UnitSpec, predictor: PredictorSpec) -> str:
    """Where the state of a node is kept: an address, ``on``, ``off``; empty where the deployment says nothing.

    In this order: the annotation with the node's name; that of its pod; that of the predictor or the deployment;
    ``PERSISTENCE`` of its container.

    Raises:
        SpecError: it is none of these.
    """
    annotated = annotation_of(unit, predictor, STATE) or predictor.annotations.get(STATE, "")
    place = f"annotation {STATE}"
    try:
        if annotated:
            return state_place(annotated)
        if unit.container is not None:
            place = f"container {unit.container.name!r}"
            return kept_in(unit.container.env)
    except SettingsError as exc:
        raise SpecError(f"{unit.path}: {place} of node {unit.name!r}: {exc.message}") from exc
    return ""


def check_annotated_names(deployment: Deployment, annotation: str) -> None:
    """Raise `SpecError` where an annotation has the name of a node behind it that is not there.

    One of the deployment, which all predictors have, may name a node of any of them.
    """
    predictors = deployment.predictors
    names = {p.name: [unit.name for unit in p.graph.walk()] for p in predictors}
    everywhere = set.intersection(*(set(p.annotations) for p in predictors))
    for predictor in predictors:
        own = names[predictor.name]
        every = [name for found in names.values() for name in found]
        for key in _annotations(predictor):
            name = key.removeprefix(f"{annotation}.")
            valid = every if key in everywhere else own
            if name != key and name not in valid:
                raise SpecError(f"{predictor.path}: annotation {key}: there is no node {name!r}; {closest(name, own)}")


def _annotations(predictor: PredictorSpec) -> Iterator[str]:
    """The names of its annotations, and of those of its pods."""
    yield from predictor.annotations
    for unit in predictor.graph.walk():
        if unit.container is not None:
            yield from unit.container.annotations
