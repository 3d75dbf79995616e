"""The operations of a node's component as functions of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from servegraph import jsoncodec
from servegraph.graph.events import Event
from servegraph.graph.media import parse_media_type
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.step import ComponentStep, message_of
from servegraph.serving.seldon.tree_errors import PassedThroughError


def component_function(step: ComponentStep, op: str) -> Callable[[Event], Any]:
    """A function of the event whose body is the input of an operation; gives the `Message` of the answer.

    The event is shown to the component as a request of this operation. What the component's own error handlers answer
    is its answer: with status 200 a message, else a `PassedThroughError`.
    """
    path = "/" + op.replace("_", "-")
    if step.component.is_async:

        async def acall(event: Event) -> Message:
            event.path = path
            try:
                answered: Event = await step.answer(event)  # type: ignore[misc]
            except Exception as exc:  # noqa: BLE001 - a handler of the component may have an answer to it
                return _handled(step, event, exc)
            message: Message = answered.body
            return message

        return acall

    def call(event: Event) -> Message:
        event.path = path
        try:
            answered = step.answer(event)
        except Exception as exc:  # noqa: BLE001 - a handler of the component may have an answer to it
            return _handled(step, event, exc)
        message: Message = answered.body
        return message

    return call


def _handled(step: ComponentStep, event: Event, exc: Exception) -> Message:
    """What the component's error handlers make of a failure; raises it where there are none."""
    answer = step.handle_error(exc, event)
    if answer is None:
        raise exc
    status, fields, data = answer
    content_type = next((value for name, value in fields if name.lower() == "content-type"), "")
    body: Any = data
    if parse_media_type(content_type).is_json:
        try:
            body = jsoncodec.loads(data)
        except jsoncodec.JSONDecodeError:
            content_type = "text/plain; charset=utf-8"
    if status != 200:
        raise PassedThroughError(status, body, content_type) from exc
    return message_of(RawAnswer(body))
