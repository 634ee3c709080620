"""What a call is, apart from who makes it: method, request, how to read the answer.

Everything that the API can be asked is built here as a value, by code that neither waits nor
touches the network. Two thin drivers carry the values out: :mod:`~device_api_core.client.endpoint`
with threads, :mod:`~device_api_core.client.aio.endpoint` with asyncio. So both clientsets send the
same requests, read the same answers and repeat the same calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service: its path on the wire and its two messages."""

    path: str
    request: type[Message]
    response: type[Message]


def method(service: ServiceDescriptor, name: str) -> Method:
    """A method of a service by its name."""
    found = service.methods_by_name[name]
    return Method(
        f"/{service.full_name}/{name}",
        GetMessageClass(found.input_type),
        GetMessageClass(found.output_type),
    )


@dataclass(frozen=True, slots=True)
class Unary(Generic[V_co]):
    """One question with one answer, which ``convert`` turns into a value.

    ``idempotent`` says that asking again, though the first question may have been acted upon,
    leaves the server as one question would: only such calls are repeated after a failure.
    """

    method: Method
    request: Message
    convert: Callable[[Any], V_co]
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Streaming(Generic[V_co]):
    """One question with a stream of answers, each of which ``convert`` turns into a value."""

    method: Method
    request: Message
    convert: Callable[[Any], V_co]
