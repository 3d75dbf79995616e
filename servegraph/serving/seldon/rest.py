"""Messages of Seldon's protocol as JSON objects, in both directions.

Facts of the protocol are those of Seldon Core 1.18: which payload wins where several are given, that whole numbers
stay whole, that what comes back from feedback has passed through protobuf and so has none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from servegraph.serving.seldon.arrays import array_of, array_of_request, reshaped
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Encoding, Feedback, Message, Meta

_PAYLOADS: Final = ("data", "jsonData", "strData", "binData")
_FEEDBACK_KEYS: Final = frozenset(("request", "response", "reward", "truth"))
_LARGEST_REWARD: Final = float(np.finfo(np.float32).max)
_WHOLE: Final = re.compile(r"-?[0-9]{1,10}")
_NO_META: Final = Meta()


# -- reading -----------------------------------------------------------------------------------------------------------


def message_from_rest(body: Any) -> Message:
    """The message of a JSON object.

    Raises:
        SeldonMicroserviceException: it is none, or a part of it is malformed (400).
    """
    if body.__class__ is not dict:
        raise SeldonMicroserviceException(f"Invalid request data type: a JSON object is wanted, not {_named(body)}")
    meta = meta_from_rest(body["meta"]) if "meta" in body else Meta()
    if "data" in body:
        value, names, encoding = _data(body["data"])
        return Message("data", value, names, encoding, meta, None, body)
    if "jsonData" in body:
        return Message("jsonData", body["jsonData"], None, None, meta, None, body)
    if "strData" in body:
        return Message("strData", body["strData"], None, None, meta, None, body)
    if "binData" in body:
        return Message("binData", _decoded(body["binData"]), None, None, meta, None, body)
    found = ", ".join(sorted(map(str, body))[:8])[:200] or "nothing"
    raise SeldonMicroserviceException(
        f"Invalid request data type: the message has none of {', '.join(_PAYLOADS)}; it has {found}"
    )


def messages_from_rest(body: Any) -> list[Message]:
    """The messages of a list, or of an object with ``seldonMessages``.

    Raises:
        SeldonMicroserviceException: it is neither, it is empty, or one of them is malformed (400).
    """
    items = body.get("seldonMessages") if isinstance(body, dict) else body
    if not isinstance(items, list):
        raise SeldonMicroserviceException("Invalid request data type: a list of messages (seldonMessages) is wanted")
    if not items:
        raise SeldonMicroserviceException("seldonMessages is empty: there is nothing to aggregate")
    return [message_from_rest(item) for item in items]


def feedback_from_rest(body: Any) -> Feedback:
    """The feedback of a JSON object; its numbers are floats, as they are for every runtime of this protocol.

    Raises:
        SeldonMicroserviceException: it has unknown keys, or a part of it is malformed (400).
    """
    if not isinstance(body, dict):
        raise SeldonMicroserviceException(f"Invalid JSON: feedback is an object, not {_named(body)}")
    unknown = sorted(str(key) for key in body.keys() - _FEEDBACK_KEYS)
    if unknown:
        raise SeldonMicroserviceException(
            f"Invalid JSON: feedback has no {unknown[0][:80]!r}; it has {', '.join(sorted(_FEEDBACK_KEYS))}"
        )
    reward = body.get("reward", 0.0)
    if reward.__class__ not in (int, float) or not abs(reward) <= _LARGEST_REWARD:
        raise SeldonMicroserviceException("Invalid JSON: reward must be a number that fits into 32 bits")
    return Feedback(
        _part(body, "request"), _part(body, "response"), _part(body, "truth"), float(np.float32(reward)), body
    )


def _part(body: Mapping[str, Any], name: str) -> Message:
    """One message of a feedback; an absent one, or one without a payload, is an empty message."""
    part = body.get(name)
    if part is None:
        return Message()
    if not isinstance(part, dict):
        raise SeldonMicroserviceException(f"Invalid JSON: {name} is an object, not {_named(part)}")
    if not any(key in part for key in _PAYLOADS):
        return Message(meta=meta_from_rest(part["meta"]) if "meta" in part else Meta(), source=part)
    message = message_from_rest(part)
    if message.kind == "data" and message.value.dtype.kind in "iu":
        message.value = message.value.astype(np.float64)
    return message


def _data(data: Any) -> tuple[Any, list[str], Encoding | None]:
    if data.__class__ is not dict:
        raise SeldonMicroserviceException(
            f"data must be an object with tensor, ndarray or tftensor, not {_named(data)}"
        )
    names = data.get("names")
    if names is None:
        names = []
    elif names.__class__ is not list:
        raise SeldonMicroserviceException("data.names must be a list of names")
    if "ndarray" in data:
        values = data["ndarray"]
        if values.__class__ is not list:
            if isinstance(values, np.ndarray):  # in process, where an answer comes back as feedback
                return values.copy(), names, "ndarray"
            raise SeldonMicroserviceException(f"data.ndarray must be a list, not {_named(values)}")
        return array_of_request(values), names, "ndarray"
    if "tensor" in data:
        tensor = data["tensor"]
        if not isinstance(tensor, dict):
            raise SeldonMicroserviceException("data.tensor must be an object with shape and values")
        flat = tensor.get("values", [])
        if isinstance(flat, np.ndarray):
            flat = flat.tolist()
        return reshaped(flat, tensor.get("shape")), names, "tensor"
    if "tftensor" in data:
        from servegraph.serving.seldon.tftensor import from_json

        return from_json(data["tftensor"]), names, "tftensor"
    return np.array([]), names, None


def meta_from_rest(meta: Any) -> Meta:
    """The meta of a JSON object; what is no part of a meta is left out.

    Raises:
        SeldonMicroserviceException: it, or one of its parts, is of another type (400).
    """
    if meta.__class__ is not dict:
        raise SeldonMicroserviceException(f"meta must be an object, not {_named(meta)}")
    if not meta:
        return Meta()
    metrics = meta.get("metrics", [])
    if not isinstance(metrics, list):
        raise SeldonMicroserviceException("meta.metrics must be a list")
    routing = {node: _whole(n) for node, n in _map(meta, "routing").items()}
    path = _map(meta, "requestPath")
    if not all(isinstance(image, str) for image in path.values()):
        raise SeldonMicroserviceException("meta.requestPath must have texts")
    if not all(isinstance(metric, dict) for metric in metrics):
        raise SeldonMicroserviceException("meta.metrics must have objects")
    return Meta(_puid(meta), dict(_map(meta, "tags")), routing, dict(path), list(metrics))


def _puid(meta: Mapping[str, Any]) -> str:
    puid = meta.get("puid")
    if puid is None:
        return ""
    if isinstance(puid, str):
        return puid
    if isinstance(puid, (int, float)) and not isinstance(puid, bool):
        return str(puid)  # the protocol's text, as some clients count
    raise SeldonMicroserviceException(f"meta.puid must be text, not {_named(puid)}")


def _whole(value: Any) -> int:
    """A whole number of 32 bits as protobuf's JSON has it, which may be ``1.0`` or ``"1"`` as well."""
    number = value
    if (value.__class__ is float and value.is_integer()) or (value.__class__ is str and _WHOLE.fullmatch(value)):
        number = int(value)
    if number.__class__ is not int or not -(2**31) <= number < 2**31:
        raise SeldonMicroserviceException("meta.routing must have whole numbers of 32 bits")
    return int(number)


def _map(meta: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = meta.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SeldonMicroserviceException(f"meta.{name} must be an object")
    return value


def _decoded(text: Any) -> bytes:
    if isinstance(text, str):
        if "\n" in text:  # in lines, as MIME has it and the command of that name writes it
            text = text.replace("\r", "").replace("\n", "")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise SeldonMicroserviceException(f"binData is not base64: {exc}") from exc
    raise SeldonMicroserviceException(f"binData must be base64 text, not {_named(text)}")


def _named(value: Any) -> str:
    """What kind of JSON value something is, without its content."""
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


# -- writing -----------------------------------------------------------------------------------------------------------


def message_to_rest(message: Message) -> dict[str, Any]:
    """The JSON object of a message; arrays are left in it for the encoder.

    Raises:
        SeldonMicroserviceException: the payload is one that JSON cannot carry.
    """
    meta = message.meta.to_dict()
    kind, value = message.kind, message.value
    body: dict[str, Any]
    if kind == "data":
        body = {"data": _data_to_rest(message), "meta": meta}
    elif kind == "binData":
        body = {"binData": base64.b64encode(value).decode("ascii"), "meta": meta}
    elif kind == "jsonData":
        body = {"jsonData": value, "meta": meta}
    elif kind == "strData":
        body = {"meta": meta, "strData": value}
    elif kind == "customData":
        raise SeldonMicroserviceException("customData is for gRPC: JSON has no form for it")
    else:
        body = {"meta": meta}
    if message.status is not None:
        body["status"] = message.status
    return body


def _data_to_rest(message: Message) -> dict[str, Any]:
    value, encoding = message.value, message.encoding
    if encoding == "tensor":
        array = value if isinstance(value, np.ndarray) else array_of(value)
        return {"names": message.names, "tensor": {"shape": list(array.shape), "values": array.ravel()}}
    if encoding == "tftensor":
        from servegraph.serving.seldon.tftensor import to_json

        return {"names": message.names, "tftensor": to_json(np.asarray(value))}
    return {"names": message.names, "ndarray": value}


def messages_to_rest(messages: list[Message]) -> dict[str, Any]:
    """The JSON object of several messages."""
    return {"seldonMessages": [message_to_rest(m) for m in messages]}


def feedback_to_rest(feedback: Feedback) -> dict[str, Any]:
    """The JSON object of a feedback; messages without any content are left out."""
    parts = {"request": feedback.request, "response": feedback.response, "truth": feedback.truth}
    body: dict[str, Any] = {
        name: message_to_rest(part) for name, part in parts.items() if part.kind or part.meta != _NO_META
    }
    body["reward"] = feedback.reward
    return body


def feedback_answer_to_rest(message: Message) -> dict[str, Any]:
    """The JSON object of the answer to a feedback, as protobuf's JSON writes it: floats only, defaults left out."""
    body = message_to_rest(message)
    data = body.get("data")
    if data is not None:
        if not data["names"]:
            del data["names"]
        if "ndarray" in data:
            data["ndarray"] = _floats(data["ndarray"])
        elif "tensor" in data and data["tensor"]["values"].size:
            data["tensor"]["values"] = data["tensor"]["values"].astype(np.float64)
        elif "tensor" in data:
            del data["tensor"]["values"]
    if "jsonData" in body:
        body["jsonData"] = _floats(body["jsonData"])
    meta = body["meta"]
    if "tags" in meta:
        meta["tags"] = _floats(meta["tags"])
    if "metrics" in meta:
        meta["metrics"] = [_metric(m) for m in meta["metrics"]]
    return body


def _metric(metric: dict[str, Any]) -> dict[str, Any]:
    out = {**metric, "value": _floats(metric.get("value", 0.0))}
    if out.get("type") == "COUNTER":
        del out["type"]
    return out


def _floats(value: Any) -> Any:
    """A value with every number in it as a float."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64) if value.dtype.kind in "iu" else value
    if isinstance(value, dict):
        return {k: _floats(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return float(value)
    return value
