"""What the engine is to know of each client: how much it may be answered without asking."""

from __future__ import annotations

from collections import Counter

from device_api_core.server.limits import Peer
from device_api_transport_h2 import _engine

GRANT_SECONDS = 0.05
"""For which turns may be taken in advance. After it a client that calls now and then is seen."""


class Accounts:
    """Those of one face: a process has one with all its connections."""

    def __init__(self) -> None:
        self._open: dict[int, _engine.Account] = {}
        self._users: Counter[int] = Counter()

    def __len__(self) -> int:
        """Processes that are connected."""
        return len(self._open)

    def join(self, pid: int) -> _engine.Account:
        """The account of one more connection. A process that cannot be seen, 0, is as many clients
        as it has connections."""
        if not pid:
            return _engine.Account()
        self._users[pid] += 1
        return self._open.setdefault(pid, _engine.Account())

    def leave(self, pid: int) -> None:
        """That connection is over."""
        if not pid:
            return
        self._users[pid] -= 1
        if not self._users[pid]:
            del self._users[pid], self._open[pid]


def grant(account: _engine.Account, peer: Peer, now: float) -> None:
    """Let the engine answer for the peer what is known, for as many calls as are its turn."""
    if account.credit <= 0 or account.credit_until <= now:
        account.credit = peer.advance(account.credit, GRANT_SECONDS)
        account.credit_until = now + GRANT_SECONDS
