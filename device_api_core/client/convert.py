"""Messages and GPUs in the API's JSON form."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from device_api_core.conversion import gpu_to_proto
from device_api_core.resources import Gpu


def as_json(message: Message, *, defaults: bool = False) -> dict[str, Any]:
    """A message in protobuf's JSON form. ``defaults`` also shows zeros and empty texts."""
    return MessageToDict(message, always_print_fields_with_no_presence=defaults)


def gpu_as_json(gpu: Gpu) -> dict[str, Any]:
    """A GPU in the API's JSON form: lowerCamelCase, empty fields left out."""
    return as_json(gpu_to_proto(gpu))
