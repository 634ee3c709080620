"""Watch events; and a watch for threads: an iterator over changes that can be closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc

from device_api_core.client.errors import DeviceApiError, Unavailable

T_co = TypeVar("T_co", covariant=True)

ENDED = "the server ended the watch: list again or resume"
"""What a stream means that ends without an error."""


class EventType(StrEnum):
    """What a watch event says of its object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T_co]):
    """One event. ``object`` is the state after it; for ``DELETED`` the last one, for ``BOOKMARK``
    an object without a name. A later watch may resume from ``resource_version``."""

    type: EventType
    object: T_co
    resource_version: int


E_co = TypeVar("E_co", bound=WatchEvent[Any], covariant=True)


class Stream(Protocol):
    """A server stream, as far as a watch needs it."""

    def __next__(self) -> Any:
        """The next message; raises ``grpc.RpcError`` or an error of ours when it breaks."""

    def cancel(self) -> object:
        """End the stream from this side."""


class Watch(Iterator[E_co]):
    """The events of one stream, in the server's order.

    Iteration blocks until the next event. It ends only after :meth:`close`; a stream that breaks
    raises, so that nobody takes silence for health. Close it from any thread, or use ``with``.
    """

    def __init__(
        self,
        stream: Stream,
        convert: Callable[[Any], E_co],
        translate: Callable[[grpc.RpcError], DeviceApiError],
    ) -> None:
        self._stream = stream
        self._convert = convert
        self._translate = translate
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

    def __next__(self) -> E_co:
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
            raise self._ended(Unavailable(ENDED)) from None
        except DeviceApiError as error:
            raise self._ended(error) from None
        except grpc.RpcError as error:
            # What close() does to a blocked call is no failure.
            if self._closed:
                raise StopIteration from None
            raise self._translate(error) from error
        return self._convert(message)

    def close(self) -> None:
        """End the stream. A blocked iteration ends, too. May be repeated."""
        self._closed = True
        self._stream.cancel()

    def _ended(self, error: DeviceApiError) -> Exception:
        return StopIteration() if self._closed else error
