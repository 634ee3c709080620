"""Connections that do harm, cut from outside of gRPC.

grpc.aio tells a handler nothing about a unix connection, and gives back the memory of an answer
that its client does not read only when the connection ends. The kernel knows both: who is at the
other end, and what waits in the socket. A socket that is shut down here is to gRPC one whose client
has gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import socket
import struct
import termios
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from device_api_core.server.limits import Limiter
from device_api_core.server.sockets import credentials

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
_OUTQ = struct.Struct("i")
_FDS = Path("/proc/self/fd")
CROWDED = 0.75
"""Of the connections that may be; from here on one process may have half of all."""


class Connection(NamedTuple):
    """One accepted connection. ``pid`` and ``uid`` are of who connected, 0 and -1 over TCP;
    ``waiting`` are the bytes that the other end has not read."""

    descriptor: int
    inode: int
    pid: int
    uid: int
    waiting: int


def allowance(wanted: int, share: float) -> int:
    """Connections that may be, of those wanted: at most that share of the files that this process
    may open, so that a flood of them leaves some for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, int(soft * share))


def open_as_many_as_allowed() -> None:
    """Raise this process's soft limit of open files to its hard one: the soft one is for programs
    that use ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Patrol:
    """Looks after the connections of one face at ``addresses``, which may change, of which there
    may be ``max_connections``."""

    def __init__(self, addresses: Set[str], limiter: Limiter, max_connections: int) -> None:
        self._addresses = addresses
        self._limiter = limiter
        self._max_connections = max_connections
        # Bytes that waited at the last look, by inode.
        self._before: dict[int, int] = {}
        self._files: list[str] = []

    async def walk(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.due():
                await asyncio.to_thread(self.look)

    def due(self) -> bool:
        """Whether there may be something to look for. A look costs milliseconds where many are
        connected, also to another face; most of the time nobody has come or gone since the last
        one. What came in the place of what went, to the last number, is seen a change later."""
        files = [each.name for each in _FDS.iterdir()]
        changed, self._files = files != self._files, files
        if self._limiter.unsent:
            return True
        crowded = len(files) > CROWDED * self._max_connections
        # Who waits at one look and at one much later may have read in between.
        self._before = dict.fromkeys(self._before, 0) if crowded else {}
        return crowded and changed

    def look(self) -> None:
        """Cut who has not read anything since the last look while answers wait, and what one
        process has beyond its part."""
        now = {c.inode: c for c in connections(self._addresses)}
        harmful = (
            [(c, "it hardly reads") for c in self._stalled(now)] if self._limiter.unsent else []
        )
        harmful += [(c, "its process has too many") for c in self._surplus(now)]
        for connection, why in harmful:
            if _cut(connection):
                facts = {"pid": connection.pid, "uid": connection.uid, "outcome": why}
                logger.warning("connection cut", extra=facts)
                now.pop(connection.inode, None)
        self._before = {inode: c.waiting for inode, c in now.items()}

    def _stalled(self, now: dict[int, Connection]) -> list[Connection]:
        return [c for i, c in now.items() if c.waiting and self._before.get(i) == c.waiting]

    def _surplus(self, now: dict[int, Connection]) -> list[Connection]:
        if len(now) <= CROWDED * self._max_connections:
            return []
        part = self._max_connections // 2
        counts: Counter[int] = Counter()
        surplus: list[Connection] = []
        # Those that were there at the last look stay.
        for inode in sorted(now, key=lambda i: i not in self._before):
            connection = now[inode]
            counts[connection.pid] += 1
            if connection.pid and counts[connection.pid] > part:
                surplus.append(connection)
        return surplus


def connections(addresses: Set[str]) -> Iterator[Connection]:
    """The connections that this process has accepted at the addresses: paths of unix sockets, and
    TCP ports as ``:PORT``."""
    for path in _FDS.iterdir():
        with suppress(OSError), _opened(int(path.name)) as found:
            if _local(found) not in addresses:
                continue
            found.getpeername()  # raises for the listener
            pid, uid = credentials(found)
            waiting = _OUTQ.unpack(fcntl.ioctl(found, termios.TIOCOUTQ, bytes(_OUTQ.size)))[0]
            yield Connection(int(path.name), os.fstat(found.fileno()).st_ino, pid, uid, waiting)


def _cut(connection: Connection) -> bool:
    # The number may be another file's by now; the inode tells.
    with suppress(OSError), _opened(connection.descriptor) as found:
        if os.fstat(found.fileno()).st_ino == connection.inode:
            found.shutdown(socket.SHUT_RDWR)
            return True
    return False


@contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket]:
    """The socket behind a descriptor that is gRPC's to close. Raises ``OSError`` if it is none."""
    own = os.dup(descriptor)
    try:
        found = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    with found:
        yield found


def _local(found: socket.socket) -> str:
    name = found.getsockname()
    return f":{name[1]}" if isinstance(name, tuple) else str(name)
