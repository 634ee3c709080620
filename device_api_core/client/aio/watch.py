"""A watch for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc

from device_api_core.client.errors import DeviceApiError, Unavailable
from device_api_core.client.watch import ENDED, WatchEvent

E_co = TypeVar("E_co", bound=WatchEvent[Any], covariant=True)


class AsyncStream(Protocol):
    """A server stream, as far as a watch needs it."""

    async def read(self) -> Any:
        """The next message, ``grpc.aio.EOF`` at the end; raises when it breaks."""

    def cancel(self) -> object:
        """End the stream from this side."""


class AsyncWatch(AsyncIterator[E_co]):
    """The events of one stream, in the server's order; see
    :class:`~device_api_core.client.watch.Watch`. Close it, or use ``async with``."""

    def __init__(
        self,
        stream: AsyncStream,
        convert: Callable[[Any], E_co],
        translate: Callable[[grpc.aio.AioRpcError], DeviceApiError],
    ) -> None:
        self._stream = stream
        self._convert = convert
        self._translate = translate
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E_co:
        """The next event; raises what :meth:`.watch.Watch.__next__` raises."""
        if self._closed:
            raise StopAsyncIteration
        try:
            message = await self._stream.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # gRPC says the same of a stream that close() ended and of a task that is cancelled.
            if self._closed and not (task is not None and task.cancelling()):
                raise StopAsyncIteration from None
            raise
        except grpc.aio.AioRpcError as error:
            if self._closed:
                raise StopAsyncIteration from None
            raise self._translate(error) from error
        if message is grpc.aio.EOF:
            if self._closed:
                raise StopAsyncIteration
            raise Unavailable(ENDED)
        return self._convert(message)

    def close(self) -> None:
        """End the stream. An iteration that waits ends, too. May be repeated."""
        self._closed = True
        self._stream.cancel()
