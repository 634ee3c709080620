"""How much one peer may ask for, so that it cannot starve the others.

A peer is what the transport can tell apart: the holder of a client certificate, else a TCP
connection, else everybody at one unix socket. A peer that calls faster than its rate waits for its
turn, and one that would wait too long is refused. Waiting costs the server nothing, while a refusal
costs as much as an answer. When several peers call, each is held to a pace that leaves the event
loop room for the others.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from device_api_core.errors import RATE, LimitExceeded
from device_api_core.watch import MAX_WATCHES, WATCHER_LIMIT

Result = TypeVar("Result")

UNSENT_BYTES = 64 * 1024 * 1024
LARGE_BYTES = 64 * 1024
"""Answers beyond this count until the client has taken them."""

_SHARE = 0.8
"""Of the event loop's time, what all peers together get as soon as they are several, each the same
part of it: one that wants everything leaves room for the rest."""
_SLOWEST_PER_SECOND = 20
_SAMPLE_CALLS = 256
_CHEAPEST_SECONDS, _DEAREST_SECONDS = 0.0001, 0.002
_WINDOW_SECONDS = 1.0
_SCHEDSTAT = "/proc/thread-self/schedstat"
_LONGEST_WAIT_SECONDS = 5.0
_REMEMBERED = 1_024


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


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one peer: ``reads`` and ``writes`` are calls a second, ``burst`` the calls it may make at
    once after a pause, ``calls`` those that may be open at a time, ``streams`` its open streams."""

    reads: int = 10_000
    writes: int = 3_000
    burst: int = 32
    calls: int = 512
    streams: int = 512

    @property
    def of_a_crowd(self) -> Limits:
        """The same where a peer is everybody at a socket, who may all come back at once."""
        return replace(self, burst=256, calls=4_096, streams=MAX_WATCHES)


class Traffic:
    """Who calls, over all faces of one event loop, and what a call costs that loop. ``clock`` is
    monotonic seconds, ``spent`` the seconds of this thread that were not idle."""

    __slots__ = ("_before", "_began", "_calls", "_cost", "_now", "_spent", "_spent_before", "clock")

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
        self._began = -math.inf
        self._before = 0
        self._now = 0

    def pace(self, peer: Peer, now: float) -> float:
        """Note a call; returns how many a second its peer may make beside the others who have
        called lately."""
        self._calls += 1
        if self._calls >= _SAMPLE_CALLS:
            self._measure()
        if now - self._began >= _WINDOW_SECONDS:
            self._before = self._now if now - self._began < 2 * _WINDOW_SECONDS else 0
            self._began, self._now = now, 0
        if peer.seen != self._began:
            peer.seen = self._began
            self._now += 1
        peers = max(self._now, self._before)
        return math.inf if peers < 2 else max(_SHARE / self._cost / peers, _SLOWEST_PER_SECOND)

    def _measure(self) -> None:
        spent = self._spent()
        cost = (spent - self._spent_before) / self._calls
        self._spent_before, self._calls = spent, 0
        # Between these, whatever else the thread did: a start, a scrape, a long sleep.
        self._cost = min(max(cost, _CHEAPEST_SECONDS), _DEAREST_SECONDS)


class Peer:
    """The account of one peer."""

    __slots__ = ("_limits", "_next_read", "_next_write", "_traffic", "calls", "seen", "streams")

    def __init__(self, limits: Limits, traffic: Traffic) -> None:
        self._limits = limits
        self._traffic = traffic
        self._next_read = self._next_write = 0.0
        self.seen = -math.inf
        """When the window began in which it was last counted; the traffic's business."""
        self.calls = 0
        self.streams = 0

    @property
    def idle(self) -> bool:
        """Whether forgetting this account gives nothing away."""
        due = max(self._next_read, self._next_write)
        return not self.calls and not self.streams and due < self._traffic.clock()

    def open_stream(self) -> None:
        """Count a stream. Raises ``LimitExceeded`` for one too many."""
        if self.streams >= self._limits.streams:
            raise LimitExceeded(
                f"all {self._limits.streams} streams of one client are in use",
                reason=WATCHER_LIMIT,
            )
        self.streams += 1

    def arrive(self, *, writes: bool) -> float:
        """Take a turn for a call; returns how many seconds it has to wait for it.

        Raises:
            LimitExceeded: it calls too fast, or too many calls are open.
        """
        if self.calls >= self._limits.calls:
            raise LimitExceeded(
                f"all {self._limits.calls} calls at a time are in use: wait for some to end",
                reason=RATE,
            )
        now = self._traffic.clock()
        rate: float = self._limits.writes if writes else self._limits.reads
        pace = self._traffic.pace(self, now)
        if pace < rate:
            rate = pace
        due = self._next_write if writes else self._next_read
        earliest = now - self._limits.burst / rate
        if due < earliest:
            due = earliest
        if due - now > _LONGEST_WAIT_SECONDS:
            raise LimitExceeded(
                f"more than {rate:.0f} {'writes' if writes else 'reads'} a second: call less often",
                reason=RATE,
            )
        if writes:
            self._next_write = due + 1 / rate
        else:
            self._next_read = due + 1 / rate
        return due - now


class Limiter:
    """Counts and paces the calls of one face. ``unsent_bytes`` is what all its clients together
    may leave unread of large answers."""

    def __init__(
        self,
        limits: Limits | None = None,
        traffic: Traffic | None = None,
        unsent_bytes: int = UNSENT_BYTES,
    ) -> None:
        self.unsent = 0
        """Bytes of large answers that clients have not taken yet."""
        self._limits = limits or Limits()
        self._traffic = traffic or Traffic()
        self._unsent_bytes = unsent_bytes
        self.everybody = Peer(self._limits.of_a_crowd, self._traffic)
        """The account of all whom the transport cannot tell apart."""
        self._peers: dict[Hashable, Peer] = {}
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        """Accounts that are kept."""
        return len(self._peers)

    def peer(self, key: Hashable) -> Peer:
        """The account of the peer that the transport tells apart by ``key``."""
        found = self._peers.get(key)
        if found is None:
            if len(self._peers) >= _REMEMBERED:
                self._peers = {k: p for k, p in self._peers.items() if not p.idle}
            found = self._peers[key] = Peer(self._limits, self._traffic)
        return found

    async def call(
        self, peer: Peer, call: Callable[[bytes], Awaitable[Result]], data: bytes, *, writes: bool
    ) -> Result:
        """Make a call when it is the peer's turn. Raises ``LimitExceeded`` as :meth:`Peer.arrive`,
        and what the call raises."""
        delay = peer.arrive(writes=writes)
        peer.calls += 1
        try:
            if delay > 0:
                await asyncio.sleep(delay)
            return await call(data)
        finally:
            peer.calls -= 1

    @contextmanager
    def stream(self, peer: Peer) -> Iterator[None]:
        """A stream of the peer is open inside. Raises ``LimitExceeded`` for one too many."""
        peer.open_stream()
        try:
            yield
        finally:
            peer.streams -= 1

    async def room(self, size: int) -> Callable[[], None]:
        """Wait until a large answer has room beside those that clients have not taken yet; returns
        what to call when it is sent or dropped. Raises ``LimitExceeded`` if room does not come."""
        try:
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                while self.unsent and self.unsent + size > self._unsent_bytes:
                    self._taken.clear()
                    await self._taken.wait()
        except TimeoutError:
            raise LimitExceeded(
                f"clients have {self.unsent} bytes of answers to read: try again", reason=RATE
            ) from None
        self.unsent += size

        def taken() -> None:
            self.unsent -= size
            self._taken.set()

        return taken
