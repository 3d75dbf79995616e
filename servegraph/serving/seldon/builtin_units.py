"""The implementations that need no code: SIMPLE_MODEL, SIMPLE_ROUTER, RANDOM_ABTEST and AVERAGE_COMBINER.

What they are overrides the type and the methods that the node is given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from servegraph.graph.events import Event
from servegraph.serving.seldon.message import Message, Meta
from servegraph.serving.seldon.tree_errors import INVALID_COMBINATION, NodeError

NodeFunction = Callable[[Event], Any]
"""Gets the event with the input as its body, gives the answer: a message, or for a router the child's number."""

_NAMES: Final = ("class0", "class1", "class2")
_VALUES: Final = (0.1, 0.9, 0.5)
_SUCCESS: Final[Mapping[str, Any]] = {"code": 0, "info": "", "reason": "", "status": "SUCCESS"}


def builtin_calls(implementation: str, node: str, parameters: Mapping[str, Any]) -> dict[str, NodeFunction]:
    """The operations of a hard-coded implementation."""
    if implementation == "SIMPLE_MODEL":
        return {"down": simple_model}
    if implementation == "SIMPLE_ROUTER":
        return {"route": lambda event: 0}
    if implementation == "AVERAGE_COMBINER":
        return {"aggregate": lambda event: average(event.body, node)}
    return {"route": ab_test(float(parameters.get("ratioA", 0.5)), parameters.get("seed"))}


def simple_model(event: Event) -> Message:
    """The same answer to every request, with one metric of each type; text and bytes come back as they are."""
    message: Message = event.body
    metrics: list[dict[str, Any]] = [
        {"key": "mymetric_counter", "type": "COUNTER", "value": 1},
        {"key": "mymetric_gauge", "type": "GAUGE", "value": 100},
        {"key": "mymetric_timer", "type": "TIMER", "value": 22.1},
    ]
    meta = Meta(metrics=metrics)
    if message.kind in ("strData", "binData"):
        return Message(message.kind, message.value, meta=meta, status=dict(_SUCCESS))
    return Message("data", np.array([_VALUES]), list(_NAMES), "tensor", meta, dict(_SUCCESS))


def ab_test(ratio: float, seed: Any = None) -> NodeFunction:
    """A router to child 0 with this probability, else to child 1; a seed makes its choices repeatable."""
    draw = random.Random(seed).random
    return lambda event: 0 if draw() < ratio else 1


def average(messages: list[Message], node: str) -> Message:
    """The mean of the children's arrays, place by place, named and encoded as the first one.

    Raises:
        NodeError: they are no arrays of numbers of one shape, with two dimensions.
    """
    arrays: list[np.ndarray[Any, Any]] = []
    for index, message in enumerate(messages):
        if message.kind != "data":
            raise _refused(node, f"the answer of child {index} is no array but {message.kind or 'empty'}")
        array = np.asarray(message.value)
        if array.dtype.kind not in "iufb" or array.ndim != 2:
            raise _refused(node, f"the answer of child {index} is no array of numbers with 2 dimensions")
        if arrays and array.shape != arrays[0].shape:
            raise _refused(node, f"the answer of child {index} has shape {array.shape}, the first {arrays[0].shape}")
        arrays.append(array)
    first = messages[0]
    mean = np.mean(arrays, axis=0)
    return Message("data", mean, list(first.names), first.encoding, Meta(), first.status)


def _refused(node: str, why: str) -> NodeError:
    return NodeError(node, f"it cannot average: {why}", reason=INVALID_COMBINATION)
