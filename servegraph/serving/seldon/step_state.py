"""The state of a component in the life of its step: where it is kept, under which key, and from when to when.

A step restores before it loads, keeps saving while it serves, and saves once more when it is closed. It is the same
for a component that is served alone and for a node of a tree.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from servegraph.errors import SettingsError
from servegraph.graph.context import GraphContext
from servegraph.serving.seldon.environment import redis_address
from servegraph.serving.seldon.persistence import DEFAULT_PERIOD_S, Persistence, positive_seconds
from servegraph.serving.seldon.pickles import pickle_allowed
from servegraph.serving.seldon.state_kinds import Counting, Stateful
from servegraph.serving.seldon.state_store import STATE_STORE, check_address
from servegraph.settings import environment

logger = logging.getLogger("servegraph.serving.seldon")

ENV_STORE: Final = "SERVEGRAPH_STATE_STORE"
PERIOD: Final = "push_frequency"
"""The parameter of a component, and else its attribute, that says after how many seconds it is saved again."""
ON: Final = "on"
OFF: Final = "off"
_WORDS: Final = {"on": ON, "off": OFF, "true": ON, "false": OFF}
"""``on`` and ``off`` in capitals too, and as what YAML makes of them where they stand without quotes."""


def state_place(given: str | bool) -> str:
    """What is written where a state store is named: an address, ``on``, ``off``, or nothing.

    Raises:
        SettingsError: it is none of these.
    """
    text = str(given)
    place = _WORDS.get(text.lower(), text)
    if place not in ("", ON, OFF):
        check_address(place)
    return place


def place_of(asked: str | bool, context: GraphContext) -> str:
    """The address at which a step keeps its state; empty for nowhere.

    Whoever runs the server has the last word on the address, since a deployment may name one that only its cluster
    can reach; but what a deployment does not want kept is not kept.

    Args:
        asked: what the step says; see `state_place`. Nothing leaves it to the server.
        context: where the server says what it wants.

    Raises:
        SettingsError: one of them is no place.
    """
    offered = context.services.get(STATE_STORE)
    if offered is None:  # a runtime without settings of its own, such as the mock server
        offered = environment().get(ENV_STORE, "")
    theirs, own = state_place(offered), state_place(asked)
    if OFF in (theirs, own):
        return ""
    place = own if theirs == ON else theirs  # that states are kept says not where
    place = place or own or theirs
    return redis_address() if place == ON else place


def restored(
    component: Any, asked: str | bool, context: GraphContext, key: str, parameters: Mapping[str, Any]
) -> Persistence | None:
    """What keeps the component's state, with the state of before in it; ``None`` where none is kept.

    Args:
        component: the user's object.
        asked: what the step says; see `place_of`.
        context: the step's context.
        key: what the state is kept under.
        parameters: the component's arguments.

    Raises:
        SettingsError: the address or the period makes no sense.
    """
    try:
        place = place_of(asked, context)
        if not place:
            return None
        if not asked and not isinstance(component, (Counting, Stateful)):
            _tell_unkept(component, key)
            return None  # most components learn nothing, and nobody has said that this one does
        period = parameters.get(PERIOD, getattr(component, PERIOD, DEFAULT_PERIOD_S))
        seconds = positive_seconds(period, PERIOD)
        persistence = Persistence(component, place, key, seconds, allow_pickle=pickle_allowed())
    except SettingsError as exc:
        raise SettingsError(f"state of {key}: {exc.message}") from exc
    persistence.restore()
    return persistence


def _tell_unkept(component: Any, key: str) -> None:
    """Say of a component that learns from feedback that it is not kept."""
    if any("send_feedback" in vars(cls) for cls in type(component).__mro__ if cls.__name__ != "SeldonComponent"):
        logger.info(
            "state of %s: %s has no get_state and set_state, and a state store of the server alone keeps no pickles: "
            "it is not kept unless the deployment, or the command, asks for it", key, type(component).__qualname__,
        )  # fmt: skip
