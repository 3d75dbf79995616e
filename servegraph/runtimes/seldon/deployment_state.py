"""Where the state of a deployment's nodes is kept, as the deployment says it."""

from __future__ import annotations

from typing import Final

from servegraph.errors import SettingsError, SpecError, closest
from servegraph.runtimes.seldon.deployment_code import annotation_of
from servegraph.serving.seldon.deployment import PredictorSpec, UnitSpec
from servegraph.serving.seldon.environment import kept_in
from servegraph.serving.seldon.step_state import check_state_store

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
            check_state_store(annotated)
            return annotated
        if unit.container is not None:
            place = f"container {unit.container.name!r}"
            return kept_in(unit.container.env)
    except SettingsError as exc:
        raise SpecError(f"{unit.path}: {place} of node {unit.name!r}: {exc.message}") from exc
    return ""


def check_state_names(predictor: PredictorSpec) -> None:
    """Raise `SpecError` for an annotation that names a node that is not in the graph."""
    names = [unit.name for unit in predictor.graph.walk()]
    for key in predictor.annotations:
        name = key.removeprefix(f"{STATE}.")
        if name != key and name not in names:
            raise SpecError(f"{predictor.path}: annotation {key}: there is no node {name!r}; {closest(name, names)}")
