"""``tensorflow.TensorProto`` in protobuf's default pool, whether TensorFlow is installed or not.

The pool holds one description for each file. Where TensorFlow is installed it must be TensorFlow's own, else a later
``import tensorflow`` fails; it is read out of the text of its generated modules, since importing TensorFlow takes
seconds and hundreds of megabytes. Elsewhere the files are described here.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from servegraph.serving.seldon.proto._schema import Field, File, is_known, register

_FOLDER: Final = "tensorflow/core/framework"
TENSOR_FILE: Final = f"{_FOLDER}/tensor.proto"

_DATA_TYPES: Final = (
    "INVALID", "FLOAT", "DOUBLE", "INT32", "UINT8", "INT16", "INT8", "STRING", "COMPLEX64", "INT64", "BOOL", "QINT8",
    "QUINT8", "QINT32", "BFLOAT16", "QINT16", "QUINT16", "UINT16", "COMPLEX128", "HALF", "RESOURCE", "VARIANT",
    "UINT32", "UINT64", "FLOAT8_E5M2", "FLOAT8_E4M3FN", "FLOAT8_E4M3FNUZ", "FLOAT8_E4M3B11FNUZ", "FLOAT8_E5M2FNUZ",
    "INT4", "UINT4", "INT2", "UINT2", "FLOAT4_E2M1FN",
)  # fmt: skip
"""Names of TensorFlow's element types; the place of each is its number."""


def add_to_pool(path: str = TENSOR_FILE) -> None:
    """Register one of TensorFlow's files, and those that it imports, where the default pool lacks them."""
    if is_known(path):
        return
    serialized = installed(path) or _FILES[path](path).serialized()
    for imported in descriptor_pb2.FileDescriptorProto.FromString(serialized).dependency:
        add_to_pool(imported)
    register(serialized)


def installed(path: str) -> bytes | None:
    """The description of a file that the installed TensorFlow has; ``None`` when it cannot be found."""
    try:
        spec = importlib.util.find_spec("tensorflow")
    except ValueError:  # something put a module of that name in its place
        return None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        module = Path(folder).parent / f"{path.removesuffix('.proto')}_pb2.py"
        if module.is_file():
            for literal in _literals(module.read_text("utf-8")):
                if _is_file(literal, path):
                    return literal
    return None


def _literals(source: str) -> Iterator[bytes]:
    """All byte strings of a module's text, whatever the generator that wrote it."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value


def _is_file(literal: bytes, path: str) -> bool:
    try:
        return bool(descriptor_pb2.FileDescriptorProto.FromString(literal).name == path)
    except DecodeError:
        return False


def _types(path: str) -> File:
    file = File(path, "tensorflow")
    file.enum("DataType", {f"DT_{name}": number for number, name in enumerate(_DATA_TYPES)})
    return file


def _tensor_shape(path: str) -> File:
    file = File(path, "tensorflow")
    shape = file.message(
        "TensorShapeProto",
        Field("dim", 2, ".tensorflow.TensorShapeProto.Dim", repeated=True),
        Field("unknown_rank", 3, "bool"),
    )
    file.message("Dim", Field("size", 1, "int64"), Field("name", 2, "string"), inside=shape)
    return file


def _resource_handle(path: str) -> File:
    file = File(path, "tensorflow", [f"{_FOLDER}/tensor_shape.proto", f"{_FOLDER}/types.proto"])
    handle = file.message(
        "ResourceHandleProto",
        Field("device", 1, "string"),
        Field("container", 2, "string"),
        Field("name", 3, "string"),
        Field("hash_code", 4, "uint64"),
        Field("maybe_type_name", 5, "string"),
        Field("dtypes_and_shapes", 6, ".tensorflow.ResourceHandleProto.DtypeAndShape", repeated=True),
    )
    file.message(
        "DtypeAndShape",
        Field("dtype", 1, ".tensorflow.DataType", is_enum=True),
        Field("shape", 2, ".tensorflow.TensorShapeProto"),
        inside=handle,
    )
    return file


def _tensor(path: str) -> File:
    imports = [f"{_FOLDER}/{name}.proto" for name in ("resource_handle", "tensor_shape", "types")]
    file = File(path, "tensorflow", imports)
    file.message(
        "TensorProto",
        Field("dtype", 1, ".tensorflow.DataType", is_enum=True),
        Field("tensor_shape", 2, ".tensorflow.TensorShapeProto"),
        Field("version_number", 3, "int32"),
        Field("tensor_content", 4, "bytes"),
        Field("half_val", 13, "int32", repeated=True, packed=True),
        Field("float_val", 5, "float", repeated=True, packed=True),
        Field("double_val", 6, "double", repeated=True, packed=True),
        Field("int_val", 7, "int32", repeated=True, packed=True),
        Field("string_val", 8, "bytes", repeated=True),
        Field("scomplex_val", 9, "float", repeated=True, packed=True),
        Field("int64_val", 10, "int64", repeated=True, packed=True),
        Field("bool_val", 11, "bool", repeated=True, packed=True),
        Field("dcomplex_val", 12, "double", repeated=True, packed=True),
        Field("resource_handle_val", 14, ".tensorflow.ResourceHandleProto", repeated=True),
        Field("variant_val", 15, ".tensorflow.VariantTensorDataProto", repeated=True),
        Field("uint32_val", 16, "uint32", repeated=True, packed=True),
        Field("uint64_val", 17, "uint64", repeated=True, packed=True),
        Field("float8_val", 18, "bytes"),
    )
    file.message(
        "VariantTensorDataProto",
        Field("type_name", 1, "string"),
        Field("metadata", 2, "bytes"),
        Field("tensors", 3, ".tensorflow.TensorProto", repeated=True),
    )
    return file


_FILES: Final[dict[str, Callable[[str], File]]] = {
    f"{_FOLDER}/types.proto": _types,
    f"{_FOLDER}/tensor_shape.proto": _tensor_shape,
    f"{_FOLDER}/resource_handle.proto": _resource_handle,
    TENSOR_FILE: _tensor,
}
