"""Messages of protobuf and JSON objects into each other; components find these functions in ``seldon_core.utils``."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from servegraph import jsoncodec
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.proto import prediction_pb2


def json_to_seldon_message(message_json: Any) -> Any:
    """The ``SeldonMessage`` of a JSON object; an empty one of None.

    Raises:
        SeldonMicroserviceException: it is none (400).
    """
    return _parsed(message_json, prediction_pb2.SeldonMessage)


def json_to_feedback(message_json: Any) -> Any:
    """The ``Feedback`` of a JSON object.

    Raises:
        SeldonMicroserviceException: it is none (400).
    """
    return _parsed(message_json, prediction_pb2.Feedback)


def json_to_seldon_messages(message_json: Any) -> Any:
    """The ``SeldonMessageList`` of a JSON object.

    Raises:
        SeldonMicroserviceException: it is none (400).
    """
    return _parsed(message_json, prediction_pb2.SeldonMessageList)


def json_to_seldon_model_metadata(metadata_json: Any) -> Any:
    """The ``SeldonModelMetadata`` of a JSON object.

    Raises:
        SeldonMicroserviceException: it is none (400).
    """
    return _parsed(metadata_json, prediction_pb2.SeldonModelMetadata)


def seldon_message_to_json(message_proto: Any) -> dict[str, Any]:
    """The JSON object of a ``SeldonMessage``."""
    return json_of(message_proto)


def seldon_messages_to_json(message_protos: Any) -> dict[str, Any]:
    """The JSON object of a ``SeldonMessageList``."""
    return json_of(message_protos)


def feedback_to_json(message_proto: Any) -> dict[str, Any]:
    """The JSON object of a ``Feedback``."""
    return json_of(message_proto)


def json_of(message: Any) -> dict[str, Any]:
    """The JSON object of any message."""
    value: dict[str, Any] = json_format.MessageToDict(message)
    return value


def _parsed(value: Any, kind: Any) -> Any:
    message = kind()
    if value is None:
        return message
    try:
        # What numpy has made of it is plain JSON first.
        return json_format.ParseDict(jsoncodec.loads(jsoncodec.dumps(value)), message)
    except (json_format.ParseError, TypeError, ValueError, RecursionError) as exc:
        raise SeldonMicroserviceException(f"Invalid JSON: {str(exc)[:300]}") from exc


json_to_seldonMessage = json_to_seldon_message  # noqa: N816 - as releases before 0.5 spelt it
seldonMessage_to_json = seldon_message_to_json  # noqa: N816
