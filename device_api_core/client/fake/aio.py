"""The fake clientset of asyncio."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from device_api_core.client.aio.clientset import AsyncClientset
from device_api_core.client.aio.watch import AsyncWatch
from device_api_core.client.calls import Streaming, Unary
from device_api_core.client.errors import DeviceApiError, Unreachable
from device_api_core.client.fake.node import TARGET, FakeNode
from device_api_core.client.fake.watches import Subscription
from device_api_core.client.kinds import Resource
from device_api_core.client.watch import WatchEvent

V = TypeVar("V")
E = TypeVar("E", bound=WatchEvent[Any])


class FakeAsyncCaller:
    """Asks a node instead of a server. See
    :class:`~device_api_core.client.aio.endpoint.AsyncCaller`."""

    target = TARGET

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._streams: set[FakeAsyncStream] = set()
        self._closed = False

    async def call(self, unary: Unary[V], timeout_seconds: float | None = None) -> V:
        """Answered at once; nothing is repeated."""
        # As with a server, other tasks run meanwhile.
        await asyncio.sleep(0)
        if self._closed:
            raise Unreachable("the clientset is closed", target=TARGET)
        return unary.convert(self._node.answer(unary.method.path, unary.request))

    def stream(self, streaming: Streaming[E]) -> AsyncWatch[E]:
        """Errors appear when it is iterated, as with a server."""
        stream = FakeAsyncStream(self._node, streaming)
        self._streams.add(stream)
        return AsyncWatch(stream, streaming.convert, _never)

    async def close(self) -> None:
        """Watches break, later calls fail."""
        self._closed = True
        for stream in self._streams:
            stream.fail(Unreachable("the clientset is closed", target=TARGET))
        self._streams.clear()


class FakeAsyncStream:
    """One watch of a node, read in the loop in which it was made."""

    def __init__(self, node: FakeNode, streaming: Streaming[Any]) -> None:
        self._node = node
        self._path = streaming.method.path
        self._parse = streaming.method.response.FromString
        request: Any = streaming.request
        self._bookmarks = request.opts.allow_watch_bookmarks
        self._loop = asyncio.get_running_loop()
        self._awake = asyncio.Event()
        self._cancelled = False
        self._failure: DeviceApiError | None = None
        self._subscription: Subscription | None = None
        try:
            self._subscription = node.subscribe(streaming.method.path, request, self._wake)
        except DeviceApiError as error:
            self._failure = error

    async def read(self) -> Any:
        """The next message, after a wait if need be."""
        while not self._cancelled:
            if self._failure is not None or self._subscription is None:
                raise self._failure or AssertionError
            self._awake.clear()
            frame = self._node.read(self._subscription)
            if frame is None and not await self._woken():
                frame = self._node.bookmark(self._path)
            if frame is not None:
                return self._parse(frame)
        return grpc.aio.EOF

    def cancel(self) -> None:
        """End the watch."""
        self._cancelled = True
        if self._subscription is not None:
            self._node.unsubscribe(self._subscription)
        self._awake.set()

    def fail(self, error: DeviceApiError) -> None:
        """Break the watch."""
        self._failure = error
        self._awake.set()

    async def _woken(self) -> bool:
        try:
            async with asyncio.timeout(self._node.bookmark_seconds if self._bookmarks else None):
                await self._awake.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        # A loop that was closed has nobody left to wake.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._awake.set)


class FakeAsyncClientset(AsyncClientset):
    """A clientset of a fake node: of the ``node`` given, else of a new one with these objects."""

    def __init__(self, *objects: Resource, node: FakeNode | None = None) -> None:
        self.node = node or FakeNode()
        for each in objects:
            self.node.add(each)
        caller = FakeAsyncCaller(self.node)
        super().__init__(caller, caller)


def _never(error: BaseException) -> DeviceApiError:
    raise AssertionError(f"a fake stream raises errors of its own, not {error!r}")
