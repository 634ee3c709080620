"""How much one peer may ask for, so that it cannot starve the others.

A peer is what the transport can tell apart: the holder of a client certificate, else a TCP
connection, else a process at a unix socket, or everybody there where processes cannot be told
apart. A peer that calls faster than its rate waits for its
turn, and one that would wait too long is refused. Waiting costs the server nothing, while a refusal
costs as much as an answer. When several peers call, each is held to a pace that leaves the event
loop room for the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from device_api_core.errors import RATE, LimitExceeded
from device_api_core.server.traffic import Traffic
from device_api_core.watch import MAX_WATCHES, WATCHER_LIMIT

Result = TypeVar("Result")

UNSENT_BYTES = 64 * 1024 * 1024
LARGE_BYTES = 64 * 1024
"""Answers beyond this count until the client has taken them."""

_LONGEST_WAIT_SECONDS = 5.0
_LONGEST_REST_SECONDS = 0.05
"""For which a peer is not heard because its calls wait: it may want to cancel them."""
_REMEMBERED = 1_024


class Limits(NamedTuple):
    """Of one peer: ``reads`` and ``writes`` are calls a second, ``burst`` the calls it may make at
    once after a pause, ``calls`` those that may be open at a time, ``streams`` its open streams."""

    reads: int = 10_000
    writes: int = 3_000
    burst: int = 32
    calls: int = 512
    streams: int = 512
    watches: int = MAX_WATCHES
    """Of all peers together."""

    def sharing(self, watches: int) -> Limits:
        """The same where all peers together may have more watches: each has its part. Fewer change
        nothing here, since an update that is held is a stream, too."""
        if watches <= self.watches:
            return self
        streams = self.streams * watches // self.watches
        return self._replace(streams=streams, watches=watches)

    @property
    def of_a_crowd(self) -> Limits:
        """The same where a peer is everybody at a socket, who may all come back at once."""
        return self._replace(burst=256, calls=4_096, streams=self.watches)

    @property
    def of_a_process(self) -> Limits:
        """The same where a peer is a process of this node: it may call and watch for many others,
        and still leaves watches to the rest."""
        return self._replace(calls=4 * self.calls, streams=3 * self.streams)


class Peer:
    """The account of one peer."""

    __slots__ = (
        "_limits",
        "_next_read",
        "_next_write",
        "_traffic",
        "calls",
        "paid_until",
        "seen",
        "seen_before",
        "streams",
    )

    def __init__(self, limits: Limits, traffic: Traffic) -> None:
        self._limits = limits
        self._traffic = traffic
        self._next_read = self._next_write = 0.0
        self.seen = self.seen_before = -math.inf
        """When the last two windows began in which it was counted; the traffic's business."""
        self.paid_until = -math.inf
        """The time of the loop that it has used counts as its own until then; the traffic's
        business, too."""
        self.calls = 0
        self.streams = 0

    @property
    def idle(self) -> bool:
        """Whether forgetting this account gives nothing away."""
        due = max(self._next_read, self._next_write, self.paid_until)
        return not self.calls and not self.streams and due < self._traffic.clock()

    def used(self, seconds: float) -> None:
        """Note that the loop has just worked so long for it, whatever it wanted."""
        self._traffic.charge(self, seconds)

    def debt(self) -> float:
        """For how many seconds nothing should be heard of it, if that is more than 0: until others
        have had their part. Only a transport that can hold a client back asks."""
        return self.paid_until - self._traffic.clock()

    def rest(self) -> float:
        """The same after something was heard. More calls would only wait beside those that do, or
        be refused."""
        waits = max(self._next_read, self._next_write) - self._traffic.clock()
        return max(self.debt(), min(waits, _LONGEST_REST_SECONDS))

    def open_stream(self) -> None:
        """Count a stream. Raises ``LimitExceeded`` for one too many."""
        if self.streams >= self._limits.streams:
            raise LimitExceeded(
                f"all {self._limits.streams} streams of one client are in use",
                reason=WATCHER_LIMIT,
            )
        self.streams += 1

    def close_stream(self) -> None:
        """One of the counted streams is over."""
        self.streams -= 1

    def advance(self, unused: int, seconds: float) -> int:
        """Take the turns for reads that it has now, no more than as many as come in so many
        ``seconds``, for which they are meant; returns how many. ``unused`` are left of those that
        it took before."""
        now = self._traffic.clock()
        rate = min(self._limits.reads, self._traffic.pace(self, now))
        due = max(self._next_read - unused / rate, now - self._limits.burst / rate)
        turns = max(int(min(now - due, seconds) * rate), 0)
        self._traffic.note(turns - unused)
        self._next_read = due + turns / rate
        return turns

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
        self._traffic.note(1)
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
        return self._peers.get(key) or self._open(key, self._limits)

    def process(self, pid: int) -> Peer:
        """The account of a process that is connected to a unix socket."""
        return self._peers.get(pid) or self._open(pid, self._limits.of_a_process)

    def _open(self, key: Hashable, limits: Limits) -> Peer:
        if len(self._peers) >= _REMEMBERED:
            self._peers = {k: p for k, p in self._peers.items() if not p.idle}
        opened = self._peers[key] = Peer(limits, self._traffic)
        return opened

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

    async def turn(self, peer: Peer) -> None:
        """Wait for the peer's turn. Raises ``LimitExceeded`` if there is none."""
        await self.call(peer, _nothing, b"", writes=False)

    async def exchange(
        self,
        peer: Peer,
        run: Callable[[AsyncIterator[bytes]], Awaitable[None]],
        requests: AsyncIterator[bytes],
        *,
        writes: bool,
    ) -> None:
        """Run an exchange when it is the peer's turn. Raises as :meth:`call` and
        :meth:`stream`."""

        async def begin(_: bytes) -> None:
            with self.stream(peer):
                # Each request is a read. What writes is bounded by itself, and others wait for it.
                await run(requests if writes else self._paced(peer, requests))

        await self.call(peer, begin, b"", writes=writes)

    async def _paced(self, peer: Peer, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            await self.turn(peer)
            yield request

    @contextmanager
    def stream(self, peer: Peer) -> Iterator[None]:
        """A stream of the peer is open inside. Raises ``LimitExceeded`` for one too many."""
        peer.open_stream()
        try:
            yield
        finally:
            peer.close_stream()

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


async def _nothing(_: bytes) -> None:
    return None
