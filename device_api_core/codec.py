"""The server's translation between values and protobuf bytes.

Decoding checks what the wire format cannot: a status must be one of three words, a timestamp must
be a real time. Encoding makes a fresh protobuf message each time, because one that is changed in
place never returns its arena's memory, and joins encoded parts by hand: a GPU's unchanged
conditions, a list's items and a watch event's object are length-delimited fields, whose bytes do
not depend on what surrounds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from device_api_core._proto import gpu_pb2, provider_pb2
from device_api_core.conversion import (
    NANOS,
    condition_to_proto,
    gpu_spec_from_proto,
    gpu_spec_to_proto,
    nanoseconds,
)
from device_api_core.errors import InvalidArgument
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus
from device_api_core.series import Numbers, Series, check_amount, check_value

M = TypeVar("M", bound=Message)

# The range of google.protobuf.Timestamp: years 1 to 9999.
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799

_STATUSES = {status.value: status for status in ConditionStatus}

# Tags of length-delimited fields, by field number: (number << 3) | 2.
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"
_VARINT_FIELD_4 = b"\x20"

_ONE_BYTE = tuple(bytes((number,)) for number in range(0x80))
"""The varints of one byte, which most lengths are."""


def decode(kind: type[M], data: bytes) -> M:
    """Parse a request. Raises ``InvalidArgument`` if the bytes are not such a message."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidArgument("request", f"is not a valid {kind.DESCRIPTOR.name}") from error
    return message


def decode_condition(message: gpu_pb2.Condition, provider_id: str, field: str) -> Condition:
    """A condition as its provider sent it, owned by ``provider_id``."""
    status = _STATUSES.get(message.status)
    if status is None:
        raise InvalidArgument(
            f"{field}.status", f"must be True, False or Unknown, not {message.status[:64]!r}"
        )
    time = None
    if message.HasField("last_transition_time"):
        stamp = message.last_transition_time
        if not (_MIN_SECONDS <= stamp.seconds <= _MAX_SECONDS and 0 <= stamp.nanos < NANOS):
            raise InvalidArgument(f"{field}.last_transition_time", "is not a valid timestamp")
        time = nanoseconds(stamp)
    return Condition(message.type, status, message.reason, message.message, time, provider_id)


def decode_status(message: gpu_pb2.GpuStatus, provider_id: str, field: str) -> GpuStatus:
    """A whole status as its provider sent it, every condition owned by ``provider_id``."""
    conditions = tuple(
        decode_condition(c, provider_id, f"{field}.conditions[{i}]")
        for i, c in enumerate(message.conditions)
    )
    return GpuStatus(conditions, message.recommended_action)


def parse_spec(data: bytes) -> GpuSpec:
    """An encoded ``GpuSpec``. Raises ``InvalidArgument`` if the bytes are not one."""
    return gpu_spec_from_proto(decode(gpu_pb2.GpuSpec, data))


def encode_spec(spec: GpuSpec) -> bytes:
    """An encoded ``GpuSpec``."""
    return gpu_spec_to_proto(spec).SerializeToString()


def encode_condition(condition: Condition) -> bytes:
    """A condition as a field of ``GpuStatus``, ready to be joined with its siblings."""
    return _delimited(_FIELD_1, condition_to_proto(condition).SerializeToString())


def decode_numbers(message: provider_pb2.ProviderNumbers) -> Numbers:
    """What a provider has counted and shows, checked."""
    counts: dict[Series, float] = {}
    gauges: dict[Series, float] = {}
    for i, metric in enumerate(message.metrics):
        path = f"numbers.metrics[{i}]."
        series = Series(metric.name, tuple(sorted(metric.labels.items())))
        series.check(path)
        if metric.WhichOneof("value") == "counter":
            check_amount(metric.counter, path)
            counts[series] = metric.counter
        elif metric.WhichOneof("value") == "gauge":
            check_value(metric.gauge, path)
            gauges[series] = metric.gauge
        else:
            raise InvalidArgument(f"{path}value", "is required")
    return Numbers(message.run, counts, gauges)


def encode_item(
    name: str, version: int, spec: bytes, conditions: Iterable[bytes], recommended_action: str
) -> bytes:
    """A GPU as an item of ``GpuList``, from an encoded spec and encoded conditions. The same bytes
    are the object of a ``WatchGpusResponse``."""
    meta = _text(_FIELD_1, name) + _text(_FIELD_2, str(version))
    status = b"".join(conditions)
    if recommended_action:
        status += _text(_FIELD_2, recommended_action)
    return _delimited(
        _FIELD_2,
        _delimited(_FIELD_1, meta)
        + _delimited(_FIELD_2, spec)
        + _delimited(_FIELD_3, status)
        + _VARINT_FIELD_4
        + _varint(version),
    )


def get_response(item: bytes) -> bytes:
    """A ``GetGpuResponse`` from a list item: the object is field 1 there and field 2 here."""
    return _FIELD_1 + item[1:]


def list_response(version: int, items: Sequence[bytes]) -> bytes:
    """A ``ListGpusResponse``."""
    meta = _delimited(_FIELD_1, _text(_FIELD_1, str(version)))
    return _delimited(_FIELD_1, meta + b"".join(items))


def watch_response(event_type: str, item: bytes) -> bytes:
    """A ``WatchGpusResponse`` about a list item."""
    return _text(_FIELD_1, event_type) + item


def bookmark(version: int) -> bytes:
    """A ``WatchGpusResponse`` that carries nothing but a resource version."""
    meta = _delimited(_FIELD_1, _text(_FIELD_2, str(version)))
    return watch_response("BOOKMARK", _delimited(_FIELD_2, meta))


def _text(tag: bytes, text: str) -> bytes:
    return _delimited(tag, text.encode()) if text else b""


def _delimited(tag: bytes, payload: bytes) -> bytes:
    size = len(payload)
    return tag + (_ONE_BYTE[size] if size < 0x80 else _varint(size)) + payload


def _varint(number: int) -> bytes:
    encoded = []
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
