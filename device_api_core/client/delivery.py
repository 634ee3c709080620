"""Handing changes to handlers, to each in order and at its own pace.

Every handler has a queue of its own. While there is room it sees every change. When its queue is
full, the changes that wait are **coalesced** per object: of an object that changed five times the
handler will see one change, from what it saw last to what is now, and of one that came and went,
nothing. So the queue never holds more than its capacity or twice the number of objects, whichever
is more; the handler always learns the newest state; and the chain of old and new stays unbroken.

The alternatives were worse. A queue without bound is a leak. Ending a handler that is behind leaves
a consumer that looks alive and is never told that a GPU fell sick. Making the others wait lets one
slow handler decide how fast bad news travels.

A handler that raises is told of the next change all the same; the failure is counted and logged.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic

from device_api_core.client.errors import ConfigurationError
from device_api_core.client.kinds import T
from device_api_core.client.store import Change

logger = logging.getLogger(__name__)

QUEUE_CHANGES = 1_024
"""As many as the server keeps for a slow watcher."""


@dataclass(frozen=True, slots=True)
class Handler(Generic[T]):
    """What to call with an object that came, with the old and the new state of one that changed,
    and with the last state of one that went."""

    on_add: Callable[[T], Any] | None = None
    on_update: Callable[[T, T], Any] | None = None
    on_delete: Callable[[T], Any] | None = None

    def __call__(self, change: Change[T]) -> Any:
        """Call what the change asks for; returns what that returns."""
        if change.old is None:
            return self.on_add(change.new) if self.on_add and change.new is not None else None
        if change.new is None:
            return self.on_delete(change.old) if self.on_delete else None
        return self.on_update(change.old, change.new) if self.on_update else None


class PendingChanges(Generic[T]):
    """The changes that wait for one handler. ``capacity`` is when to coalesce."""

    def __init__(self, capacity: int = QUEUE_CHANGES) -> None:
        if capacity < 1:
            raise ConfigurationError(f"a queue must have room for 1 change or more, not {capacity}")
        self._capacity = capacity
        self._limit = capacity
        self._changes: deque[Change[T]] = deque()
        self.coalesced = 0
        """Changes that were merged into others, since the start."""

    def __len__(self) -> int:
        return len(self._changes)

    def push(self, change: Change[T]) -> None:
        """Queue a change."""
        self._changes.append(change)
        if len(self._changes) > self._limit:
            self._coalesce()

    def pop(self) -> Change[T] | None:
        """The next change, if there is one."""
        return self._changes.popleft() if self._changes else None

    def clear(self) -> None:
        """Drop what waits."""
        self._changes.clear()

    def _coalesce(self) -> None:
        before = len(self._changes)
        merged: dict[str, Change[T]] = {}
        for change in self._changes:
            earlier = merged.get(change.name, change)
            merged[change.name] = Change(earlier.old, change.new)
        self._changes = deque(c for c in merged.values() if c != Change(None, None))
        self.coalesced += before - len(self._changes)
        # Not before as many came again: with many objects every change would coalesce otherwise.
        self._limit = max(self._capacity, 2 * len(self._changes))


class Registration(Generic[T]):
    """One handler of an informer, and how it fares. Returned by ``add_handler``; may be read from
    any thread.

    ``wake`` tells whoever runs the handler that there is something to do.
    """

    def __init__(
        self, handler: Handler[T], *, name: str, capacity: int, wake: Callable[[], object]
    ) -> None:
        self.handler = handler
        self.name = name
        self._wake = wake
        self._lock = threading.Lock()
        self._pending: PendingChanges[T] = PendingChanges(capacity)
        self._caught_up = False
        self._initial = False
        self._busy = False
        self.ended = False
        """Whether nothing is delivered any more."""
        self.delivered = 0
        """Changes that the handler was called for, failures included."""
        self.failures = 0
        """How often the handler raised."""
        self.last_error: Exception | None = None
        """What it raised last."""

    def __repr__(self) -> str:
        return (
            f"<Registration {self.name} delivered={self.delivered} pending={self.pending} "
            f"coalesced={self.coalesced} failures={self.failures}>"
        )

    @property
    def pending(self) -> int:
        """Changes that wait."""
        return len(self._pending)

    @property
    def coalesced(self) -> int:
        """Changes that the handler did not see one by one because it was behind."""
        return self._pending.coalesced

    @property
    def has_synced(self) -> bool:
        """Whether the handler was called for everything that the first list held."""
        return self._caught_up

    def push(self, changes: Iterable[Change[T]], *, initial: bool = False) -> None:
        """Queue changes; ``initial`` says that with them everything known was queued."""
        with self._lock:
            if self.ended:
                return
            for change in changes:
                self._pending.push(change)
            self._initial = self._initial or initial
            self._note_caught_up()
        self._wake()

    def pop(self) -> Change[T] | None:
        """The next change to call the handler for, ``None`` if nothing waits."""
        with self._lock:
            change = self._pending.pop()
            self._busy = change is not None
            return change

    def done(self, error: Exception | None = None) -> None:
        """The handler was called for the change of the last :meth:`pop`, and raised that."""
        with self._lock:
            self._busy = False
            self.delivered += 1
            if error is not None:
                self.failures += 1
                self.last_error = error
            self._note_caught_up()
        if error is not None:
            logger.error("handler %s raised", self.name, exc_info=error)

    def remove(self) -> None:
        """Deliver nothing more to this handler; what waits is dropped. May be repeated."""
        with self._lock:
            self.ended = True
            self._pending.clear()
        self._wake()

    def _note_caught_up(self) -> None:
        if self._initial and not self._busy and not self._pending:
            self._caught_up = True


def name_of(*calls: Callable[..., Any] | None) -> str:
    """What to call a handler of these functions in a log."""
    return next((getattr(c, "__qualname__", repr(c)) for c in calls if c is not None), "nothing")
