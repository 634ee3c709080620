"""Arrivals: who may connect to a face, and how many."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from time import perf_counter

from device_api_core.server.connections import CROWDED
from device_api_core.server.sockets import Credentials, credentials
from device_api_transport_h2.connection import Connection

logger = logging.getLogger(__name__)

BACKLOG = 1_024
_AT_ONCE = 4
"""Connections in one turn of the loop, so that a flood takes turns with calls."""
_AGAIN_SECONDS = 1.0
"""After which to try again what the system had no room for."""
_TOLD_SECONDS = 1.0
"""Between two words about refused connections, of which a flood may bring thousands."""


class Connections:
    """Those of one face, in the order of their coming, of which there may be ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Connection, None] = {}
        self._of_process: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    def refusal(self, pid: int) -> str:
        """Why the process may not connect now; empty if it may."""
        crowded = len(self._open) >= CROWDED * self._most
        if crowded and pid and self._of_process[pid] >= self._most // 2:
            return "its process has too many"
        if len(self._open) >= self._most and not self._make_room():
            return f"all {self._most} are in use"
        return ""

    def add(self, connection: Connection) -> None:
        """Count one that has come."""
        self._open[connection] = None
        self._of_process[connection.who.pid] += 1

    def remove(self, connection: Connection) -> None:
        """One has gone, if it was counted."""
        if connection not in self._open:
            return
        del self._open[connection]
        pid = connection.who.pid
        self._of_process[pid] -= 1
        if not self._of_process[pid]:
            del self._of_process[pid]

    def _make_room(self) -> bool:
        """End the oldest connection that has no calls. Its client connects again when it has one,
        while idle ones could keep everybody out."""
        for connection in self:
            if connection.idle:
                self.remove(connection)
                connection.go_away(last=True)
                connection.cut()
                return True
        return False


class Arrivals:
    """Accepts who connects to a listening socket, or sends him away at once. ``make`` makes a
    connection."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        make: Callable[[socket.socket, Credentials], Connection],
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._refused = 0
        self._told = -_TOLD_SECONDS
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept nobody more."""
        if self._listener.fileno() < 0:
            return
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        """asyncio's own servers accept hundreds at once and know who came some turns later: too
        late for a flood, which would have all files by then."""
        for _ in range(_AT_ONCE):
            try:
                accepted, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Files or memory: with what is left, others are served.
                logger.warning("cannot accept: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._again = self._loop.call_later(
                    _AGAIN_SECONDS, self._loop.add_reader, self._listener, self._accept
                )
                return
            self._receive(accepted)

    def _receive(self, accepted: socket.socket) -> None:
        began = perf_counter()
        who = credentials(accepted)
        if why := self._connections.refusal(who.pid):
            accepted.close()
            self._tell(who, why)
            return
        try:
            accepted.setblocking(False)
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._make(accepted, who)
        except OSError as error:
            accepted.close()
            self._tell(who, error.strerror or str(error))
            return
        self._connections.add(connection)
        connection.used(perf_counter() - began)

    def _tell(self, who: Credentials, why: str) -> None:
        self._refused += 1
        now = self._loop.time()
        if now - self._told >= _TOLD_SECONDS:
            facts = {**who._asdict(), "outcome": why, "refused": self._refused}
            logger.warning("connections refused", extra=facts)
            self._told, self._refused = now, 0
