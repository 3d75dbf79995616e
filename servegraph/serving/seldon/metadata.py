"""What a component says of itself: put together from three places, checked, and as JSON or protobuf."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, Final

from servegraph.errors import ServegraphError, closest
from servegraph.serving.safe_yaml import read_yaml
from servegraph.serving.seldon.awaiting import waited_for
from servegraph.serving.seldon.errors import SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.identity import UnitIdentity

BAD_METADATA: Final = "MICROSERVICE_BAD_METADATA"
UNAVAILABLE: Final = "Model metadata unavailable"

ARRAY_TYPES: Final = ("tensor", "ndarray", "tftensor")
DATATYPES: Final = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
)

logger = logging.getLogger("servegraph")


class SeldonInvalidMetadataError(ServegraphError, ValueError):
    """Metadata is not of the form that clients read; the message names the place."""


class ModelMetadata:
    """The metadata of one component, or why there is none.

    Args:
        document: the whole document when it is valid.
        problem: what is wrong with it when it is not.
    """

    def __init__(self, document: dict[str, Any] | None, problem: str = "") -> None:
        self._document = document
        self.problem = problem

    @classmethod
    def of(cls, component: object, image: str = "", override: str = "") -> ModelMetadata:
        """The metadata of a component: its `init_metadata`, and over it the deployment's.

        A document that is not valid is logged and told to whoever asks for it; the component serves all the same.

        Args:
            component: the user's object.
            image: gives name and version where nothing else does (``PREDICTIVE_UNIT_IMAGE``).
            override: YAML or JSON whose fields win (``MODEL_METADATA``).
        """
        merged = {**_own(component), **_override(override)}
        try:
            return cls(validate_model_metadata(merged, image))
        except SeldonInvalidMetadataError as exc:
            logger.error("the metadata of %s is not valid: %s", type(component).__name__, exc)
            return cls(None, str(exc))

    def to_dict(self) -> dict[str, Any]:
        """The document with all of its six fields.

        Raises:
            SeldonMicroserviceException: 500, it is not valid.
        """
        if self._document is None:
            raise SeldonMicroserviceException(UNAVAILABLE, status_code=500, reason=BAD_METADATA)
        return self._document

    def to_proto(self) -> Any:
        """The document as ``SeldonModelMetadata``; an empty one when it is not valid."""
        return model_to_proto(self._document or {})


def model_to_proto(document: Mapping[str, Any]) -> Any:
    """The metadata of a model as ``SeldonModelMetadata``."""
    from servegraph.serving.seldon.proto import prediction_pb2

    return _parsed(document, prediction_pb2.SeldonModelMetadata())


def model_from_wire(data: bytes) -> dict[str, Any]:
    """The metadata of a model from the bytes of a ``SeldonModelMetadata``, with all of its fields."""
    from google.protobuf import json_format

    from servegraph.serving.seldon.proto import prediction_pb2

    found = json_format.MessageToDict(prediction_pb2.SeldonModelMetadata.FromString(data))
    for item in (*found.get("inputs", ()), *found.get("outputs", ())):
        if "shape" in item:
            item["shape"] = [int(size) for size in item["shape"]]  # 64 bits are text in JSON
    return {"name": "", "versions": [], "platform": "", "inputs": [], "outputs": [], "custom": {}, **found}


def requested_name(data: bytes) -> str:
    """The name in the bytes of a ``SeldonModelMetadataRequest``.

    Raises:
        SeldonMicroserviceException: they are none (400).
    """
    from google.protobuf.message import DecodeError

    from servegraph.serving.seldon.proto import prediction_pb2

    try:
        return str(prediction_pb2.SeldonModelMetadataRequest.FromString(data).name)
    except DecodeError as exc:
        raise SeldonMicroserviceException("the bytes are no SeldonModelMetadataRequest") from exc


def graph_to_proto(document: Mapping[str, Any]) -> Any:
    """The metadata of a whole graph as ``SeldonGraphMetadata``."""
    from servegraph.serving.seldon.proto import prediction_pb2

    fields = {"inputs": document["graphinputs"], "outputs": document["graphoutputs"]}
    fields |= {"name": document["name"], "models": document["models"]}
    return _parsed(fields, prediction_pb2.SeldonGraphMetadata())


def _parsed(document: Mapping[str, Any], message: Any) -> Any:
    from google.protobuf import json_format

    # A node that runs elsewhere may say more than the protocol has.
    return json_format.ParseDict(document, message, ignore_unknown_fields=True)


def _own(component: object) -> dict[str, Any]:
    method = getattr(component, "init_metadata", None)
    if not callable(method):
        return {}
    try:
        given = waited_for(method())
    except SeldonNotImplementedError:
        return {}
    if not isinstance(given, Mapping):
        logger.error("init_metadata of %s must give a dict, got %s", type(component).__name__, type(given).__name__)
        return {}
    return dict(given)


def _override(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        given = read_yaml(text.encode())
    except ValueError as exc:
        logger.error("MODEL_METADATA is passed over: %s", exc)
        return {}
    if not isinstance(given, dict):
        logger.error("MODEL_METADATA is passed over: it must be a mapping, got %s", type(given).__name__)
        return {}
    return given


def validate_model_metadata(data: Mapping[str, Any], image: str = "") -> dict[str, Any]:
    """Metadata with defaults for what it lacks, checked.

    Args:
        data: any of the fields name, versions, platform, inputs, outputs and custom.
        image: gives name and version where ``data`` has none.

    Raises:
        SeldonInvalidMetadataError: a field is unknown or not of its form; the message names it.
    """
    identity = UnitIdentity(image=image)
    whole = {
        "name": identity.image_name,
        "versions": [identity.image_version],
        "platform": "",
        "inputs": [],
        "outputs": [],
        "custom": {},
        **data,
    }
    _known_fields(whole, _FIELDS, "metadata")
    return {field: check(whole[field], f"metadata.{field}") for field, check in _FIELDS.items()}


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _wrong(place, "a text", value)
    return value


def _texts(value: Any, place: str) -> list[str]:
    return [_text(item, f"{place}[{i}]") for i, item in enumerate(_list(value, place))]


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(place, "a list", value)
    return list(value)


def _integers(value: Any, place: str) -> list[int]:
    items = _list(value, place)
    for i, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, Integral) or abs(int(item)) >= 2**63:
            raise _wrong(f"{place}[{i}]", "an integer of 64 bits", item)
    return [int(item) for item in items]


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(place, "a mapping", value)
    for name in value:
        if not isinstance(name, str):
            raise _wrong(place, "a mapping with texts as keys", name)
    return dict(value)


def _text_mapping(value: Any, place: str) -> dict[str, str]:
    return {name: _text(text, f"{place}.{name}") for name, text in _mapping(value, place).items()}


def _json(value: Any, place: str) -> dict[str, Any]:
    schema = _mapping(value, place)
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise SeldonInvalidMetadataError(f"{place} must be plain JSON: {exc}") from exc
    return schema


def _datatype(value: Any, place: str) -> str:
    if not isinstance(value, str) or value not in DATATYPES:
        raise SeldonInvalidMetadataError(f"{place} must be a datatype, got {value!r}; {closest(str(value), DATATYPES)}")
    return value


def _array_schema(value: Any, place: str) -> dict[str, Any]:
    return _checked(value, {"names": _texts, "shape": _integers}, place)


def _inputs(value: Any, place: str) -> list[dict[str, Any]]:
    return [_input(item, f"{place}[{i}]") for i, item in enumerate(_list(value, place))]


def _input(value: Any, place: str) -> dict[str, Any]:
    """One input or output: a payload of Seldon's protocol by its ``messagetype``, else a tensor of the V2 protocol."""
    item = _mapping(value, place)
    if "messagetype" not in item:
        return _checked(item, {"name": _text, "datatype": _datatype, "shape": _integers}, place)
    kind = _text(item["messagetype"], f"{place}.messagetype")
    if kind in ("strData", "binData"):
        return _checked(item, {"messagetype": _text}, place)
    return _checked(item, {"messagetype": _text, "schema": _array_schema if kind in ARRAY_TYPES else _json}, place)


_Check = Callable[[Any, str], Any]

_FIELDS: Final[Mapping[str, _Check]] = {
    "name": _text,
    "versions": _texts,
    "platform": _text,
    "inputs": _inputs,
    "outputs": _inputs,
    "custom": _text_mapping,
}


def _checked(value: Any, checks: Mapping[str, _Check], place: str) -> dict[str, Any]:
    item = _mapping(value, place)
    _known_fields(item, checks, place)
    return {field: checks[field](given, f"{place}.{field}") for field, given in item.items()}


def _known_fields(item: Iterable[Any], known: Mapping[str, _Check], place: str) -> None:
    for field in item:
        if field not in known:
            raise SeldonInvalidMetadataError(f"{place} has no field {field!r}; {closest(str(field), known)}")


def _wrong(place: str, wanted: str, got: Any) -> SeldonInvalidMetadataError:
    text = repr(got)
    shown = text if len(text) <= 80 else f"{text[:79]}…"
    return SeldonInvalidMetadataError(f"{place} must be {wanted}, got {shown}")
