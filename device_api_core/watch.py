"""Watch: every subscriber gets every change once and in order, or an error that says otherwise.

The hub appends encoded events to bounded queues and to a short history; it never waits and does
no I/O. A subscriber that does not keep up is ended with an error: nothing is dropped silently.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

from device_api_core.durations import DELIVERY_SECONDS, Durations
from device_api_core.errors import DeviceApiError, LimitExceeded, WatchExpired

HISTORY_EVENTS = 4_096
HISTORY_BYTES = 16 * 1024 * 1024
"""The history also ends here: 4,096 objects of 64 KiB would be 256 MiB."""
QUEUE_EVENTS = 1_024
MAX_WATCHES = 2_000
BOOKMARK_SECONDS = 30.0

SLOW_WATCHER = "slow-watcher"
WATCHER_LIMIT = "watcher-limit"


class Subscription:
    """One watcher's events. Created by :meth:`WatchHub.subscribe`, read by one transport call."""

    __slots__ = (
        "_hub",
        "_initial",
        "_queue",
        "_timer",
        "_waiter",
        "error",
        "on_end",
        "on_event",
        "on_ready",
    )

    def __init__(self, hub: WatchHub, initial: Iterable[bytes]) -> None:
        self._hub = hub
        # Lists, although they are taken from as queues are: an empty deque takes 760 bytes, and
        # these are empty most of the time. The first event of the initial state is the last here.
        self._initial = list(initial)[::-1]
        self._queue: list[tuple[float, bytes]] = []
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.error: DeviceApiError | None = None
        self.on_end: Callable[[], None] | None = None
        """Called when the hub ends the subscription: a transport that is blocked in a write to a
        slow client must be told, since it will not come back to read the error."""
        self.on_ready: Callable[[], None] | None = None
        """Called when there is something to take: a transport needs no task per idle watcher."""
        self.on_event: Callable[[bytes], bool] | None = None
        """Called with an event that nothing waits before, which it takes by returning True."""

    def __repr__(self) -> str:
        return f"<Subscription {self.queued} queued, error={self.error!r}>"

    @property
    def queued(self) -> int:
        """Events that wait for the client, the initial state included."""
        return len(self._initial) + len(self._queue)

    def take(self) -> bytes | None:
        """The next encoded event, or ``None`` if there is none yet. Raises the error that ended the
        subscription."""
        if self._initial:
            return self._initial.pop()
        if self._queue:
            put, frame = self._queue.pop(0)
            self._hub.deliveries.observed(self._hub.clock() - put)
            return frame
        if self.error is not None:
            raise self.error.with_traceback(None)
        return None

    async def next(self) -> bytes:
        """The next encoded event. Raises the error that ended the subscription."""
        while (event := self.take()) is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return event

    def close(self) -> None:
        """The client is gone: free the queue and the slot. Idempotent."""
        self._hub.remove(self)

    def pass_on(self, frame: bytes) -> bool:
        """Hand an event over at once; the hub's business. Returns whether it was taken."""
        if self.on_event is None or self._queue or self._initial:
            return False
        return self.on_event(frame)

    def put(self, event: tuple[float, bytes], limit: int) -> bool:
        """Queue an event with the time of its change. Returns whether it found room; the hub's
        business."""
        if len(self._queue) >= limit:
            return False
        self._queue.append(event)
        self._wake()
        return True

    def end(self, error: DeviceApiError | None) -> None:
        """Free everything; the reader, if any, gets ``error``. The hub's business."""
        self._initial.clear()
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
        if error is None:
            return
        self.error = error
        self._wake()
        if self.on_end is not None:
            self.on_end()

    def bookmark_when_quiet(
        self, seconds: float, silence: Callable[[], float], bookmark: Callable[[], bytes]
    ) -> None:
        """Queue a bookmark after each ``seconds`` without an event; the hub's business.
        ``silence`` tells how long ago the last event was."""

        def check() -> None:
            left = seconds - silence()
            if left <= 0:
                left = seconds
                # A client that has not read what came before needs no bookmark to resume from.
                if not self.queued:
                    # Not into the queue, whose events are timed.
                    self._initial.append(bookmark())
                    self._wake()
            self._timer = loop.call_later(left, check)

        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, check)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.on_ready is not None:
            self.on_ready()


class WatchHub:
    """Fans events out. ``version`` is the counter's value before the first event, ``clock`` is
    monotonic seconds."""

    def __init__(
        self,
        version: int,
        *,
        encode_bookmark: Callable[[int], bytes],
        queue_events: int = QUEUE_EVENTS,
        history_events: int = HISTORY_EVENTS,
        history_bytes: int = HISTORY_BYTES,
        max_watches: int = MAX_WATCHES,
        bookmark_seconds: float = BOOKMARK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = version
        self._floor = version
        self._encode_bookmark = encode_bookmark
        self.queue_events = queue_events
        self._history_events = history_events
        self._history_bytes = history_bytes
        self.max_watches = max_watches
        self._bookmark_seconds = bookmark_seconds
        self.clock = clock
        self._spoken = clock()
        # Two, for a tuple around each would take 70 bytes more.
        self._versions: deque[int] = deque()
        self._history: deque[bytes] = deque()
        self._history_size = 0
        self._subscriptions: dict[Subscription, None] = {}
        self._closed: DeviceApiError | None = None
        self.ended_slow = 0
        """Watchers that were ended because they did not keep up, since start."""
        self.deliveries = Durations(DELIVERY_SECONDS)
        """Seconds from a change to when a watcher's transport took it."""

    def __repr__(self) -> str:
        return f"<WatchHub version={self.version} watchers={self.active}>"

    @property
    def active(self) -> int:
        """Open subscriptions."""
        return len(self._subscriptions)

    @property
    def deepest_queue(self) -> int:
        """Events queued for the slowest watcher."""
        return max((s.queued for s in self._subscriptions), default=0)

    def publish(self, version: int, frame: bytes) -> None:
        """Queue one event for every subscriber, in the same step in which the change was made."""
        self.version = version
        self._spoken = self.clock()
        self._remember(version, frame)
        event = self._spoken, frame
        behind = [s for s in self._subscriptions if not s.pass_on(frame)]
        if taken := self.active - len(behind):
            self.deliveries.observed(self.clock() - self._spoken, taken)
        slow = [s for s in behind if not s.put(event, self.queue_events)]
        for subscription in slow:
            self.ended_slow += 1
            self._end(
                subscription,
                LimitExceeded(
                    f"the watcher fell {self.queue_events} events behind and was ended: list "
                    "again and watch from that version",
                    reason=SLOW_WATCHER,
                ),
            )

    def subscribe(
        self,
        initial: Iterable[bytes],
        *,
        since: int | None = None,
        bookmarks: bool = False,
        bookmark_initial: bool = False,
    ) -> Subscription:
        """Open a subscription in one step with the caller's snapshot.

        ``initial`` are the encoded ADDED events of the snapshot. With ``since`` the events after
        that version are used instead. ``bookmarks`` asks for them after silence,
        ``bookmark_initial`` for one at the end of the initial state.

        Raises:
            WatchExpired: ``since`` is older than the history or newer than the server.
            LimitExceeded: too many watches.
            Unavailable: shutting down.
        """
        if self._closed is not None:
            # Raised many times, it would collect a longer traceback each time.
            raise self._closed.with_traceback(None)
        if self.active >= self.max_watches:
            raise LimitExceeded(f"all {self.max_watches} watches are in use", reason=WATCHER_LIMIT)
        frames = list(initial) if since is None else self._after(since)
        if bookmark_initial:
            frames.append(self._encode_bookmark(self.version))
        subscription = Subscription(self, frames)
        self._subscriptions[subscription] = None
        if bookmarks:
            subscription.bookmark_when_quiet(
                self._bookmark_seconds,
                lambda: self.clock() - self._spoken,
                lambda: self._encode_bookmark(self.version),
            )
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Free a subscription whose client has gone."""
        if subscription in self._subscriptions:
            del self._subscriptions[subscription]
            subscription.end(None)

    def close(self, error: DeviceApiError) -> None:
        """End every watch with ``error`` and refuse new ones with it."""
        self._closed = error
        for subscription in tuple(self._subscriptions):
            self._end(subscription, error)

    def _end(self, subscription: Subscription, error: DeviceApiError) -> None:
        # Ending one may have closed another: a client's connection carries many.
        if subscription in self._subscriptions:
            del self._subscriptions[subscription]
            subscription.end(error)

    def _remember(self, version: int, frame: bytes) -> None:
        self._versions.append(version)
        self._history.append(frame)
        self._history_size += len(frame)
        while len(self._history) > self._history_events or self._history_size > self._history_bytes:
            self._floor = self._versions.popleft()
            self._history_size -= len(self._history.popleft())

    def _after(self, since: int) -> list[bytes]:
        if since > self.version:
            raise WatchExpired(
                f"version {since} is newer than this server's {self.version}: list again"
            )
        if since < self._floor:
            raise WatchExpired(
                f"version {since} is older than the event history, which begins after "
                f"{self._floor}: list again"
            )
        frames: list[bytes] = []
        for version, frame in zip(reversed(self._versions), reversed(self._history), strict=True):
            if version <= since:
                break
            frames.append(frame)
        frames.reverse()
        return frames
