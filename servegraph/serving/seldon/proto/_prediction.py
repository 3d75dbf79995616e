"""The description of ``prediction.proto``: Seldon's messages and services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from servegraph.serving.seldon.proto._schema import Field, File
from servegraph.serving.seldon.proto._tensorflow import TENSOR_FILE

FILE_NAME: Final = "proto/prediction.proto"
PACKAGE: Final = "seldon.protos"

_EMPTY: Final = "google.protobuf.Empty"
_MESSAGE: Final = f"{PACKAGE}.SeldonMessage"
_ONE: Final = (_MESSAGE, _MESSAGE)
_SEVERAL: Final = (f"{PACKAGE}.SeldonMessageList", _MESSAGE)
_FEEDBACK: Final = (f"{PACKAGE}.Feedback", _MESSAGE)
_METADATA: Final = f"{PACKAGE}.SeldonModelMetadata"

METHODS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Generic": {
        "TransformInput": _ONE,
        "TransformOutput": _ONE,
        "Route": _ONE,
        "Aggregate": _SEVERAL,
        "SendFeedback": _FEEDBACK,
    },
    "Model": {"Predict": _ONE, "SendFeedback": _FEEDBACK, "Metadata": (_EMPTY, _METADATA)},
    "Router": {"Route": _ONE, "SendFeedback": _FEEDBACK},
    "Transformer": {"TransformInput": _ONE},
    "OutputTransformer": {"TransformOutput": _ONE},
    "Combiner": {"Aggregate": _SEVERAL},
    "Seldon": {
        "Predict": _ONE,
        "SendFeedback": _FEEDBACK,
        "ModelMetadata": (f"{PACKAGE}.SeldonModelMetadataRequest", _METADATA),
        "GraphMetadata": (_EMPTY, f"{PACKAGE}.SeldonGraphMetadata"),
    },
}
"""For each service its methods, with the full names of what they take and give."""


def described() -> File:
    """The file, equal to the one that Seldon's own packages register: both can be loaded in one process."""
    file = File(
        FILE_NAME,
        PACKAGE,
        [
            "google/protobuf/any.proto",
            "google/protobuf/struct.proto",
            "google/protobuf/empty.proto",
            TENSOR_FILE,
        ],
        {
            "java_package": "io.seldon.protos",
            "java_outer_classname": "PredictionProtos",
            "go_package": "github.com/seldonio/seldon-core/incubating/wrappers/s2i/go/pkg/api",
        },
    )
    _payload(file)
    _meta(file)
    _envelopes(file)
    _metadata(file)
    for name, methods in METHODS.items():
        file.service(name, methods)
    return file


def _payload(file: File) -> None:
    file.message(
        "SeldonMessage",
        Field("status", 1, f".{PACKAGE}.Status"),
        Field("meta", 2, f".{PACKAGE}.Meta"),
        Field("data", 3, f".{PACKAGE}.DefaultData", in_oneof=True),
        Field("binData", 4, "bytes", in_oneof=True),
        Field("strData", 5, "string", in_oneof=True),
        Field("jsonData", 6, ".google.protobuf.Value", in_oneof=True),
        Field("customData", 7, ".google.protobuf.Any", in_oneof=True),
        oneof="data_oneof",
    )
    file.message(
        "DefaultData",
        Field("names", 1, "string", repeated=True),
        Field("tensor", 2, f".{PACKAGE}.Tensor", in_oneof=True),
        Field("ndarray", 3, ".google.protobuf.ListValue", in_oneof=True),
        Field("tftensor", 4, ".tensorflow.TensorProto", in_oneof=True),
        oneof="data_oneof",
    )
    file.message(
        "Tensor",
        Field("shape", 1, "int32", repeated=True, packed=True),
        Field("values", 2, "double", repeated=True, packed=True),
    )


def _meta(file: File) -> None:
    file.message(
        "Meta",
        Field("puid", 1, "string"),
        Field("tags", 2, ".google.protobuf.Value", map_key="string"),
        Field("routing", 3, "int32", map_key="string"),
        Field("requestPath", 4, "string", map_key="string"),
        Field("metrics", 5, f".{PACKAGE}.Metric", repeated=True),
    )
    metric = file.message(
        "Metric",
        Field("key", 1, "string"),
        Field("type", 2, f".{PACKAGE}.Metric.MetricType", is_enum=True),
        Field("value", 3, "float"),
        Field("tags", 4, "string", map_key="string"),
    )
    file.enum("MetricType", {"COUNTER": 0, "GAUGE": 1, "TIMER": 2}, metric)


def _envelopes(file: File) -> None:
    message = f".{_MESSAGE}"
    file.message("SeldonMessageList", Field("seldonMessages", 1, message, repeated=True))
    status = file.message(
        "Status",
        Field("code", 1, "int32"),
        Field("info", 2, "string"),
        Field("reason", 3, "string"),
        Field("status", 4, f".{PACKAGE}.Status.StatusFlag", is_enum=True),
    )
    file.enum("StatusFlag", {"SUCCESS": 0, "FAILURE": 1}, status)
    file.message(
        "Feedback",
        Field("request", 1, message),
        Field("response", 2, message),
        Field("reward", 3, "float"),
        Field("truth", 4, message),
    )
    file.message("RequestResponse", Field("request", 1, message), Field("response", 2, message))


def _metadata(file: File) -> None:
    described = f".{PACKAGE}.SeldonMessageMetadata"
    file.message("SeldonModelMetadataRequest", Field("name", 1, "string"))
    file.message(
        "SeldonMessageMetadata",
        Field("messagetype", 1, "string"),
        Field("schema", 2, ".google.protobuf.Value"),
        Field("name", 3, "string"),
        Field("datatype", 4, "string"),
        Field("shape", 5, "int64", repeated=True),
    )
    file.message(
        "SeldonModelMetadata",
        Field("name", 1, "string"),
        Field("versions", 2, "string", repeated=True),
        Field("platform", 3, "string"),
        Field("inputs", 4, described, repeated=True),
        Field("outputs", 5, described, repeated=True),
        Field("custom", 6, "string", map_key="string"),
    )
    file.message(
        "SeldonGraphMetadata",
        Field("name", 1, "string"),
        Field("models", 2, f".{_METADATA}", map_key="string"),
        Field("inputs", 3, described, repeated=True),
        Field("outputs", 4, described, repeated=True),
    )
