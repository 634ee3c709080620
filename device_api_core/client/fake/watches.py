"""The watches of a fake node: a history to resume from, and a bounded queue for each watcher."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from device_api_core.errors import DeviceApiError, LimitExceeded, WatchExpired

HISTORY_EVENTS = 4_096
QUEUE_EVENTS = 1_024
BOOKMARK_SECONDS = 30.0


class Subscription:
    """One watcher's events. ``wake`` is called, in any thread, when there is something to read."""

    def __init__(self, initial: Iterable[bytes], wake: Callable[[], object]) -> None:
        self._initial = deque(initial)
        self._queue: deque[bytes] = deque()
        self._error: DeviceApiError | None = None
        self._wake = wake

    def put(self, frame: bytes, limit: int) -> bool:
        """Queue an event; returns whether it found room."""
        if len(self._queue) >= limit:
            return False
        self._queue.append(frame)
        self._wake()
        return True

    def end(self, error: DeviceApiError) -> None:
        """What was not read is dropped; the reader gets ``error``."""
        self._initial.clear()
        self._queue.clear()
        self._error = error
        self._wake()

    def next(self) -> bytes | None:
        """The next event, ``None`` if there is none yet. Raises what ended the watch."""
        if self._initial:
            return self._initial.popleft()
        if self._queue:
            return self._queue.popleft()
        if self._error is not None:
            raise self._error.with_traceback(None)
        return None


class Watches:
    """All watchers and the history. The caller sees to it that one thread at a time is here."""

    def __init__(self, version: int) -> None:
        self.queue_events = QUEUE_EVENTS
        self.history_events = HISTORY_EVENTS
        self._version = version
        self._floor = version
        self._history: deque[tuple[int, bytes]] = deque()
        self._subscriptions: set[Subscription] = set()

    def publish(self, version: int, frame: bytes) -> None:
        """Queue one event for everybody; whoever has no room is ended."""
        self._version = version
        self._history.append((version, frame))
        while len(self._history) > self.history_events:
            self._floor, _ = self._history.popleft()
        for subscription in tuple(self._subscriptions):
            if not subscription.put(frame, self.queue_events):
                self._subscriptions.discard(subscription)
                subscription.end(
                    LimitExceeded(
                        f"the watcher fell {self.queue_events} events behind and was ended: list "
                        "again and watch from that version",
                        reason="slow-watcher",
                    )
                )

    def since(self, version: int) -> list[bytes]:
        """The events after a version. Raises ``WatchExpired``."""
        if version > self._version:
            raise WatchExpired(
                f"version {version} is newer than this server's {self._version}: list again"
            )
        if version < self._floor:
            raise WatchExpired(
                f"version {version} is older than the event history, which begins after "
                f"{self._floor}: list again"
            )
        return [frame for at, frame in self._history if at > version]

    def add(self, subscription: Subscription) -> None:
        """From now on it gets every event."""
        self._subscriptions.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Its client has gone."""
        self._subscriptions.discard(subscription)

    def end(self, error: DeviceApiError) -> None:
        """End every watch with an error."""
        ending, self._subscriptions = self._subscriptions, set()
        for subscription in ending:
            subscription.end(error)

    def forget(self, version: int | None = None) -> None:
        """The history begins anew, at a version if one is given."""
        self._version = self._version if version is None else version
        self._floor = self._version
        self._history.clear()
