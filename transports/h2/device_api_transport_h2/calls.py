"""Calls: what one HTTP/2 stream carries, by the kind of its method.

A unary handler that need not wait, which is nearly every one, is run to its end at once, without a
task. Whoever must wait gets a task then; an idle watch has none at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from device_api_core.errors import DeviceApiError, LimitExceeded
from device_api_core.server.limits import Peer
from device_api_core.server.transport import EventStream, internal
from device_api_transport_h2.routes import Route
from device_api_transport_h2.status import UNREAD_TEXT, trailers, trailers_of

if TYPE_CHECKING:
    from device_api_transport_h2.connection import Connection

Result = TypeVar("Result")

READ_AHEAD_BYTES = 64 * 1024
"""What may wait in a stream before its source is asked for more."""
_UNSENT_SECONDS = 5.0
"""How long a client may take to read the status of a watch that was ended."""
_ENHANCE_YOUR_CALM = 0xB
"""The HTTP/2 error that a gRPC client reports as RESOURCE_EXHAUSTED."""


class Call:
    """One request and its answer."""

    __slots__ = ("_deadline", "connection", "id", "route", "task")

    def __init__(self, connection: Connection, stream: int, route: Route) -> None:
        self.connection = connection
        self.id = stream
        self.route = route
        self.task: asyncio.Task[Any] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def message(self, data: bytes) -> None:
        """The request goes on."""
        raise NotImplementedError

    def ended(self) -> None:
        """The request is complete."""
        raise NotImplementedError

    def closed(self) -> None:
        """The call is gone, answered or not."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def fail(self, error: DeviceApiError) -> None:
        """Answer with an error."""
        self.connection.finish(self.id, trailers_of(error))

    def end_within(self, seconds: float) -> None:
        """Set the caller's deadline."""
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._expired)

    def _expired(self) -> None:
        self._deadline = None
        self.connection.finish(
            self.id, trailers("DEADLINE_EXCEEDED", "the call's deadline has passed"), drop=True
        )
        self.closed()

    def _refuse(self, text: str) -> None:
        self.connection.refuse(self.id, trailers("INTERNAL", text))

    def _in_task(self, rest: Coroutine[Any, Any, None]) -> None:
        self.task = asyncio.get_running_loop().create_task(rest)


class RequestCall(Call):
    """A call whose request is one message."""

    __slots__ = ("_request",)

    def __init__(self, connection: Connection, stream: int, route: Route) -> None:
        super().__init__(connection, stream, route)
        self._request: bytes | None = None

    def message(self, data: bytes) -> None:
        if self._request is not None:
            self._refuse("the request has more than one message")
            return
        self._request = data

    def ended(self) -> None:
        if self._request is None:
            self._refuse("the request has no message")
            return
        # Until now it counted as what the client has not finished.
        self.connection.took(self.id, len(self._request))
        started = self._begin(self._request)
        self._request = None
        try:
            waited = started.send(None)
        except StopIteration:
            return
        self._in_task(_rest(started, waited))

    def _begin(self, request: bytes) -> Coroutine[Any, Any, None]:
        raise NotImplementedError


class UnaryCall(RequestCall):
    """One request, one response."""

    __slots__ = ()

    def _begin(self, request: bytes) -> Coroutine[Any, Any, None]:
        return self._answer(self.route.answer(self.connection.peer, request))

    def wait(self, started: Coroutine[Any, Any, bytes], waited: Any) -> None:
        """Go on with a call that was started and has to wait for ``waited``."""
        self._in_task(self._answer(_rest(started, waited)))

    async def _answer(self, answer: Awaitable[bytes]) -> None:
        try:
            response = await answer
        except DeviceApiError as error:
            self.fail(error)
        else:
            self.connection.reply(self.id, response)


class WatchCall(RequestCall):
    """One request, many responses, which are taken as the client reads them."""

    __slots__ = ("_error", "_peer", "_stream")

    def __init__(self, connection: Connection, stream: int, route: Route) -> None:
        super().__init__(connection, stream, route)
        self._stream: EventStream | None = None
        self._peer: Peer | None = None
        self._error: DeviceApiError | None = None

    def _begin(self, request: bytes) -> Coroutine[Any, Any, None]:
        return self._open(request)

    async def _open(self, request: bytes) -> None:
        self.route.began()
        peer = self.connection.peer
        try:
            peer.open_stream()
            self._peer = peer
            stream = await self.route.open(peer, request)
        except DeviceApiError as error:
            self._end(error)
        except Exception:  # noqa: BLE001
            # The last handler before the wire, as for unary calls.
            self._end(internal(self.route.method))
        else:
            self._stream = stream
            stream.on_ready = self._ready
            stream.on_event = self.connection.sender(self.id, READ_AHEAD_BYTES)
            self._ready()

    def pull(self) -> bool:
        """Pass on what the source has, as far as it fits. Returns whether there may be more."""
        if self._stream is None:
            return False
        if self._stream.error is not None:
            self._end(self._stream.error)
            return False
        waiting = self.connection.queued(self.id)
        while 0 <= waiting < READ_AHEAD_BYTES:
            try:
                event = self._stream.take()
            except DeviceApiError as error:
                self._end(error)
                return False
            if event is None:
                return False
            waiting = self.connection.message(self.id, event)
        return waiting >= 0

    def closed(self) -> None:
        if self._stream is not None or self.task is not None:
            self.route.ended(self._error)
        self._release()
        super().closed()

    def _ready(self) -> None:
        self.connection.wants(self)

    def _end(self, error: DeviceApiError) -> None:
        self._error = error
        self.route.ended(error)
        self._release()
        self.task = None
        # What was queued before belongs to a story whose end the client will not hear.
        self.connection.finish(self.id, trailers_of(error), drop=True)
        if self._deadline is not None:
            self._deadline.cancel()
        # A client that does not read gets no status; its stream is not kept for it.
        self._deadline = asyncio.get_running_loop().call_later(
            _UNSENT_SECONDS, self.connection.reset, self.id, _ENHANCE_YOUR_CALM
        )

    def _release(self) -> None:
        """Free the slot and the queue, whatever the client does."""
        if self._stream is not None:
            self._stream.on_ready = self._stream.on_event = None
            self._stream.close()
            self._stream = None
        if self._peer is not None:
            self._peer.close_stream()
            self._peer = None


class ExchangeCall(Call):
    """Many requests, many responses, with a task from the first moment on."""

    __slots__ = ("_arrived", "_complete", "_requests")

    def __init__(self, connection: Connection, stream: int, route: Route) -> None:
        super().__init__(connection, stream, route)
        self._requests: deque[bytes] = deque()
        self._complete = False
        self._arrived = asyncio.Event()
        self._in_task(self._run())

    def message(self, data: bytes) -> None:
        self._requests.append(data)
        self._arrived.set()

    def ended(self) -> None:
        self._complete = True
        self._arrived.set()

    async def _run(self) -> None:
        exchange = self.route.exchange(self.connection.peer, self._received(), self._respond)
        try:
            await exchange
        except DeviceApiError as error:
            self.fail(error)
        else:
            self.connection.finish(self.id, trailers("OK", ""))

    async def _received(self) -> AsyncIterator[bytes]:
        while True:
            while self._requests:
                data = self._requests.popleft()
                self.connection.took(self.id, len(data))
                yield data
            if self._complete:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _respond(self, data: bytes) -> None:
        if self.connection.crowded:
            raise LimitExceeded(UNREAD_TEXT)
        if self.connection.message(self.id, data) < 0:
            # The caller has gone, and the cancellation that says so is on its way.
            raise asyncio.CancelledError
        while self.connection.queued(self.id) > READ_AHEAD_BYTES:
            await self.connection.drained()


@coroutine
def _rest(started: Coroutine[Any, Any, Result], waited: Any) -> Generator[Any, Any, Result]:
    """What is left of a coroutine that was started outside of a task and now waits."""
    while True:
        thrown: BaseException | None = None
        try:
            sent = yield waited
        except BaseException as error:  # noqa: BLE001
            # A cancellation, and nothing here decides what becomes of it.
            thrown = error
        try:
            waited = started.send(sent) if thrown is None else started.throw(thrown)
        except StopIteration as stop:
            result: Result = stop.value
            return result
