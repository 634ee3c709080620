"""The pattern of a kind of device, found in descriptors.

A service is a kind's if it has a method ``Watch<Kinds>``. Then all of this must hold, or
:class:`PatternError` says what does not:

* ``Get<Kind>``, whose request has ``name`` and whose response has one field, the object;
* ``List<Kinds>``, whose response has one field, a message with ``items`` and with
  ``metadata.resource_version``; the fields of its request but ``opts`` are single scalars;
* ``Watch<Kinds>``, which streams; its request has ``opts`` with ``resource_version``,
  ``allow_watch_bookmarks`` and ``send_initial_events``, its response ``type`` and ``object``;
* the object has ``metadata``, ``spec``, ``status``, may repeat its version as the number
  ``resource_version``, and has nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

from device_api_codegen.names import snake
from device_api_codegen.values import (
    SHARED,
    Comments,
    Field,
    PatternError,
    Value,
    field_of,
    values_of,
)

__all__ = ["Kind", "PatternError", "kinds_of", "unique"]

META = "nvidia.device.v1alpha1.ObjectMeta"
CONDITION = "nvidia.device.v1alpha1.Condition"


@dataclass(frozen=True)
class Kind:
    """One kind, as the templates need it."""

    name: str
    plural: str
    service: str
    package: str
    proto: str
    list_message: str
    numbered: bool
    """Whether the object has its version as a number, too."""
    conditioned: bool
    options: tuple[Field, ...]
    """What may be asked of a list."""
    values: tuple[Value, ...]
    """What stands below the object and, last, the object itself."""

    @property
    def variable(self) -> str:
        """``nv_switch`` for NvSwitch."""
        return snake(self.name)

    @property
    def module(self) -> str:
        """``nv_switches``, which is also the clientset's attribute."""
        return snake(self.plural)

    @property
    def constant(self) -> str:
        """``NV_SWITCHES``."""
        return self.module.upper()

    @property
    def messages(self) -> str:
        """The module of the messages: ``nv_switch_pb2``."""
        return self.proto.rpartition("/")[2].removesuffix(".proto") + "_pb2"


def kinds_of(file: FileDescriptor, comments: Comments) -> tuple[Kind, ...]:
    """The kinds of a file, in its order."""
    services = file.services_by_name.values()
    return tuple(
        _kind(service, watch, comments)
        for service in services
        for watch in service.methods
        if watch.name.startswith("Watch")
    )


def _kind(service: ServiceDescriptor, watch: MethodDescriptor, comments: Comments) -> Kind:
    plural = watch.name.removeprefix("Watch")
    object_ = _watched(watch)
    name = object_.name
    _differ(service, name, plural)
    _check_get(_method(service, f"Get{name}"), object_)
    list_ = _method(service, f"List{plural}")
    own, values = _object(object_, comments)
    return Kind(
        name=name,
        plural=plural,
        service=service.name,
        package=service.file.package,
        proto=service.file.name,
        list_message=_listed(list_, object_).name,
        numbered="resource_version" in own,
        conditioned=_conditioned(_message(own["status"])),
        options=_options(list_, comments),
        values=values,
    )


def _differ(service: ServiceDescriptor, name: str, plural: str) -> None:
    if name == plural:
        raise PatternError(
            f"{service.full_name}: {name} is its own plural: give the methods another"
        )


def _method(service: ServiceDescriptor, name: str) -> MethodDescriptor:
    found = service.methods_by_name.get(name)
    if found is None:
        raise PatternError(f"{service.full_name}: {name} is missing")
    if found.client_streaming or found.server_streaming:
        raise PatternError(f"{found.full_name}: must not stream")
    return found


def _check_get(get: MethodDescriptor, object_: Descriptor) -> None:
    _need(get.input_type, "name")
    _refer(_only(get.output_type), object_)


def _listed(list_: MethodDescriptor, object_: Descriptor) -> Descriptor:
    found = _message(_only(list_.output_type))
    items = _need(found, "items")
    _refer(items, object_)
    if not items.is_repeated:
        raise PatternError(f"{items.full_name}: must be repeated")
    _need(_message(_need(found, "metadata")), "resource_version")
    return found


def _watched(watch: MethodDescriptor) -> Descriptor:
    if not watch.server_streaming or watch.client_streaming:
        raise PatternError(f"{watch.full_name}: must stream its responses, and only these")
    options = _message(_need(watch.input_type, "opts"))
    for name in ("resource_version", "allow_watch_bookmarks", "send_initial_events"):
        _need(options, name)
    _need(watch.output_type, "type")
    return _message(_need(watch.output_type, "object"))


def _object(
    object_: Descriptor, comments: Comments
) -> tuple[dict[str, FieldDescriptor], tuple[Value, ...]]:
    own = {field.name: field for field in object_.fields}
    meta = _need(object_, "metadata")
    if _message(meta).full_name != META or meta.is_repeated:
        raise PatternError(f"{meta.full_name}: must be one {META}")
    for name in ("spec", "status"):
        part = _need(object_, name)
        if _message(part).full_name in SHARED or part.is_repeated:
            raise PatternError(f"{part.full_name}: must be one message of the kind's own")
    number = own.get("resource_version")
    if number is not None and number.type != FieldDescriptor.TYPE_INT64:
        raise PatternError(f"{number.full_name}: must be an int64")
    for name in own.keys() - {"metadata", "spec", "status", "resource_version"}:
        raise PatternError(f"{own[name].full_name}: belongs in spec or status")
    return own, values_of(object_, comments)


def _conditioned(status: Descriptor) -> bool:
    field = status.fields_by_name.get("conditions")
    if field is None or field.message_type is None:
        return False
    return field.is_repeated and field.message_type.full_name == CONDITION


def _options(list_: MethodDescriptor, comments: Comments) -> tuple[Field, ...]:
    fields = [field for field in list_.input_type.fields if field.name != "opts"]
    for field in fields:
        if field.is_repeated or field.message_type is not None:
            raise PatternError(f"{field.full_name}: an option of a list must be a single scalar")
        if field.name == "timeout_seconds":
            raise PatternError(f"{field.full_name}: this is what the deadline is called")
    return tuple(field_of(field, comments) for field in fields)


def _need(message: Descriptor, name: str) -> FieldDescriptor:
    found = message.fields_by_name.get(name)
    if found is None:
        raise PatternError(f"{message.full_name}: the field {name} is missing")
    return found


def _message(field: FieldDescriptor) -> Descriptor:
    if field.message_type is None:
        raise PatternError(f"{field.full_name}: must be a message")
    return field.message_type


def _only(message: Descriptor) -> FieldDescriptor:
    if len(message.fields) != 1:
        raise PatternError(f"{message.full_name}: must have exactly one field")
    return message.fields[0]


def _refer(field: FieldDescriptor, message: Descriptor) -> None:
    if field.message_type is None or field.message_type.full_name != message.full_name:
        raise PatternError(f"{field.full_name}: must be a {message.full_name}")


def unique(kinds: Iterable[Kind]) -> tuple[Kind, ...]:
    """The kinds by name. Raises :class:`PatternError` if two would generate the same."""
    kinds = tuple(sorted(kinds, key=lambda kind: (kind.name, kind.proto)))
    owners: dict[str, Kind] = {}
    for kind in kinds:
        for name in (kind.plural, *(value.name for value in kind.values)):
            owner = owners.setdefault(name, kind)
            if owner is not kind:
                raise PatternError(f"{kind.proto}: {name} is already one of {owner.proto}")
    return kinds
