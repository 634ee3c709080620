"""The frozen values of messages: how each field is spelled in Python, and converted both ways."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, replace

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor

from device_api_codegen.names import snake

Comments = Mapping[str, str]
"""The comment before each element, by its full name."""

SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: ("int", "0"),
    FieldDescriptor.CPPTYPE_INT64: ("int", "0"),
    FieldDescriptor.CPPTYPE_UINT32: ("int", "0"),
    FieldDescriptor.CPPTYPE_UINT64: ("int", "0"),
    FieldDescriptor.CPPTYPE_DOUBLE: ("float", "0.0"),
    FieldDescriptor.CPPTYPE_FLOAT: ("float", "0.0"),
    FieldDescriptor.CPPTYPE_BOOL: ("bool", "False"),
    FieldDescriptor.CPPTYPE_STRING: ("str", '""'),
}
"""Type and default by protobuf's type."""

SHARED = {
    "nvidia.device.v1alpha1.Condition": ("Condition", "condition_from_proto", "condition_to_proto"),
    "nvidia.device.v1alpha1.ObjectMeta": ("ObjectMeta", "meta_from_proto", "meta_to_proto"),
    "google.protobuf.Timestamp": ("int", "nanoseconds", "timestamp"),
}
"""Messages whose values are written by hand: type, and the functions that convert."""


RESERVED = frozenset({"Condition", "ConditionStatus", "Device", "Object", "ObjectMeta", "Shared"})
"""Names that would hide those of the code that is generated or that it stands on."""


class PatternError(Exception):
    """A .proto from which no client can be made; says which element, and why."""


@dataclass(frozen=True)
class Field:
    """A field: annotation, default, and the expressions that read it from ``message`` and from
    ``value``. An empty default means that it has to be given."""

    name: str
    type: str
    default: str
    comment: str
    from_proto: str
    to_proto: str


@dataclass(frozen=True)
class Value:
    """A message that becomes a frozen dataclass."""

    name: str
    comment: str
    fields: tuple[Field, ...]

    @property
    def function(self) -> str:
        """What the names of its two conversions begin with."""
        return snake(self.name)


def values_of(object_: Descriptor, comments: Comments) -> tuple[Value, ...]:
    """The values below an object and, last, its own."""
    _check_name(object_)
    found: dict[str, Value] = {}
    fields = []
    for part in (object_.fields_by_name["spec"], object_.fields_by_name["status"]):
        _collect(part, object_, comments, found)
        fields.append(_whole(field_of(part, comments)))
    meta = field_of(object_.fields_by_name["metadata"], comments)
    version = ", message.resource_version" if "resource_version" in object_.fields_by_name else ""
    meta = replace(
        meta,
        type="ObjectMeta",
        default="",
        from_proto=f"meta_from_proto(message.metadata{version})",
        to_proto="meta_to_proto(value.metadata)",
    )
    own = Value(object_.name, comments.get(object_.full_name, ""), (meta, *fields))
    return (*found.values(), own)


def field_of(field: FieldDescriptor, comments: Comments) -> Field:
    """One field as the templates need it."""
    if keyword.iskeyword(field.name):
        raise PatternError(f"{field.full_name}: is a word of Python")
    if field.containing_oneof is not None and not _is_optional(field.containing_oneof, field.name):
        raise PatternError(f"{field.full_name}: a oneof has no value here: use optional fields")
    type_, default, from_proto, to_proto = _element(field)
    read, write = f"message.{field.name}", f"value.{field.name}"
    if field.is_repeated:
        type_, default = f"tuple[{type_}, ...]", "()"
        read = f"tuple({from_proto}(each) for each in {read})" if from_proto else f"tuple({read})"
        write = f"[{to_proto}(each) for each in {write}]" if to_proto else write
    elif field.has_presence:
        type_, default = f"{type_} | None", "None"
        present = f"{from_proto}({read})" if from_proto else read
        read = f'{present} if message.HasField("{field.name}") else None'
        write = f"{to_proto}({write}) if {write} is not None else None" if to_proto else write
    return Field(field.name, type_, default, comments.get(field.full_name, ""), read, write)


def _element(field: FieldDescriptor) -> tuple[str, str, str, str]:
    message = field.message_type
    if message is None:
        return (*_scalar(field), "", "")
    if message.GetOptions().map_entry:
        raise PatternError(f"{field.full_name}: a map has no frozen value: use a repeated message")
    if message.full_name in SHARED:
        type_, from_proto, to_proto = SHARED[message.full_name]
        return type_, "", from_proto, to_proto
    function = snake(message.name)
    return message.name, "", f"{function}_from_proto", f"{function}_to_proto"


def _scalar(field: FieldDescriptor) -> tuple[str, str]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "bytes", 'b""'
    if field.cpp_type not in SCALARS:
        raise PatternError(
            f"{field.full_name}: an enum has no value here: use a string, so that old clients can "
            "read new words"
        )
    return SCALARS[field.cpp_type]


def _whole(field: Field) -> Field:
    """Spec and status are always there: empty rather than absent."""
    name = field.type.removesuffix(" | None")
    function = snake(name)
    return replace(
        field,
        type=name,
        default=f"field(default_factory={name})",
        from_proto=f"{function}_from_proto(message.{field.name})",
        to_proto=f"{function}_to_proto(value.{field.name})",
    )


def _collect(
    field: FieldDescriptor, object_: Descriptor, comments: Comments, found: dict[str, Value]
) -> None:
    message = field.message_type
    if message is None or message.full_name in SHARED or message.name in found:
        return
    if message.file.name != object_.file.name or message.containing_type is not None:
        raise PatternError(
            f"{field.full_name}: {message.full_name} must stand in {object_.file.name}, outside of "
            "other messages"
        )
    _check_name(message)
    fields = tuple(field_of(each, comments) for each in message.fields)
    # Taken before its parts, so that a message that contains itself comes to an end.
    found[message.name] = Value(message.name, comments.get(message.full_name, ""), fields)
    for each in message.fields:
        _collect(each, object_, comments, found)


def _check_name(message: Descriptor) -> None:
    if message.name in RESERVED or keyword.iskeyword(message.name):
        raise PatternError(f"{message.full_name}: the name {message.name} is taken")


def _is_optional(oneof: OneofDescriptor, field: str) -> bool:
    """Whether it is the one that stands for an optional field."""
    return len(oneof.fields) == 1 and oneof.name == f"_{field}"
