"""One message of Seldon's protocol as Python values: what the nodes of a tree hand each other in process.

`rest.py` and `wire.py` make messages of JSON and of protobuf bytes, and the other way round. Between two nodes in
one process nothing is encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal["data", "jsonData", "strData", "binData", "customData"]
Encoding: TypeAlias = Literal["tensor", "ndarray", "tftensor"]

KINDS: Final[tuple[Kind, ...]] = ("data", "jsonData", "strData", "binData", "customData")


class Meta:
    """What travels beside the payload."""

    __slots__ = ("metrics", "puid", "request_path", "routing", "tags")

    def __init__(
        self,
        puid: str = "",
        tags: dict[str, Any] | None = None,
        routing: dict[str, int] | None = None,
        request_path: dict[str, str] | None = None,
        metrics: list[dict[str, Any]] | None = None,
    ) -> None:
        self.puid = puid
        """Id of the request; empty when it has none."""
        self.tags: dict[str, Any] = tags if tags is not None else {}
        self.routing: dict[str, int] = routing if routing is not None else {}
        """For each router the index of the child that it chose; -1 is all of them."""
        self.request_path: dict[str, str] = request_path if request_path is not None else {}
        """For each node that was called its image."""
        self.metrics: list[dict[str, Any]] = metrics if metrics is not None else []

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; what is empty is left out."""
        out: dict[str, Any] = {}
        if self.puid:
            out["puid"] = self.puid
        if self.tags:
            out["tags"] = self.tags
        if self.routing:
            out["routing"] = self.routing
        if self.request_path:
            out["requestPath"] = self.request_path
        if self.metrics:
            out["metrics"] = self.metrics
        return out

    def copy(self) -> Meta:
        """Another one with the same content, whose parts can be changed on their own."""
        return Meta(self.puid, dict(self.tags), dict(self.routing), dict(self.request_path), list(self.metrics))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Meta) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it is mutable

    def __repr__(self) -> str:
        return f"Meta({self.to_dict()!r})"


class Message:
    """A payload with its names, its meta and, in an answer that failed, its status."""

    __slots__ = ("encoding", "kind", "meta", "names", "source", "status", "value")

    def __init__(
        self,
        kind: Kind | None = None,
        value: Any = None,
        names: list[str] | None = None,
        encoding: Encoding | None = None,
        meta: Meta | None = None,
        status: dict[str, Any] | None = None,
        source: Any = None,
    ) -> None:
        self.kind = kind
        """Which payload it has; ``None`` when it has none."""
        self.value = value
        """``data``: an array or a nested list; ``strData``: text; ``binData``: bytes; ``jsonData``: any JSON value;
        ``customData``: a ``google.protobuf.Any``."""
        self.names: list[str] = names if names is not None else []
        """Names of the columns of ``data``."""
        self.encoding = encoding
        """How ``data`` was, or is to be, encoded; ``None`` where the sender left it open."""
        self.meta = meta if meta is not None else Meta()
        self.status = status
        self.source = source
        """The JSON object or the protobuf message that it was read from, for components that want the whole of it."""

    def __repr__(self) -> str:
        return f"Message({self.kind}, {self.value!r}, names={self.names!r}, meta={self.meta.to_dict()!r})"


@dataclass(slots=True)
class Feedback:
    """How good an answer was: the request, the answer, and a reward or the truth."""

    request: Message = field(default_factory=Message)
    response: Message = field(default_factory=Message)
    truth: Message = field(default_factory=Message)
    reward: float = 0.0
    source: Any = None
    """The JSON object or the protobuf message that it was read from."""
