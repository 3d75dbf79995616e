"""What one call sends, in each of the forms that are asked for: JSON object, bytes, protobuf message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from servegraph.importing import import_extra
from servegraph.serving.seldon.client.errors import SeldonClientException
from servegraph.serving.seldon.client.options import Payload
from servegraph.serving.seldon.client.payload import Body, any_message, plain_body, request_message, wire
from servegraph.serving.seldon.message import Feedback, Message


class Content(ABC):
    """The content of a request."""

    @abstractmethod
    def rest(self) -> Body:
        """The JSON object."""

    @abstractmethod
    def proto(self) -> Any:
        """The protobuf message."""

    @abstractmethod
    def wire(self) -> bytes:
        """The bytes of the protobuf message."""


@dataclass(frozen=True, slots=True)
class One(Content):
    """A message."""

    message: Message

    def rest(self) -> Body:
        """The JSON object."""
        return plain_body(self.message)

    def proto(self) -> Any:
        """A ``SeldonMessage``."""
        return wire().message_to_proto(self.message)

    def wire(self) -> bytes:
        """The bytes of a ``SeldonMessage``."""
        raw: bytes = wire().message_to_wire(self.message)
        return raw


@dataclass(frozen=True, slots=True)
class Several(Content):
    """Messages to aggregate."""

    messages: list[Message]

    def rest(self) -> Body:
        """The JSON object."""
        return {"seldonMessages": [plain_body(message) for message in self.messages]}

    def proto(self) -> Any:
        """A ``SeldonMessageList``."""
        return wire().messages_to_proto(self.messages)

    def wire(self) -> bytes:
        """The bytes of a ``SeldonMessageList``."""
        raw: bytes = wire().messages_to_wire(self.messages)
        return raw


@dataclass(frozen=True, slots=True)
class Judged(Content):
    """Feedback on a prediction; its messages are JSON objects or protobuf messages."""

    parts: Mapping[str, Any]
    reward: float

    def rest(self) -> Body:
        """The JSON object; parts that are JSON objects are sent as they are."""
        body: Body = {
            name: dict(part) if isinstance(part, Mapping) else plain_body(any_message(part, name))
            for name, part in self.parts.items()
            if part is not None
        }
        return {**body, "reward": self.reward}

    def proto(self) -> Any:
        """A ``Feedback``."""
        return wire().feedback_to_proto(self._feedback())

    def wire(self) -> bytes:
        """The bytes of a ``Feedback``."""
        raw: bytes = wire().feedback_to_wire(self._feedback())
        return raw

    def _feedback(self) -> Feedback:
        messages = {name: any_message(part, name) for name, part in self.parts.items()}
        return Feedback(**messages, reward=self.reward)


@dataclass(frozen=True, slots=True)
class Raw(Content):
    """A JSON object of the caller's, which is sent as it is."""

    body: Mapping[str, Any]
    message_type: str

    def rest(self) -> Body:
        """The JSON object."""
        return dict(self.body)

    def proto(self) -> Any:
        """The protobuf message whose JSON it is."""
        from google.protobuf.json_format import ParseDict, ParseError

        try:
            return ParseDict(dict(self.body), getattr(messages(), self.message_type)())
        except ParseError as exc:
            raise SeldonClientException(f"the raw data is no {self.message_type}: {exc}") from exc

    def wire(self) -> bytes:
        """Its bytes."""
        raw: bytes = self.proto().SerializeToString()
        return raw


def message_content(payload: Payload, payload_type: str) -> Content:
    """The content of a call with one message.

    Raises:
        SeldonClientException: the payload cannot be sent.
    """
    if payload.raw_data is not None:
        return Raw(payload.raw_data, "SeldonMessage")
    return One(request_message(payload, payload_type))


def messages() -> ModuleType:
    """The generated module of the protocol's messages.

    Raises:
        MissingExtraError: protobuf is not installed.
    """
    import_extra("google.protobuf", feature="protobuf messages", extra="seldon")
    return import_module("servegraph.serving.seldon.proto.prediction_pb2")
