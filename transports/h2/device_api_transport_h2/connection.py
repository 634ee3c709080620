"""One client's connection: bytes in, calls, bytes out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

from device_api_core.server.limits import Limiter, Peer
from device_api_core.server.sockets import Credentials
from device_api_transport_h2 import _engine
from device_api_transport_h2.calls import WatchCall
from device_api_transport_h2.dispatch import Calls
from device_api_transport_h2.routes import Refused, Route
from device_api_transport_h2.status import UNREAD, Trailers
from device_api_transport_h2.turn import Turn

logger = logging.getLogger(__name__)

MAX_STREAMS = 2_048
MAX_HEADER_BYTES = 16 * 1024
MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""Of one connection's requests that are not finished. The engine bounds all connections' together,
too."""
MAX_UNREAD_BYTES = 8 * 1024 * 1024
"""Of one connection's answers that its client does not read."""
WINDOW_BYTES = 64 * 1024
READ_BYTES = 4 * 1024
"""At a time, so that a client who sends without a pause takes turns with the others."""
_WRITE_BYTES = 64 * 1024
_GREETING_SECONDS = 10.0
"""In which a client must have said something, or it holds a place for nothing."""
_STALLED_SECONDS = 30.0
"""In which a client must read something of what it was sent. That a call's answer waits for the
client's window is no stall."""


class Served(NamedTuple):
    """What the connections of a face have together."""

    routes: Mapping[bytes, Route]
    limiter: Limiter
    max_request_bytes: int
    turn: Turn


class Connection(asyncio.BufferedProtocol):
    """``ended`` is called once when it is over."""

    # Of all connections: what was read is dealt with before the next is.
    _buffer = memoryview(bytearray(READ_BYTES))

    def __init__(
        self, who: Credentials, served: Served, ended: Callable[[Connection], None]
    ) -> None:
        self.who = who
        self._limiter = served.limiter
        self._turn = served.turn
        self._ended = ended
        self._session = _engine.Session(
            max_message_bytes=served.max_request_bytes,
            max_header_bytes=MAX_HEADER_BYTES,
            max_buffered_bytes=MAX_BUFFERED_BYTES,
            max_unread_bytes=MAX_UNREAD_BYTES,
            max_streams=MAX_STREAMS,
            window_bytes=WINDOW_BYTES,
        )
        self._calls = Calls(self, served.routes)
        self._hungry: dict[WatchCall, None] = {}
        self._key = object()
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._paused = False
        self._resting: asyncio.TimerHandle | None = None
        self._held = b""
        self._drained: asyncio.Future[None] | None = None
        self._greeted = False
        # Who says nothing, or reads nothing.
        self._overdue = self._loop.call_later(_GREETING_SECONDS, self.cut)
        self._transport: asyncio.Transport

    # --- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._greeted:
            self._greeted = True
            self._overdue.cancel()
        if self._rests(self.peer.debt()):
            # Another connection of the same client has just had its part.
            self._held = bytes(self._buffer[:nbytes])
        else:
            self._receive(self._buffer[:nbytes])

    def _receive(self, data: bytes | memoryview) -> None:
        began = perf_counter()
        try:
            events = self._session.receive(data)
        except (ConnectionError, MemoryError) as error:
            self._break(error)
            return
        # All that is said meanwhile is sent at the end.
        self._flush_due = True
        self._calls.heed(events)
        self._flush()
        peer = self.peer
        peer.used(perf_counter() - began)
        self._rests(peer.rest())

    def eof_received(self) -> None:
        """A client that writes no more is gone: gRPC knows no half-closed connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._overdue.cancel()
        if self._resting is not None:
            self._resting.cancel()
        began = perf_counter()
        self._ended(self)
        self._calls.close()
        self._hungry.clear()
        self._session.close()
        self._wake_writers()
        self.peer.used(perf_counter() - began)

    def pause_writing(self) -> None:
        self._paused = True
        self._overdue.cancel()
        self._overdue = self._loop.call_later(_STALLED_SECONDS, self.cut, "it hardly reads")
        # Who does not read what was asked for need not ask for more.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._overdue.cancel()
        if self._resting is None:
            self._transport.resume_reading()
        self._flush()

    def _rests(self, seconds: float) -> bool:
        """Whether the client has had its part. What it sends waits in the socket then."""
        if seconds <= 0:
            return False
        self._transport.pause_reading()
        self._resting = self._loop.call_later(seconds, self._rested)
        return True

    def _rested(self) -> None:
        self._resting = None
        if self._rests(self.peer.debt()):
            return
        if self._held:
            held, self._held = self._held, b""
            self._receive(held)
        if not self._paused and self._resting is None:
            self._transport.resume_reading()

    # --- from the calls

    def reply(self, stream: int, message: bytes) -> None:
        """A whole answer, after which the call is forgotten."""
        if not self._session.reply(stream, message):
            self._session.finish(stream, UNREAD)
        self._calls.forget(stream)
        self._flush_soon()

    def message(self, stream: int, message: bytes) -> int:
        """Queue a message; returns the bytes that wait on the stream, -1 if it is gone."""
        self._flush_soon()
        return self._session.message(stream, message)

    def queued(self, stream: int) -> int:
        """The bytes that wait on the stream, -1 if it is gone."""
        return self._session.queued(stream)

    def finish(
        self, stream: int, ending: Trailers, *, drop: bool = False, status: str | None = None
    ) -> None:
        """End the answer; with ``drop`` what is queued is not sent. ``status`` is HTTP's, for a
        request that is not gRPC."""
        self._session.finish(stream, ending, drop, status)
        self._flush_soon()

    def refuse(self, stream: int, ending: Trailers) -> None:
        """End a call whose request breaks a rule, and heed nothing more of it."""
        self._calls.refuse(stream, Refused(ending))

    def reset(self, stream: int, error: int) -> None:
        self._session.reset(stream, error)
        self._flush_soon()

    def took(self, stream: int, size: int) -> None:
        """A message of that size was taken: the client may send more."""
        self._session.took(stream, size)
        self._flush_soon()

    def wants(self, call: WatchCall) -> None:
        """A watch has something to send."""
        self._hungry[call] = None
        self._flush_soon()

    async def drained(self) -> None:
        """Wait until something was sent."""
        if self._drained is None:
            self._drained = self._loop.create_future()
        await asyncio.shield(self._drained)

    @property
    def crowded(self) -> bool:
        """Whether the client has too much to read already."""
        return self._session.crowded

    @property
    def peer(self) -> Peer:
        """The account of who calls: the process, or the connection if that cannot be seen."""
        # Asked for each time, since accounts that owe nothing are forgotten.
        pid = self.who.pid
        return self._limiter.process(pid) if pid else self._limiter.peer(self._key)

    # --- from the server

    @property
    def idle(self) -> bool:
        """Whether the client has said something, and has no calls."""
        return self._greeted and self._calls.idle

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Of the calls that wait for something."""
        return self._calls.tasks

    def go_away(self, *, last: bool) -> None:
        """Ask the client for no new calls; with ``last`` refuse them."""
        self._session.go_away(last)
        self._flush()

    def cut(self, why: str = "") -> None:
        """End it now; a reason is logged."""
        if why:
            logger.warning("connection cut", extra={**self.who._asdict(), "outcome": why})
        self._transport.abort()

    # --- to the socket

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop, all calls' words at once."""
        if not self._flush_due:
            self._flush_due = True
            self._turn.end_with(self._flush)

    def _flush(self) -> None:
        if self._transport.is_closing():
            return
        # What the watches say meanwhile goes along.
        self._flush_due = True
        try:
            while not self._paused and (data := self._next_bytes()):
                self._transport.write(data)
                self._wake_writers()
                if len(data) < _WRITE_BYTES:
                    break
            self._flush_due = False
            self._calls.heed(self._session.events())
        except (ConnectionError, MemoryError) as error:
            self._break(error)
            return
        if not self._session.alive:
            self._transport.close()

    def _next_bytes(self) -> bytes:
        if self._hungry:
            for call in tuple(self._hungry):
                if not call.pull():
                    self._hungry.pop(call, None)
        return self._session.send(_WRITE_BYTES)

    def _wake_writers(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _break(self, error: ConnectionError | MemoryError) -> None:
        """The peer breaks the protocol, mostly: say so to it, and end."""
        logger.warning("a connection was ended: %s", error)
        try:
            self._transport.write(self._session.send(_WRITE_BYTES))
        except ConnectionError:
            logger.debug("there is no last word", exc_info=True)
        self._transport.close()
