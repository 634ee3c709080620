"""The lookout: which sockets are ready, and what was heard on them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from device_api_transport_h2 import _engine

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Whom a socket belongs to."""

    def told(self, what: int, value: Any) -> None:
        """What has happened on the socket: one of the engine's notices, and its value."""

    def cut(self, why: str = "") -> None:
        """End it now."""


class Lookout:
    """Looks for all connections of a listener at once. The event loop sees one file, whoever is
    ready, and what needs no decision has been answered when the owners are told of the rest."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = _engine.Sockets(lambda: self._loop.call_soon(self._send))
        self._loop.add_reader(self._sockets, self._look)

    def add(self, fd: int, session: _engine.Session, owner: Owner) -> _engine.Wire:
        """Look after a socket. Raises ``OSError`` if the system has no room for one more."""
        return self._sockets.add(fd, session, owner)

    def close(self) -> None:
        """Look no more."""
        self._loop.remove_reader(self._sockets)

    def _look(self) -> None:
        _tell(self._sockets.look())

    def _send(self) -> None:
        _tell(self._sockets.flush())


def _tell(notices: list[tuple[Owner, int, Any]]) -> None:
    for owner, what, value in notices:
        try:
            owner.told(what, value)
        except Exception:
            # A defect, which must not keep the other owners from what they have to hear.
            logger.exception("a connection was cut, for what it said could not be dealt with")
            owner.cut()
