"""A watch: the stream of changes as an iterator that can be closed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import grpc

from device_api_core.client.convert import gpu_from_proto
from device_api_core.client.endpoint import Endpoint
from device_api_core.client.errors import RpcFailed, Unavailable
from device_api_core.resources import Gpu

if TYPE_CHECKING:
    from device_api_core._proto import gpu_pb2 as pb


class EventType(StrEnum):
    """What a watch event says of its GPU."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event. ``gpu`` is the state after it; for ``DELETED`` the last one, for ``BOOKMARK`` a
    GPU without a name. A later watch may resume from ``resource_version``."""

    type: EventType
    gpu: Gpu
    resource_version: int


class Stream(Protocol):
    """A server stream of gRPC, as far as a watch needs it."""

    def __next__(self) -> pb.WatchGpusResponse:
        """The next message; raises ``grpc.RpcError`` when the stream breaks."""

    def cancel(self) -> object:
        """End the stream from this side."""


class Watch(Iterator[WatchEvent]):
    """The events of one stream, in the server's order.

    Iteration blocks until the next event. It ends only after :meth:`close`; a stream that breaks
    raises, so that nobody takes silence for health. Close it from any thread, or use ``with``.
    """

    def __init__(
        self,
        stream: Stream,
        endpoint: Endpoint,
    ) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        """The next event.

        Raises:
            WatchExpired: list again and watch from the new version.
            LimitExceeded: with ``reason`` ``slow-watcher``, list again at once; with
                ``watcher-limit``, wait first.
            Unavailable: the server ended the stream; ``Unreachable`` if the connection broke.
        """
        if self._closed:
            raise StopIteration
        try:
            message = next(self._stream)
        except StopIteration:
            raise self._ended() from None
        except grpc.RpcError as error:
            # What close() does to a blocked call is no failure.
            if self._closed:
                raise StopIteration from None
            self._endpoint.fail(error)
        return _event(message)

    def close(self) -> None:
        """End the stream. A blocked iteration ends, too. May be repeated."""
        self._closed = True
        self._stream.cancel()

    def _ended(self) -> Exception:
        if self._closed:
            return StopIteration()
        return Unavailable("the server ended the watch: list again or resume")


def _event(message: pb.WatchGpusResponse) -> WatchEvent:
    gpu = gpu_from_proto(message.object)
    try:
        kind = EventType(message.type)
    except ValueError:
        raise RpcFailed(
            f"the server sent an event of type {message.type!r}", status="UNKNOWN"
        ) from None
    return WatchEvent(kind, gpu, gpu.metadata.resource_version)
