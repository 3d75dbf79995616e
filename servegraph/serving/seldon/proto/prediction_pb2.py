"""Seldon's messages as protobuf classes, as a generated ``prediction_pb2`` has them.

Where the pool has them already, because Seldon's own package was imported, these are the same classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

# Their files must be in the pool before the one that imports them.
from google.protobuf import any_pb2, descriptor_pool, empty_pb2, message_factory, struct_pb2

from servegraph.serving.seldon.proto import _prediction, _tensorflow
from servegraph.serving.seldon.proto._schema import register


def _file() -> Any:
    pool = descriptor_pool.Default()
    try:
        return pool.FindMessageTypeByName(f"{_prediction.PACKAGE}.SeldonMessage").file
    except KeyError:
        _tensorflow.add_to_pool()
        register(_prediction.described().serialized())
        return pool.FindFileByName(_prediction.FILE_NAME)


def _class(name: str) -> Any:
    """The class of a message; one that nobody has made before can be pickled as a member of this module."""
    made = message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name[name])
    if made.__module__ is None:
        made.__module__ = __name__
    return made


DESCRIPTOR: Final[Any] = _file()
SeldonMessage: Final = _class("SeldonMessage")
DefaultData: Final = _class("DefaultData")
Tensor: Final = _class("Tensor")
Meta: Final = _class("Meta")
Metric: Final = _class("Metric")
SeldonMessageList: Final = _class("SeldonMessageList")
Status: Final = _class("Status")
Feedback: Final = _class("Feedback")
RequestResponse: Final = _class("RequestResponse")
SeldonModelMetadataRequest: Final = _class("SeldonModelMetadataRequest")
SeldonMessageMetadata: Final = _class("SeldonMessageMetadata")
SeldonModelMetadata: Final = _class("SeldonModelMetadata")
SeldonGraphMetadata: Final = _class("SeldonGraphMetadata")

TensorProto: Final[Any] = message_factory.GetMessageClass(
    DefaultData.DESCRIPTOR.fields_by_name["tftensor"].message_type
)
"""``tensorflow.TensorProto``."""


class Method(NamedTuple):
    """What a method of a service takes and gives."""

    request: Any
    response: Any


def _message_class(full_name: str) -> Any:
    package, _, name = full_name.rpartition(".")
    return empty_pb2.Empty if package == "google.protobuf" else globals()[name]


SERVICES: Final[Mapping[str, Mapping[str, Method]]] = MappingProxyType(
    {
        f"{_prediction.PACKAGE}.{service}": MappingProxyType(
            {
                name: Method(_message_class(request), _message_class(response))
                for name, (request, response) in methods.items()
            }
        )
        for service, methods in _prediction.METHODS.items()
    }
)
"""For each service, by its full name, its methods."""

__all__ = [
    "DESCRIPTOR",
    "SERVICES",
    "DefaultData",
    "Feedback",
    "Meta",
    "Method",
    "Metric",
    "RequestResponse",
    "SeldonGraphMetadata",
    "SeldonMessage",
    "SeldonMessageList",
    "SeldonMessageMetadata",
    "SeldonModelMetadata",
    "SeldonModelMetadataRequest",
    "Status",
    "Tensor",
    "TensorProto",
    "any_pb2",
    "empty_pb2",
    "struct_pb2",
]
