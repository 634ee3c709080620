"""Messages of gpu.proto and the values of :mod:`device_api_core.resources`, both ways."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from device_api_core._proto import gpu_pb2 as pb
from device_api_core.resources import (
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)

_STATUSES = {str(status): status for status in ConditionStatus}
_NANOSECONDS = 1_000_000_000


def gpu_from_proto(message: pb.Gpu) -> Gpu:
    """A GPU as the server sent it."""
    return Gpu(
        ObjectMeta(
            name=message.metadata.name,
            resource_version=message.resource_version
            or parse_version(message.metadata.resource_version),
            namespace=message.metadata.namespace,
        ),
        spec_from_proto(message.spec),
        status_from_proto(message.status),
    )


def gpu_to_proto(gpu: Gpu) -> pb.Gpu:
    """The message of a GPU, with its version in both places."""
    version = gpu.metadata.resource_version
    return pb.Gpu(
        metadata=pb.ObjectMeta(
            name=gpu.name,
            resource_version=str(version) if version else "",
            namespace=gpu.metadata.namespace,
        ),
        spec=spec_to_proto(gpu.spec),
        status=status_to_proto(gpu.status),
        resource_version=version,
    )


def spec_from_proto(message: pb.GpuSpec) -> GpuSpec:
    """What a GPU is."""
    return GpuSpec(
        uuid=message.uuid,
        index=message.index if message.HasField("index") else None,
        minor=message.minor if message.HasField("minor") else None,
        pci_bus_id=message.pci_bus_id,
        product_name=message.product_name,
        architecture=message.architecture,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        serial=message.serial,
        mig_mode=message.mig_mode,
    )


def spec_to_proto(spec: GpuSpec) -> pb.GpuSpec:
    """The message of what a GPU is; ``None`` stays absent."""
    return pb.GpuSpec(
        uuid=spec.uuid,
        index=spec.index,
        minor=spec.minor,
        pci_bus_id=spec.pci_bus_id,
        product_name=spec.product_name,
        architecture=spec.architecture,
        memory_bytes=spec.memory_bytes,
        serial=spec.serial,
        mig_mode=spec.mig_mode,
    )


def status_from_proto(message: pb.GpuStatus) -> GpuStatus:
    """How a GPU is."""
    return GpuStatus(
        tuple(condition_from_proto(condition) for condition in message.conditions),
        message.recommended_action,
    )


def status_to_proto(status: GpuStatus) -> pb.GpuStatus:
    """The message of how a GPU is."""
    return pb.GpuStatus(
        conditions=[condition_to_proto(condition) for condition in status.conditions],
        recommended_action=status.recommended_action,
    )


def condition_from_proto(message: pb.Condition) -> Condition:
    """One condition. A status that is none of the three words counts as Unknown: a client must
    neither fail on it nor take it for good."""
    return Condition(
        type=message.type,
        status=_STATUSES.get(message.status, ConditionStatus.UNKNOWN),
        reason=message.reason,
        message=message.message,
        last_transition_time=time_from_proto(message.last_transition_time)
        if message.HasField("last_transition_time")
        else None,
        provider_id=message.provider_id,
    )


def condition_to_proto(condition: Condition) -> pb.Condition:
    """The message of one condition."""
    return pb.Condition(
        type=condition.type,
        status=condition.status,
        last_transition_time=time_to_proto(condition.last_transition_time),
        reason=condition.reason,
        message=condition.message,
        provider_id=condition.provider_id,
    )


def time_from_proto(time: Timestamp) -> int:
    """Nanoseconds since the Unix epoch."""
    return time.seconds * _NANOSECONDS + time.nanos


def time_to_proto(nanoseconds: int | None) -> Timestamp | None:
    """The message of a time; ``None`` stays absent."""
    if nanoseconds is None:
        return None
    seconds, nanos = divmod(nanoseconds, _NANOSECONDS)
    return Timestamp(seconds=seconds, nanos=nanos)


def parse_version(text: str) -> int:
    """A version as a number, 0 if it is none: to clients of other servers versions are opaque."""
    return int(text) if text.isascii() and text.isdigit() else 0


def as_json(message: Message, *, defaults: bool = False) -> dict[str, Any]:
    """A message in protobuf's JSON form. ``defaults`` also shows zeros and empty texts."""
    return MessageToDict(message, always_print_fields_with_no_presence=defaults)


def gpu_as_json(gpu: Gpu) -> dict[str, Any]:
    """A GPU in the API's JSON form: lowerCamelCase, empty fields left out."""
    return as_json(gpu_to_proto(gpu))
