"""Messages of gpu.proto and the values of :mod:`device_api_core.resources`, both ways."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from device_api_core import codec
from device_api_core._proto import gpu_pb2 as pb
from device_api_core.resources import (
    Condition,
    ConditionStatus,
    Gpu,
    GpuStatus,
    ObjectMeta,
)

_STATUSES = {str(status): status for status in ConditionStatus}


def gpu_from_proto(message: pb.Gpu) -> Gpu:
    """A GPU as the server sent it."""
    return Gpu(
        ObjectMeta(
            name=message.metadata.name,
            resource_version=message.resource_version
            or parse_version(message.metadata.resource_version),
            namespace=message.metadata.namespace,
        ),
        codec.decode_spec(message.spec),
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
        spec=codec.spec_message(gpu.spec),
        status=status_to_proto(gpu.status),
        resource_version=version,
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
        conditions=[codec.condition_message(condition) for condition in status.conditions],
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
        last_transition_time=codec.nanoseconds(message.last_transition_time)
        if message.HasField("last_transition_time")
        else None,
        provider_id=message.provider_id,
    )


def parse_version(text: str) -> int:
    """A version as a number, 0 if it is none: to clients of other servers versions are opaque."""
    return int(text) if text.isascii() and text.isdigit() else 0


def as_json(message: Message, *, defaults: bool = False) -> dict[str, Any]:
    """A message in protobuf's JSON form. ``defaults`` also shows zeros and empty texts."""
    return MessageToDict(message, always_print_fields_with_no_presence=defaults)


def gpu_as_json(gpu: Gpu) -> dict[str, Any]:
    """A GPU in the API's JSON form: lowerCamelCase, empty fields left out."""
    return as_json(gpu_to_proto(gpu))
