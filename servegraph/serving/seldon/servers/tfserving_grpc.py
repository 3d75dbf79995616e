"""TensorFlow Serving's prediction service over gRPC, without TensorFlow.

The messages are described here, in a pool of their own: the real packages may be in the same process.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any, Final

from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException

PREDICT_REQUEST: Final = "tensorflow.serving.PredictRequest"
PREDICT_RESPONSE: Final = "tensorflow.serving.PredictResponse"
METHOD: Final = "/tensorflow.serving.PredictionService/Predict"

# TensorFlow's DataType -> numpy's type, and the field of a TensorProto that holds such values one by one.
_TYPES: Final = {
    1: ("float32", "float_val"), 2: ("float64", "double_val"), 3: ("int32", "int_val"), 4: ("uint8", "int_val"),
    5: ("int16", "int_val"), 6: ("int8", "int_val"), 7: ("object", "string_val"), 9: ("int64", "int64_val"),
    10: ("bool", "bool_val"), 17: ("uint16", "int_val"), 22: ("uint32", "uint32_val"), 23: ("uint64", "uint64_val"),
}  # fmt: skip
_STRING: Final = 7
_CODES: Final = {name: code for code, (name, _) in _TYPES.items()}
_CALLERS_FAULT: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION"})
_UNLIMITED: Final = -1

# Message -> its fields: name, number, type; ``*`` is repeated, a capital letter the message of that name.
_MESSAGES: Final[Mapping[str, tuple[tuple[str, int, str], ...]]] = {
    "tensorflow.TensorShapeProto": (("dim", 2, "*tensorflow.TensorShapeProto.Dim"), ("unknown_rank", 3, "bool")),
    "tensorflow.TensorShapeProto.Dim": (("size", 1, "int64"), ("name", 2, "string")),
    "tensorflow.TensorProto": (
        ("dtype", 1, "int32"), ("tensor_shape", 2, "tensorflow.TensorShapeProto"), ("version_number", 3, "int32"),
        ("tensor_content", 4, "bytes"), ("float_val", 5, "*float"), ("double_val", 6, "*double"),
        ("int_val", 7, "*int32"), ("string_val", 8, "*bytes"), ("int64_val", 10, "*int64"), ("bool_val", 11, "*bool"),
        ("uint32_val", 16, "*uint32"), ("uint64_val", 17, "*uint64"),
    ),
    "tensorflow.serving.Version": (("value", 1, "int64"),),
    "tensorflow.serving.ModelSpec": (
        ("name", 1, "string"), ("version", 2, "tensorflow.serving.Version"), ("signature_name", 3, "string"),
    ),
    # A map is a list of entries on the wire.
    "tensorflow.serving.NamedTensor": (("key", 1, "string"), ("value", 2, "tensorflow.TensorProto")),
    PREDICT_REQUEST: (
        ("model_spec", 1, "tensorflow.serving.ModelSpec"), ("inputs", 2, "*tensorflow.serving.NamedTensor"),
        ("output_filter", 3, "*string"),
    ),
    PREDICT_RESPONSE: (
        ("outputs", 1, "*tensorflow.serving.NamedTensor"), ("model_spec", 2, "tensorflow.serving.ModelSpec"),
    ),
}  # fmt: skip


class PredictService:
    """A server's prediction service.

    Args:
        endpoint: its address, ``host:port``.
        timeout_s: seconds for one call.
    """

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        self.endpoint = endpoint.rpartition("://")[2].rstrip("/")
        self.timeout_s = timeout_s
        self._channel: Any = None
        self._method: Any = None
        self._opening = threading.Lock()

    def predict(self, model: str, signature: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The model's outputs by name, for arrays by name.

        Raises:
            SeldonMicroserviceException: an array cannot be sent, or as `call`.
        """
        answer = message_class(PREDICT_RESPONSE).FromString(self.call(encode_request(model, signature, inputs)))
        return {each.key: tensor_to_array(each.value) for each in answer.outputs}

    def call(self, request: bytes) -> bytes:
        """The bytes of the answer to the bytes of a request.

        Raises:
            SeldonMicroserviceException: with the status 400 when the server blames the request, 504 when it takes too
                long, else 502.
        """
        grpc = import_extra("grpc", feature="calling TensorFlow Serving over gRPC", extra="grpc")
        try:
            answer: bytes = self._open()(request, timeout=self.timeout_s)
        except grpc.RpcError as exc:
            code, where = exc.code().name, f"the model server at {self.endpoint}"
            info = f"{where} answered {code}: {exc.details()}"
            if code in _CALLERS_FAULT:
                raise SeldonMicroserviceException(info) from exc
            status = 504 if code == "DEADLINE_EXCEEDED" else 502
            raise SeldonMicroserviceException(info, status, reason=INTERNAL) from exc
        return answer

    def close(self) -> None:
        """Give up its connection; the next call opens a new one."""
        with self._opening:
            if self._channel is not None:
                self._channel.close()
            self._channel = self._method = None

    def _open(self) -> Any:
        # Made by the first call: gRPC does not outlive a fork.
        with self._opening:
            if self._method is None:
                grpc = import_extra("grpc", feature="calling TensorFlow Serving over gRPC", extra="grpc")
                options = [
                    ("grpc.max_send_message_length", _UNLIMITED),
                    ("grpc.max_receive_message_length", _UNLIMITED),
                    ("grpc.enable_http_proxy", 0),
                ]
                self._channel = grpc.insecure_channel(self.endpoint, options)
                self._method = self._channel.unary_unary(METHOD)
            return self._method


def encode_request(model: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """The bytes of a ``PredictRequest``.

    Raises:
        SeldonMicroserviceException: an array is of a type that TensorFlow has none for.
    """
    request = message_class(PREDICT_REQUEST)()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs.add(key=name, value=array_to_tensor(array))
    encoded: bytes = request.SerializeToString()
    return encoded


def array_to_tensor(array: Any) -> Any:
    """A ``TensorProto`` with the content of an array.

    Raises:
        SeldonMicroserviceException: it is of a type that TensorFlow has none for.
    """
    tensor = message_class("tensorflow.TensorProto")()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OUS":
        tensor.dtype = _STRING
        tensor.string_val.extend(
            each if isinstance(each, bytes) else str(each).encode() for each in array.ravel().tolist()
        )
        return tensor
    code = _CODES.get(array.dtype.name)
    if code is None:
        raise SeldonMicroserviceException(f"TensorFlow Serving takes no array of {array.dtype.name}")
    tensor.dtype = code
    tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor


def tensor_to_array(tensor: Any) -> Any:
    """The array that a ``TensorProto`` holds, by its bytes or by its values.

    Raises:
        SeldonMicroserviceException: it is of a type that is not known, or has another number of values.
    """
    np = import_extra("numpy", feature="reading tensors", extra="numpy")
    if tensor.dtype not in _TYPES:
        raise SeldonMicroserviceException(f"a tensor of TensorFlow's type {tensor.dtype} cannot be read", 502)
    name, field = _TYPES[tensor.dtype]
    shape = [each.size for each in tensor.tensor_shape.dim]
    try:
        if tensor.tensor_content:
            flat = np.frombuffer(tensor.tensor_content, dtype=np.dtype(name).newbyteorder("<")).astype(name)
        else:
            values = list(getattr(tensor, field))
            flat = np.array([_text(each) for each in values] if tensor.dtype == _STRING else values, dtype=name)
            if flat.size and flat.size < np.prod(shape):  # the last value stands for all that follow
                flat = np.concatenate([flat, np.full(int(np.prod(shape)) - flat.size, flat[-1], dtype=name)])
        return flat.reshape(shape)
    except (ValueError, TypeError) as exc:
        raise SeldonMicroserviceException(f"a tensor of the model server is malformed: {exc}", 502) from exc


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")


@functools.cache
def message_class(name: str) -> Any:
    """The class of one of the messages.

    Raises:
        MissingExtraError: protobuf is not installed.
    """
    import_extra("google.protobuf", feature="calling TensorFlow Serving over gRPC", extra="grpc")
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


@functools.cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for package in ("tensorflow", "tensorflow.serving"):
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        if package == "tensorflow.serving":
            file.dependency.append("tensorflow.proto")
        for full_name, fields in _MESSAGES.items():
            path = full_name.removeprefix(f"{package}.")
            if not full_name.startswith(f"{package}.") or path.startswith("serving."):
                continue
            outer, _, inner = path.rpartition(".")
            _describe(_owner(file, outer).add(name=inner), fields)
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _owner(file: Any, outer: str) -> Any:
    """Where a message goes: into the file, or into the message that it is part of, which comes before it."""
    return next(each.nested_type for each in file.message_type if each.name == outer) if outer else file.message_type


def _describe(message: Any, fields: tuple[tuple[str, int, str], ...]) -> None:
    from google.protobuf import descriptor_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    for name, number, type_name in fields:
        label = kinds.LABEL_REPEATED if type_name.startswith("*") else kinds.LABEL_OPTIONAL
        type_name = type_name.lstrip("*")
        field = message.field.add(name=name, number=number, label=label)
        if "." in type_name:
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".{type_name}"
        else:
            field.type = getattr(kinds, f"TYPE_{type_name.upper()}")
