"""The conversion of what all kinds share: metadata, conditions, versions and times."""

from __future__ import annotations

import re

from google.protobuf.timestamp_pb2 import Timestamp

from device_api_core._proto import gpu_pb2
from device_api_core.resources.meta import Condition, ConditionStatus, ObjectMeta

NANOS = 1_000_000_000

_VERSION = re.compile(r"[0-9]{1,19}")
_STATUSES = {status.value: status for status in ConditionStatus}


def meta_from_proto(message: gpu_pb2.ObjectMeta, version: int = 0) -> ObjectMeta:
    """Name and version. Where the object has its ``version`` as a number, too, that counts."""
    return ObjectMeta(
        name=message.name,
        resource_version=version or parse_version(message.resource_version),
        namespace=message.namespace,
    )


def meta_to_proto(meta: ObjectMeta) -> gpu_pb2.ObjectMeta:
    """The message of name and version."""
    version = str(meta.resource_version) if meta.resource_version else ""
    return gpu_pb2.ObjectMeta(name=meta.name, resource_version=version, namespace=meta.namespace)


def condition_from_proto(message: gpu_pb2.Condition) -> Condition:
    """One condition. A status that is none of the three words counts as Unknown: a client must
    neither fail on it nor take it for good."""
    return Condition(
        type=message.type,
        status=_STATUSES.get(message.status, ConditionStatus.UNKNOWN),
        reason=message.reason,
        message=message.message,
        last_transition_time=nanoseconds(message.last_transition_time)
        if message.HasField("last_transition_time")
        else None,
        provider_id=message.provider_id,
    )


def condition_to_proto(condition: Condition) -> gpu_pb2.Condition:
    """The message of one condition."""
    message = gpu_pb2.Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        provider_id=condition.provider_id,
    )
    if condition.last_transition_time is not None:
        stamp = message.last_transition_time
        stamp.seconds, stamp.nanos = divmod(condition.last_transition_time, NANOS)
    return message


def parse_version(text: str) -> int:
    """A version as a number, 0 if it is none: to clients of other servers versions are opaque."""
    return int(text) if _VERSION.fullmatch(text) else 0


def nanoseconds(stamp: Timestamp) -> int:
    """A time, in nanoseconds since the Unix epoch."""
    return stamp.seconds * NANOS + stamp.nanos


def timestamp(time: int) -> Timestamp:
    """The message of a time that is given in nanoseconds since the Unix epoch."""
    seconds, nanos = divmod(time, NANOS)
    return Timestamp(seconds=seconds, nanos=nanos)
