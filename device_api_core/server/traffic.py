"""What the peers of one event loop use of it, and how fast each may go beside the others."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_api_core.server.limits import Peer

_SHARE = 0.8
"""Of the event loop's time, what all peers together get as soon as they are several, each the same
part of it: one that wants everything leaves room for the rest."""
_SLOWEST_PER_SECOND = 20
_SAMPLE_CALLS = 256
_CHEAPEST_SECONDS, _DEAREST_SECONDS = 0.00002, 0.002
_WINDOW_SECONDS = 1.0
_SCHEDSTAT = "/proc/thread-self/schedstat"
_AHEAD_SECONDS = 0.005
"""Of the event loop's time that a peer may use at once after a pause, while others call."""


def thread_seconds() -> float:
    """What this thread has run, and has waited for a processor that others used."""
    try:
        descriptor = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # A kernel that does not keep these counts the first one elsewhere.
        return time.thread_time()
    try:
        running, waiting, _ = os.read(descriptor, 128).split()
    finally:
        os.close(descriptor)
    return (int(running) + int(waiting)) / 1e9


class Traffic:
    """Who calls, over all faces of one event loop, and what that costs it. ``clock`` is monotonic
    seconds, ``spent`` the seconds of this thread that were not idle."""

    __slots__ = (
        "_before",
        "_began",
        "_calls",
        "_previous",
        "_cost",
        "_now",
        "_spent",
        "_spent_before",
        "clock",
    )

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = thread_seconds,
    ) -> None:
        self.clock = clock
        self._spent = spent
        self._spent_before = spent()
        self._cost = _CHEAPEST_SECONDS
        self._calls = 0
        self._began = self._previous = -math.inf
        self._before = 0
        self._now = 0

    def note(self, calls: int) -> None:
        """Count calls, for what one costs."""
        self._calls += calls
        if self._calls >= _SAMPLE_CALLS:
            self._measure()

    def pace(self, peer: Peer, now: float) -> float:
        """How many calls a second a peer who calls now may make beside the others who have called
        lately."""
        peers = self._count(peer, now)
        return math.inf if peers < 2 else max(_SHARE / self._cost / peers, _SLOWEST_PER_SECOND)

    def charge(self, peer: Peer, seconds: float) -> None:
        """Note that the loop has just worked so long for a peer: beside others who call that counts
        as its part of a longer time. It is no call itself: a watcher that acknowledges what it is
        sent slows nobody down."""
        now = self.clock()
        if (peers := self._others(peer, now) + 1) >= 2:
            begins = max(peer.paid_until, now - seconds - _AHEAD_SECONDS)
            peer.paid_until = begins + seconds * peers / _SHARE

    def _count(self, peer: Peer, now: float) -> int:
        """How many have called lately, this one now."""
        others = self._others(peer, now)
        if peer.seen != self._began:
            peer.seen_before, peer.seen = peer.seen, self._began
            self._now += 1
        return others + 1

    def _others(self, peer: Peer, now: float) -> int:
        if now - self._began >= _WINDOW_SECONDS:
            self._before = self._now if now - self._began < 2 * _WINDOW_SECONDS else 0
            self._previous, self._began, self._now = self._began, now, 0
        before = self._before - (self._previous in {peer.seen, peer.seen_before})
        return max(self._now - (peer.seen == self._began), before, 0)

    def _measure(self) -> None:
        spent = self._spent()
        cost = (spent - self._spent_before) / self._calls
        self._spent_before, self._calls = spent, 0
        # Between these, whatever else the thread did: a start, a scrape, a long sleep.
        self._cost = min(max(cost, _CHEAPEST_SECONDS), _DEAREST_SECONDS)
