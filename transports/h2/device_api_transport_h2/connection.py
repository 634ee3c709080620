"""One client's connection: bytes in, calls, bytes out."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

from device_api_core.server.limits import Limiter, Peer
from device_api_core.server.sockets import Credentials
from device_api_transport_h2 import _engine
from device_api_transport_h2.accounts import Accounts, grant
from device_api_transport_h2.bounds import new_session
from device_api_transport_h2.calls import WatchCall
from device_api_transport_h2.dispatch import Calls
from device_api_transport_h2.line import Line
from device_api_transport_h2.lookout import Lookout
from device_api_transport_h2.routes import Refused, Route
from device_api_transport_h2.status import UNREAD, Trailers
from device_api_transport_h2.turn import Turn

logger = logging.getLogger(__name__)

_WRITE_BYTES = 64 * 1024


class Served(NamedTuple):
    """What the connections of a face have together."""

    routes: Mapping[bytes, Route]
    answers: dict[bytes, _engine.Answers]
    limiter: Limiter
    max_request_bytes: int
    turn: Turn
    lookout: Lookout
    accounts: Accounts


class Connection:
    """``ended`` is called once when it is over. Raises ``OSError`` if the system has no room for
    one more."""

    def __init__(
        self,
        accepted: socket.socket,
        who: Credentials,
        served: Served,
        ended: Callable[[Connection], None],
    ) -> None:
        self.who = who
        self._limiter = served.limiter
        self._turn = served.turn
        self._ended = ended
        self._session = new_session(served.max_request_bytes)
        self._line = Line(accepted, self._session, served.lookout, self, self._lost)
        self._wire = self._line.wire
        self._accounts = served.accounts
        self._account = served.accounts.join(who.pid)
        self._session.serve(served.answers, self._account)
        self._calls = Calls(self, served.routes)
        self._hungry: dict[WatchCall, None] = {}
        self._key = object()
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._held: list[_engine.Event] = []
        self._drained: asyncio.Future[None] | None = None
        self._flush_soon()

    def used(self, seconds: float) -> None:
        """Note that the loop has just worked so long for the client, over all its connections."""
        peer = self.peer
        peer.used(seconds)
        if (debt := peer.debt()) > 0:
            self._account.rests_until = self._loop.time() + debt

    # --- from the socket

    def told(self, what: int, value: Any) -> None:
        """See :class:`~device_api_transport_h2.lookout.Owner`."""
        if not self._line.over:
            _NOTICES[what](self, value)

    def _heard(self, events: list[_engine.Event]) -> None:
        if events and (debt := self.peer.debt()) > 0:
            # Another connection of the same client has just had its part.
            self._held += events
            self._rest(debt)
            return
        began = perf_counter()
        # All that is said meanwhile is sent at the end.
        self._flush_due = True
        self._heed(events)
        self._flush()
        self.used(self._account.take() + perf_counter() - began)
        self._rest(self.peer.rest())

    def _heed(self, events: list[_engine.Event]) -> None:
        # In order: a call that is held must not begin after its end.
        if self._held:
            self._held += events
        else:
            self._calls.heed(events)

    def _flows(self, _: None) -> None:
        self._line.flows()
        self._flush()

    def _rests(self, _: None) -> None:
        """The same, and nothing was read."""
        self._rest(max(self._account.rests_until - self._loop.time(), 0.0))

    def _broken(self, error: BaseException | None) -> None:
        """The client breaks the protocol, mostly: say so to it, and end."""
        logger.warning("a connection was ended: %s", error)
        try:
            self._wire.flush()
        except (ConnectionError, MemoryError):
            logger.debug("there is no last word", exc_info=True)
        self._line.close()

    def _gone(self, _: None) -> None:
        # A client that writes no more is gone, too: gRPC knows no half-closed connection.
        self._line.lost()

    def _rest(self, seconds: float) -> None:
        """The client has had its part."""
        if seconds > 0:
            self._line.rest(seconds, self._rested)

    def _rested(self) -> None:
        if (debt := self.peer.debt()) > 0:
            self._rest(debt)
        elif self._held:
            held, self._held = self._held, []
            self._heard(held)

    # --- from the calls

    def reply(self, stream: int, message: bytes) -> None:
        """A whole answer, after which the call is forgotten."""
        if not self._session.reply(stream, message):
            self._session.finish(stream, UNREAD)
        self._calls.forget(stream)
        self._flush_soon()

    def grant(self) -> None:
        """The client reads what is known: let it have that at once for a while."""
        grant(self._account, self.peer, self._loop.time())

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

    def sender(self, stream: int, ahead: int) -> Callable[[bytes], bool]:
        """What puts a message into the stream at once, if less than ``ahead`` bytes wait there."""
        return self._wire.sender(stream, ahead).say

    async def drained(self) -> None:
        """Wait until something may have been sent."""
        self._wire.hungry = True
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
        return self._wire.heard and self._calls.idle

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
        self._line.end()

    # --- to the socket

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop, all calls' words at once."""
        if not self._flush_due:
            self._flush_due = True
            self._turn.end_with(self._flush)

    def _flush(self) -> None:
        if self._line.closing:
            return
        # What the watches say meanwhile goes along.
        self._flush_due = True
        try:
            while not self._wire.blocked:
                self._feed()
                if self._wire.flush() < _WRITE_BYTES:
                    break
            self._flush_due = False
            self._wake_writers()
            self._heed(self._session.events())
        except (ConnectionError, MemoryError) as error:
            self._broken(error)
            return
        if self._wire.blocked:
            self._line.stall()
        elif not self._session.alive:
            self.cut("it sends too much that carries nothing" if self._session.calmed else "")

    def _feed(self) -> None:
        for call in tuple(self._hungry):
            if not call.pull():
                self._hungry.pop(call, None)
        self._wire.hungry = bool(self._hungry)

    def _wake_writers(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _lost(self) -> None:
        began = perf_counter()
        self._accounts.leave(self.who.pid)
        self._ended(self)
        self._calls.close()
        self._hungry.clear()
        self._session.close()
        self._wake_writers()
        self.used(self._account.take() + perf_counter() - began)


_NOTICES: tuple[Callable[[Connection, Any], None], ...] = (
    Connection._heard,
    Connection._flows,
    Connection._rests,
    Connection._broken,
    Connection._gone,
)
"""In the order of the notices' numbers."""
