"""From Nuclio's events to ours.

Nuclio's SDK has parsed a body whose content type is exactly ``application/json``; any other body is bytes. Only HTTP
events are routed by their path: elsewhere it holds a topic, a subject, or nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import PayloadTooLargeError, RequestError
from servegraph.graph.events import Event, Trigger
from servegraph.settings import ServerSettings

_JSON: Final = "application/json"
_MAX_ID: Final = 128
_ID_HEADERS: Final = ("x-request-id", "mlrun-event-id")


def is_http(event: Any) -> bool:
    """Whether an event is a request that somebody waits for."""
    return _text(getattr(event.trigger, "kind", "")) in ("http", "")


def to_event(given: Any) -> Event:
    """Our event with the facts of Nuclio's: body, headers, path, query, trigger, place in a stream, time."""
    content_type = _text(given.content_type) if given.content_type else None
    body = given.body
    if isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    elif isinstance(body, str) and content_type == _JSON:
        body = jsoncodec.dumps(body)  # a JSON text that was read already; our reader would read it again
    headers = {_text(k): _value(v) for k, v in (given.headers or {}).items()}
    path = _text(given.path or "/")
    topic = _text(given.topic) if getattr(given, "topic", None) else None
    trigger = Trigger(_text(getattr(given.trigger, "kind", "")), _text(getattr(given.trigger, "name", "")))
    event = Event(
        body,
        content_type,
        headers,
        _text(given.method).upper() if given.method else None,
        path if is_http(given) else "/",
        None,
        trigger,
        given.offset or 0,
        _moment(given.timestamp),
    )
    identifier = _identifier(event, given)
    if identifier:
        event.id = identifier
    event.shard_id, event.num_shards, event.topic = given.shard_id, given.num_shards, topic
    if not is_http(given):
        event.stream_path = topic or path
    fields = given.fields
    if isinstance(fields, Mapping) and fields:
        event.fields = {_text(k): _values(v) for k, v in fields.items()}
    return event


def check_size(given: Any, event: Event, settings: ServerSettings) -> None:
    """Raise `PayloadTooLargeError` for a body beyond the limit of its kind."""
    size = given.size if isinstance(given.size, int) else 0
    if isinstance(event.body, bytes):
        size = max(size, len(event.body))
    json = not isinstance(event.body, bytes) or "json" in (event.content_type or "json").lower()
    limit = settings.limits.body_json_bytes if json else settings.limits.body_binary_bytes
    if size > limit:
        raise PayloadTooLargeError(f"the body has {size} bytes; the limit is {limit}")


def deadline(event: Event, settings: ServerSettings) -> float:
    """When the request's time is up: what the caller asks for, at most what the function allows.

    Raises:
        RequestError: what the caller asks for is no number.
    """
    most = settings.timeouts.request_s
    raw = event.headers.get("x-request-timeout-ms")
    if raw is not None:
        try:
            asked = float(raw) / 1000
        except ValueError:
            asked = -1.0
        if not (math.isfinite(asked) and asked > 0):
            raise RequestError("X-Request-Timeout-Ms must be a number of milliseconds above 0")
        most = min(most, asked)
    return time.monotonic() + most


def _identifier(event: Event, given: Any) -> str | None:
    """The caller's id where it is fit to be logged, else Nuclio's."""
    for name in _ID_HEADERS:
        value = event.headers.get(name, "")
        if 0 < len(value) <= _MAX_ID and value.isascii() and value.isprintable():
            return value
    return _text(given.id) if given.id else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _value(value: Any) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else _text(value)


def _values(value: Any) -> list[str]:
    return [_text(v) for v in value] if isinstance(value, (list, tuple)) else [_text(value)]


def _moment(value: Any) -> datetime | None:
    """When the event happened; Nuclio's times are UTC and do not say so."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, (int, float)) and value > 0:
        return datetime.fromtimestamp(value, UTC)
    return None
