"""``seldon_core.utils``: messages, arrays and JSON into each other, as components with low-level methods do it."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Dict, Final, List, Optional, Tuple, Union  # noqa: UP035 - found by those who import everything

import numpy as np
from google.protobuf import any_pb2, json_format
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import ListValue

from servegraph import jsoncodec
from servegraph.serving.seldon import rest, tftensor, wire
from servegraph.serving.seldon.answers import answer
from servegraph.serving.seldon.compat import user_model as helpers
from servegraph.serving.seldon.compat.env_utils import (
    ENV_MODEL_IMAGE,
    ENV_MODEL_NAME,
    NONIMPLEMENTED_IMAGE_MSG,
    NONIMPLEMENTED_MSG,
    get_image_name,
    get_model_name,
)
from servegraph.serving.seldon.compat.flask_utils import get_request
from servegraph.serving.seldon.compat.json_messages import (
    feedback_to_json,
    json_of,
    json_to_feedback,
    json_to_seldon_message,
    json_to_seldon_messages,
    json_to_seldon_model_metadata,
    json_to_seldonMessage,
    seldon_message_to_json,
    seldon_messages_to_json,
    seldonMessage_to_json,
)
from servegraph.serving.seldon.compat.user_model import (
    SeldonComponent,
    client_class_names,
    client_custom_tags,
    client_feature_names,
)
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Message
from servegraph.serving.seldon.proto import prediction_pb2
from servegraph.settings import environment

logger = logging.getLogger("servegraph")

_ENCODINGS: Final[Mapping[str, Encoding]] = {"tensor": "tensor", "ndarray": "ndarray", "tftensor": "tftensor"}
_TRUE: Final = ("1", "true", "t")

# -- payloads ----------------------------------------------------------------------------------------------------------


def get_data_from_proto(request: Any) -> Any:
    """The payload of a ``SeldonMessage``: an array, text, bytes, or a JSON value.

    Raises:
        SeldonMicroserviceException: it has none, or it is malformed (400).
    """
    message = wire.message_from_proto(request)
    if message.kind is None:
        raise SeldonMicroserviceException("Unknown data in SeldonMessage: it has no payload")
    return message.value


def grpc_datadef_to_array(datadef: Any) -> Any:
    """The array of a ``DefaultData``; an empty one where it has none.

    Raises:
        SeldonMicroserviceException: it is malformed (400).
    """
    return wire.message_from_proto(prediction_pb2.SeldonMessage(data=datadef)).value


def rest_datadef_to_array(datadef: Mapping[str, Any]) -> Any:
    """The array of the JSON object ``data`` of a message; an empty one where it has none.

    Raises:
        SeldonMicroserviceException: it is malformed (400).
    """
    return rest.message_from_rest({"data": datadef}).value


def get_meta_from_proto(request: Any) -> dict[str, Any]:
    """The meta of a ``SeldonMessage`` as JSON object."""
    return json_of(request.meta)


def array_to_rest_datadef(data_type: str, array: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The JSON object ``data`` of an array.

    Args:
        data_type: ``tensor``, ``tftensor``, or else ``ndarray``.
        array: its values.
        names: names of its columns.
    """
    data: dict[str, Any] = _plain(rest.message_to_rest(_data_message(data_type, array, names))["data"])
    return data


def array_to_grpc_datadef(data_type: str, array: Any, names: Iterable[str] | None = None) -> Any:
    """The ``DefaultData`` of an array.

    Args:
        data_type: ``tensor``, ``tftensor``, or else ``ndarray``.
        array: its values.
        names: names of its columns.
    """
    return wire.message_to_proto(_data_message(data_type, array, names)).data


def array_to_list_value(array: Any, lv: Any = None) -> Any:
    """The nested ``ListValue`` of an array, added to ``lv`` where one is given."""
    values = ListValue() if lv is None else lv
    values.extend(_plain(np.asarray(array).tolist()))
    return values


def make_tensor_proto(array: Any) -> Any:
    """The ``TensorProto`` of an array, without TensorFlow."""
    return tftensor.to_proto(np.asarray(array))


def _data_message(data_type: str, array: Any, names: Iterable[str] | None) -> Message:
    labels = [str(name) for name in (() if names is None else names)]
    return Message("data", np.asarray(array), labels, _ENCODINGS.get(data_type, "ndarray"))


def _plain(value: Any) -> Any:
    return jsoncodec.loads(jsoncodec.dumps(value))


# -- parts of requests -------------------------------------------------------------------------------------------------


def extract_request_parts(request: Any) -> tuple[Any, dict[str, Any], Any, str]:
    """The payload of a ``SeldonMessage``, its meta, its ``DefaultData``, and which payload it is.

    Raises:
        SeldonMicroserviceException: it has no payload, or it is malformed (400).
    """
    return get_data_from_proto(request), get_meta_from_proto(request), request.data, request.WhichOneof("data_oneof")


def extract_request_parts_json(request: Any) -> tuple[Any, Any, Any, str]:
    """The payload of a message as JSON object, its meta, its ``data``, and which payload it is.

    Meta and data are None where it has none.

    Raises:
        SeldonMicroserviceException: it has no payload, or it is malformed (400).
    """
    message = rest.message_from_rest(request)
    return message.value, request.get("meta"), request.get("data"), str(message.kind)


def extract_feedback_request_parts(request: Any) -> tuple[Any, Any, Any, float]:
    """The request's ``DefaultData`` of a ``Feedback``, its payload, the truth, and the reward.

    Raises:
        SeldonMicroserviceException: it is malformed (400).
    """
    feedback = wire.feedback_from_proto(request)
    return request.request.data, _or_empty(feedback.request), _or_empty(feedback.truth), feedback.reward


def _or_empty(message: Message) -> Any:
    return np.array([]) if message.kind is None else message.value


# -- answers -----------------------------------------------------------------------------------------------------------


def construct_response_json(
    user_model: Any,
    is_request: bool,
    client_request_raw: Any,
    client_raw_response: Any,
    meta: Mapping[str, Any] | None = None,
    custom_metrics: list[dict[str, Any]] | None = None,
    runtime_tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The message that a result becomes, as JSON object.

    Args:
        user_model: the component, for its tags and names.
        is_request: whether it goes on as a request, whose columns have the component's ``feature_names``.
        client_request_raw: the request that it answers, as JSON object.
        client_raw_response: the result.
        meta: the meta to go on from; None for a new one.
        custom_metrics: shown in its meta.
        runtime_tags: win over those of the component.
    """
    request = rest.message_from_rest(client_request_raw)
    message = _answered(user_model, is_request, request, client_raw_response, "rest")
    _add_meta(message, user_model, meta, custom_metrics, runtime_tags, request.meta.puid)
    body: dict[str, Any] = _plain(rest.message_to_rest(message))
    return body


def construct_response(
    user_model: Any,
    is_request: bool,
    client_request: Any,
    client_raw_response: Any,
    meta: Mapping[str, Any] | None = None,
    custom_metrics: list[dict[str, Any]] | None = None,
    runtime_tags: Mapping[str, Any] | None = None,
) -> Any:
    """The message that a result becomes, as ``SeldonMessage``; arguments as for `construct_response_json`."""
    request = wire.message_from_proto(client_request)
    message = _answered(user_model, is_request, request, client_raw_response, "grpc")
    _add_meta(message, user_model, meta, custom_metrics, runtime_tags, request.meta.puid)
    return wire.message_to_proto(message)


def _answered(user_model: Any, is_request: bool, request: Message, result: Any, transport: Any) -> Message:
    name = "client_feature_names" if is_request else "client_class_names"
    names = getattr(helpers, name)(user_model, request.names if is_request else result)
    return answer(result, request, rest.meta_from_rest({}), names, transport)


def _add_meta(
    message: Message,
    user_model: Any,
    meta: Mapping[str, Any] | None,
    metrics: list[dict[str, Any]] | None,
    tags: Mapping[str, Any] | None,
    puid: str,
) -> None:
    given = rest.meta_from_rest(dict(meta or {}))
    message.meta = given
    given.routing = {}
    given.puid = given.puid or puid
    given.tags.update({**helpers.client_custom_tags(user_model), **(tags or {})})
    given.metrics.extend(metrics or [])
    given.request_path = {**get_request_path(), **given.request_path}


def get_request_path() -> dict[str, str]:
    """This node and its image; empty where the deployment gives it no name."""
    name = get_model_name("")
    return {name: get_image_name()} if name else {}


# -- the environment ---------------------------------------------------------------------------------------------------


def getenv(*env_vars: str, default: Any = None) -> Any:
    """The value of the first of these environment variables that is set."""
    env = environment()
    return next((env[name] for name in env_vars if name in env), default)


def getenv_as_bool(*env_vars: str, default: bool = False) -> bool:
    """Whether the first of these environment variables that is set is ``1``, ``true`` or ``t`` in any case."""
    value = getenv(*env_vars)
    return default if value is None else str(value).lower() in _TRUE


# With what modules that import everything from here are used to find.
__all__ = [
    "ENV_MODEL_IMAGE",
    "ENV_MODEL_NAME",
    "NONIMPLEMENTED_IMAGE_MSG",
    "NONIMPLEMENTED_MSG",
    "Dict",
    "Iterable",
    "List",
    "ListValue",
    "MessageToDict",
    "Optional",
    "ParseDict",
    "SeldonComponent",
    "SeldonMicroserviceException",
    "Tuple",
    "Union",
    "any_pb2",
    "array_to_grpc_datadef",
    "array_to_list_value",
    "array_to_rest_datadef",
    "base64",
    "client_class_names",
    "client_custom_tags",
    "client_feature_names",
    "construct_response",
    "construct_response_json",
    "extract_feedback_request_parts",
    "extract_request_parts",
    "extract_request_parts_json",
    "feedback_to_json",
    "get_data_from_proto",
    "get_meta_from_proto",
    "get_request",
    "get_request_path",
    "getenv",
    "getenv_as_bool",
    "grpc_datadef_to_array",
    "json",
    "json_format",
    "json_to_feedback",
    "json_to_seldonMessage",
    "json_to_seldon_message",
    "json_to_seldon_messages",
    "json_to_seldon_model_metadata",
    "logger",
    "logging",
    "make_tensor_proto",
    "np",
    "os",
    "prediction_pb2",
    "rest_datadef_to_array",
    "seldonMessage_to_json",
    "seldon_message_to_json",
    "seldon_messages_to_json",
    "sys",
]
