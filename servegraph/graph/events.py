"""What travels through a graph: an `Event` in, its body or a `Response` out.

An event is one request or one stream record. Steps usually see only ``event.body``; a step with
``full_event=True`` and a model's ``op_*`` methods see the event itself. Attributes that a request did not bring
keep their defaults and cost nothing; the id is drawn when somebody asks for it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)

ID_HEADER: Final = "x-request-id"


def new_id() -> str:
    """A random id of 32 hexadecimal digits (128 bits); unique, not secret."""
    return f"{_random.getrandbits(128):032x}"


class Headers(Mapping[str, str]):
    """Header fields whose names are matched without regard to case; the last of repeated fields wins.

    Iteration gives the names in lower case. Built from a mapping or from pairs of ``bytes`` or ``str``.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        self._fields: dict[str, str] = {_text(k).lower(): _text(v) for k, v in pairs}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


class Trigger:
    """What brought an event in: ``kind`` (``http``, ``kafka``, ``cron``, …; empty in the mock) and ``name``."""

    __slots__ = ("kind", "name")

    def __init__(self, kind: str = "", name: str = "") -> None:
        self.kind = kind
        self.name = name

    def __repr__(self) -> str:
        return f"Trigger({self.kind!r}, {self.name!r})"


class Response:
    """An answer with a status, headers and a content type of its own.

    A ``dict``, ``list`` or number as body is written as JSON; ``str`` and ``bytes`` go out as they are.
    """

    __slots__ = ("body", "content_type", "headers", "status_code")

    def __init__(
        self,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str | None = None,
        status_code: int = 200,
    ) -> None:
        self.headers = dict(headers) if headers else {}
        self.body = body
        self.content_type = content_type
        self.status_code = status_code

    def __repr__(self) -> str:
        return f"Response(status_code={self.status_code}, content_type={self.content_type!r}, body={self.body!r})"


class _Drop:
    """The type of `DROP`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "servegraph.DROP"

    def __copy__(self) -> _Drop:
        return self

    def __deepcopy__(self, memo: object) -> _Drop:
        return self


DROP: Final = _Drop()
"""Returned by a step: this event ends here. If nothing else answers, the caller is told "no result"."""

_NO_TRIGGER: Final = Trigger()
_NO_HEADERS: Final = Headers()


class Event:
    """One request or stream record on its way through a graph.

    Args:
        body: the decoded body; JSON as Python values, anything else as bytes or text.
        content_type: the body's media type, as sent.
        headers: a mapping or pairs; looked up without regard to case.
        method: HTTP method, upper case; ``None`` outside HTTP.
        path: the path below the server; routers replace it by the operation.
        event_id: the request's id; drawn at random when it is first asked for.
        trigger: what brought the event in.
        offset: position in a stream's shard.
        time: when the event happened; ``None`` when the source does not say.
    """

    key: str = ""
    method: str | None = None
    content_type: str | None = None
    path: str = "/"
    trigger: Trigger = _NO_TRIGGER
    offset: int = 0
    shard_id: int | None = None
    num_shards: int | None = None
    topic: str | None = None
    time: datetime | None = None
    error: BaseException | None = None
    """The exception that an error handler is called for."""
    origin_state: str | None = None
    """The name of the step that raised ``error``."""
    terminated: bool = False
    """Set by a step: the graph ends here and this event is the answer."""
    stream_path: str | None = None
    deadline: float | None = None
    """When the request's time is up, on the clock of ``time.monotonic()``; ``None`` is never."""

    _id: str | None = None
    _headers: Headers | None = None
    _raw_headers: Any = None
    _fields: dict[str, list[str]] | None = None
    _query: str = ""
    _peer: tuple[str, int] | None = None  # host and port of the client, where it came over HTTP
    _run: Any = None  # the engine's state of this request
    _model: str | None = None  # the model that raised
    _at: str = ""  # the step of a chain that is running
    _outlets: Any = None  # what a choice chose

    def __init__(
        self,
        body: Any = None,
        content_type: str | None = None,
        headers: Mapping[str, Any] | Iterable[tuple[Any, Any]] | None = None,
        method: str | None = None,
        path: str | None = None,
        event_id: str | None = None,
        trigger: Trigger | None = None,
        offset: int = 0,
        time: datetime | None = None,
    ) -> None:
        self.body = body
        if content_type is not None:
            self.content_type = content_type
        if headers is not None:
            self._raw_headers = headers
        if method is not None:
            self.method = method
        if path is not None:
            self.path = path
        if event_id is not None:
            self._id = event_id
        if trigger is not None:
            self.trigger = trigger
        if offset:
            self.offset = offset
        if time is not None:
            self.time = time

    @property
    def id(self) -> str:
        """The request's id: given by the caller, or drawn when it is first asked for."""
        if self._id is None:
            self._id = new_id()
        return self._id

    @id.setter
    def id(self, value: str) -> None:
        self._id = value

    @property
    def headers(self) -> Headers:
        """The header fields, looked up without regard to case."""
        if self._headers is None:
            raw = self._raw_headers
            if raw is None:
                return _NO_HEADERS
            self._headers = raw if isinstance(raw, Headers) else Headers(raw)
        return self._headers

    @headers.setter
    def headers(self, value: Mapping[str, Any] | Iterable[tuple[Any, Any]]) -> None:
        self._headers = None
        self._raw_headers = value

    @property
    def fields(self) -> dict[str, list[str]]:
        """The query parameters: each name with its values in order."""
        if self._fields is None:
            from urllib.parse import parse_qs

            self._fields = parse_qs(self._query, keep_blank_values=True) if self._query else {}
        return self._fields

    @fields.setter
    def fields(self, value: dict[str, list[str]]) -> None:
        self._fields = value

    @property
    def timestamp(self) -> datetime | None:
        """The same as ``time``, under the name that Nuclio's events use."""
        return self.time

    def get_header(self, name: str, default: str | None = None) -> str | None:
        """A header's value, looked up without regard to case."""
        return self.headers.get(name, default)

    def fork(self, body: Any) -> Event:
        """A second event of the same request with a body of its own."""
        if self._id is None:
            self._id = new_id()  # both are the same request, so it is drawn before they part
        other = Event.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.body = body
        return other

    def continued_by(self, other: Event) -> None:
        """Make an event that a step gave in place of this one a part of the same request."""
        other._run = self._run
        if other._id is None:
            other._id = self.id
        if other.deadline is None:
            other.deadline = self.deadline

    def __repr__(self) -> str:
        return f"Event(path={self.path!r}, method={self.method!r}, id={self._id!r}, body={_short(self.body)})"


def _short(value: Any) -> str:
    """A bounded description of a body: never the repr of something deep or huge."""
    if isinstance(value, (int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, (str, bytes)) and len(value) <= 60:
        return repr(value)
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"<{type(value).__name__}{size}>"


MockEvent = Event
"""The name under which MLRun code builds events for tests."""
