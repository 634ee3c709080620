"""The fake clientset of threads."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from device_api_core.client.calls import Streaming, Unary
from device_api_core.client.clientset import Clientset
from device_api_core.client.errors import DeviceApiError, Unreachable
from device_api_core.client.fake.node import TARGET, FakeNode
from device_api_core.client.fake.watches import Subscription
from device_api_core.client.kinds import Resource
from device_api_core.client.stopping import Stop
from device_api_core.client.watch import Watch, WatchEvent

V = TypeVar("V")
E = TypeVar("E", bound=WatchEvent[Any])


class FakeCaller:
    """Asks a node instead of a server. See :class:`device_api_core.client.endpoint.Caller`."""

    target = TARGET

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._closed = Stop()

    def call(
        self, unary: Unary[V], timeout_seconds: float | None = None, stop: Stop | None = None
    ) -> V:
        """Answered at once; nothing is repeated."""
        if self._closed.is_set():
            raise Unreachable("the clientset is closed", target=TARGET)
        return unary.convert(self._node.answer(unary.method.path, unary.request))

    def stream(self, streaming: Streaming[E]) -> Watch[E]:
        """Errors appear when it is iterated, as with a server."""
        return Watch(FakeStream(self._node, streaming, self._closed), streaming.convert, _never)

    def close(self) -> None:
        """Watches break, later calls fail."""
        self._closed.set()


class FakeStream:
    """One watch of a node."""

    def __init__(self, node: FakeNode, streaming: Streaming[Any], closed: Stop) -> None:
        self._node = node
        self._path = streaming.method.path
        self._parse = streaming.method.response.FromString
        request: Any = streaming.request
        self._bookmarks = request.opts.allow_watch_bookmarks
        self._awake = threading.Event()
        self._cancelled = False
        self._closed = closed
        self._subscription: Subscription | None = None
        self._refused: DeviceApiError | None = None
        try:
            self._subscription = node.subscribe(streaming.method.path, request, self._awake.set)
        except DeviceApiError as error:
            self._refused = error

    def __next__(self) -> Any:
        """The next message, after a wait if need be."""
        if self._subscription is None:
            raise StopIteration if self._refused is None else self._refused
        with self._closed.bound(self._awake.set):
            return self._parse(self._wait(self._subscription))

    def cancel(self) -> None:
        """End the watch."""
        self._cancelled = True
        if self._subscription is not None:
            self._node.unsubscribe(self._subscription)
        self._awake.set()

    def _wait(self, subscription: Subscription) -> bytes:
        while not self._cancelled:
            if self._closed.is_set():
                raise Unreachable("the clientset is closed", target=TARGET)
            self._awake.clear()
            frame = self._node.read(subscription)
            if frame is not None:
                return frame
            woken = self._awake.wait(self._node.bookmark_seconds if self._bookmarks else None)
            if not woken:
                return self._node.bookmark(self._path)
        raise StopIteration


class FakeClientset(Clientset):
    """A clientset of a fake node: of the ``node`` given, else of a new one with these objects. The
    node is where a test lets things happen."""

    def __init__(self, *objects: Resource, node: FakeNode | None = None) -> None:
        self.node = node or FakeNode()
        for each in objects:
            self.node.add(each)
        caller = FakeCaller(self.node)
        super().__init__(caller, caller)


def _never(error: BaseException) -> DeviceApiError:
    raise AssertionError(f"a fake stream raises errors of its own, not {error!r}")
