"""The JSON of a request to a deployment, and where there is none, what to send in its place."""

from __future__ import annotations

from typing import Any, Final

from servegraph.graph.events import Event
from servegraph.graph.media import parse_media_type
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.plane import NO_JSON

_FORM: Final = "application/x-www-form-urlencoded"
_WANTED: Final = "send it with the header Content-Type: application/json"


def given_json(event: Event) -> Any:
    """The JSON value that a request holds.

    Raises:
        SeldonMicroserviceException: it holds none (400); the message names the content type that it came with.
    """
    if event.body is not None:
        return event.body
    media = parse_media_type(event.content_type or "")
    if media.is_json:
        why = "the body is empty or null"
    elif media.essence == _FORM:
        why = f"the content type is {_FORM}, which curl takes by itself, and the form has no field json; {_WANTED}"
    elif media.essence:
        why = f"the content type is {media.essence[:80]}; {_WANTED}"
    else:
        why = f"there is no body, or it has no content type; {_WANTED}"
    raise SeldonMicroserviceException(f"{NO_JSON}: {why}")
