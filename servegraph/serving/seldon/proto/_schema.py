"""How a ``.proto`` file is written in Python: a few functions that give parts of a ``FileDescriptorProto``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool

_Field: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    number: int
    type: str
    """A scalar's name, or the full name of a message with a leading dot."""
    repeated: bool = False
    packed: bool = False
    """Whether the file says ``[packed = true]``; proto3 packs numbers anyway."""
    is_enum: bool = False
    in_oneof: bool = False
    map_key: str | None = None
    """Of a map, the type of its keys; ``type`` is that of its values."""

    def add_to(self, message: Any, full_name: str) -> None:
        """Put the field, and the entry type that a map needs, into the description of its message."""
        added = message.field.add(name=self.name, number=self.number)
        added.label = _Field.LABEL_REPEATED if self.repeated or self.map_key else _Field.LABEL_OPTIONAL
        if self.map_key is not None:
            entry = message.nested_type.add(name=f"{self.name[0].upper()}{self.name[1:]}Entry")
            Field("key", 1, self.map_key).add_to(entry, "")
            Field("value", 2, self.type).add_to(entry, "")
            entry.options.map_entry = True
            added.type, added.type_name = _Field.TYPE_MESSAGE, f".{full_name}.{entry.name}"
        elif self.type in _SCALARS:
            added.type = _SCALARS[self.type]
        else:
            added.type = _Field.TYPE_ENUM if self.is_enum else _Field.TYPE_MESSAGE
            added.type_name = self.type
        if self.packed:
            added.options.packed = True
        if self.in_oneof:
            added.oneof_index = 0


class File:
    """A ``.proto`` file while it is being described."""

    def __init__(
        self, name: str, package: str, imports: Sequence[str] = (), options: Mapping[str, str] | None = None
    ) -> None:
        self.description = descriptor_pb2.FileDescriptorProto(
            name=name, package=package, dependency=imports, syntax="proto3"
        )
        for option, value in (options or {}).items():
            setattr(self.description.options, option, value)

    def message(self, name: str, *fields: Field, oneof: str | None = None, inside: Any = None) -> Any:
        """The description of a new message; ``inside`` is that of the message that it belongs to."""
        package = self.description.package
        owner = self.description.message_type if inside is None else inside.nested_type
        full_name = f"{package}.{name}" if inside is None else f"{package}.{inside.name}.{name}"
        added = owner.add(name=name)
        if oneof is not None:
            added.oneof_decl.add(name=oneof)
        for field in fields:
            field.add_to(added, full_name)
        return added

    def enum(self, name: str, values: Mapping[str, int], inside: Any = None) -> None:
        """Add an enum, in a message where one is given."""
        added = (self.description if inside is None else inside).enum_type.add(name=name)
        for value, number in values.items():
            added.value.add(name=value, number=number)

    def service(self, name: str, methods: Mapping[str, tuple[str, str]]) -> None:
        """Add a service; for each method the full names of its request and its response."""
        added = self.description.service.add(name=name)
        for method, (request, response) in methods.items():
            # Generated descriptions have empty options for each method, and equal files may be registered twice.
            added.method.add(name=method, input_type=f".{request}", output_type=f".{response}").options.SetInParent()

    def serialized(self) -> bytes:
        """The description as protobuf's pools take it."""
        return bytes(self.description.SerializeToString())


def is_known(file_name: str) -> bool:
    """Whether the default pool has a file already."""
    try:
        descriptor_pool.Default().FindFileByName(file_name)
    except KeyError:
        return False
    return True


def register(serialized: bytes) -> None:
    """Add a file to the default pool; whatever it imports must be there."""
    descriptor_pool.Default().AddSerializedFile(serialized)
