"""A connection's socket over its life: read or left alone, taking what it is sent or not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from device_api_transport_h2 import _engine
from device_api_transport_h2.lookout import Lookout, Owner

_GREETING_SECONDS = 10.0
"""In which a client must have said something."""
_STALLED_SECONDS = 30.0
"""In which a client must read something of what it was sent. That a call's answer waits for the
client's window is no stall."""


class Line:
    """Raises ``OSError`` if the system has no room for one more. ``lost`` is called once when it is
    over."""

    def __init__(
        self,
        accepted: socket.socket,
        session: _engine.Session,
        lookout: Lookout,
        owner: Owner,
        lost: Callable[[], None],
    ) -> None:
        self.wire = lookout.add(accepted.fileno(), session, owner)
        self._socket = accepted
        self._owner = owner
        self._on_lost = lost
        self._loop = asyncio.get_running_loop()
        self.closing = False
        """Whether nothing new is to be sent."""
        self.over = False
        self._greeting = self._loop.call_later(_GREETING_SECONDS, self._greet)
        self._stalled: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None

    def rest(self, seconds: float, then: Callable[[], None]) -> None:
        """Read nothing for so long: what the client sends waits in the socket, and its end is not
        noticed. ``then`` may rest again."""
        if self.over:
            return
        self.wire.read(False)

        def rested() -> None:
            self._resting = None
            then()
            self._read_on()

        if self._resting is None:
            self._resting = self._loop.call_later(seconds, rested)

    def stall(self) -> None:
        """The client does not read. Who does not read what was asked for need not ask for more."""
        if self._stalled is None and not self.over:
            self._stalled = self._loop.call_later(
                _STALLED_SECONDS, self._owner.cut, "it hardly reads"
            )
            self.wire.read(False)

    def flows(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._read_on()

    def close(self) -> None:
        """End it when the socket has taken what it was given."""
        self.closing = True
        if self.wire.blocked:
            self.stall()
        else:
            self.end()

    def end(self) -> None:
        """End it in the loop's next turn, since its calls may be at work."""
        self.closing = True
        self.wire.read(False)
        self._loop.call_soon(self.lost)

    def lost(self) -> None:
        """It is over."""
        if self.over:
            return
        self.over = self.closing = True
        for timer in (self._greeting, self._stalled, self._resting):
            if timer is not None:
                timer.cancel()
        self.wire.close()
        self._socket.close()
        self._on_lost()

    def _read_on(self) -> None:
        if self.closing:
            self.close()
        elif self._stalled is None and self._resting is None:
            self.wire.read(True)

    def _greet(self) -> None:
        # Who says nothing holds a place for nothing.
        if not self.wire.heard:
            self._owner.cut()
