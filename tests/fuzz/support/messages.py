"""Messages of any kind from bytes: a protobuf message whose fields follow from what a fuzzer says,
so that it gets past the parser and reaches the rules behind it."""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

MAX_REPEATS = 4
_MAX_DEPTH = 5
_WORDS = (
    "gpu-0", "gpu-1", "GPU-1", "alpha", "beta", "Ready", "Fan", "example.com/Pump", "True",
    "False", "Unknown", "0", "1", "RESTART_BM", "", "\n", "é" * 70, "x" * 1_025, "Maybe",
    "GPU", "NIC", "PCI", "0000:0f:00", "SysLogsXIDError",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 999_999_999, 253_402_300_800)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


class Source:
    """Choices from bytes; when they are used up, every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._place : self._place + count]
        self._place += count
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def number(self, below: int) -> int:
        return int.from_bytes(self.take(1 if below <= 256 else 8), "little") % below

    def choose(self, options: Any) -> Any:
        return options[self.number(len(options))]

    def text(self) -> str:
        if self.number(4):
            return self.choose(_WORDS)
        return self.take(self.number(40)).decode("utf-8", errors="replace")

    def integer(self, least: int, most: int) -> int:
        chosen = self.choose(_NUMBERS) if self.number(2) else self.number(2**64) - 2**63
        return min(max(chosen, least), most)


def build(kind: type[Message], source: Source, depth: int = 0) -> Message:
    """A message of that kind."""
    message = kind()
    fill(message, message.DESCRIPTOR, source, depth)
    return message


def fill(message: Any, descriptor: Descriptor, source: Source, depth: int) -> None:
    """Set about half of the fields."""
    for field in descriptor.fields:
        if not source or source.number(2) == 0:
            continue
        if field.is_repeated:
            _repeat(message, field, source, depth)
        elif field.message_type is not None:
            if depth < _MAX_DEPTH:
                inner = getattr(message, field.name)
                inner.SetInParent()
                fill(inner, field.message_type, source, depth + 1)
        else:
            setattr(message, field.name, _scalar(field, source))


def _repeat(message: Any, field: FieldDescriptor, source: Source, depth: int) -> None:
    values = getattr(message, field.name)
    for _ in range(1 + source.number(MAX_REPEATS)):
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            key, value = (_scalar(kind.fields_by_name[n], source) for n in ("key", "value"))
            values[key] = value
        elif kind is not None:
            if depth < _MAX_DEPTH:
                fill(values.add(), kind, source, depth + 1)
        else:
            values.append(_scalar(field, source))


def _scalar(field: FieldDescriptor, source: Source) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return source.text() if field.type == FieldDescriptor.TYPE_STRING else source.take(16)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return bool(source.number(2))
    if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        [number] = struct.unpack("<d", source.take(8).ljust(8, b"\0"))
        return number
    return source.integer(*_RANGES[kind])
