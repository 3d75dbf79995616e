"""The operations of a node's component as functions of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from servegraph.graph.events import Event
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.message import KINDS, Message
from servegraph.serving.seldon.rest import meta_from_rest
from servegraph.serving.seldon.step import ComponentStep, message_of


def component_function(step: ComponentStep, op: str) -> Callable[[Event], Any]:
    """A function of the event whose body is the input of an operation; gives the `Message` of the answer."""
    if step.component.is_async:

        async def acall(event: Event) -> Message:
            event.path = op
            answered: Event = await step.do_event(event)  # type: ignore[misc]
            return _message(answered.body)

        return acall

    def call(event: Event) -> Message:
        event.path = op
        return _message(step.do_event(event).body)

    return call


def _message(answer: Message | RawAnswer) -> Message:
    """The message that a component's answer is; a low-level one may be without a payload."""
    if isinstance(answer, Message):
        return answer
    value = answer.value
    if isinstance(value, dict) and not any(kind in value for kind in KINDS):
        return Message(meta=meta_from_rest(value.get("meta", {})))
    return message_of(answer)
