"""How a store follows a server: list, then watch from that version, and what to do on a failure.

Here it is only decided; nothing waits. A reflector (of threads, or of asyncio) asks for the next
:data:`Step`, takes it, and tells what came of it:

* the first step, and every one after the version was lost, is a list;
* after a list it is a watch from the list's version, so that nothing is missed between the two;
* after a broken stream it is, after a pause, a watch from the last version seen, bookmarks
  included: the server sends exactly what was missed;
* when the server no longer has that version (``WatchExpired``), or ended the watch because this
  client fell behind (``slow-watcher``), it is a list, at once: what the client has is old. If that
  happens again before any event came, there is a pause: the server's history is too short for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from device_api_core.client.errors import (
    SLOW_WATCHER,
    InvalidArgument,
    LimitExceeded,
    WatchExpired,
)
from device_api_core.client.kinds import Resource, ResourceList, T
from device_api_core.client.retry import Backoff
from device_api_core.client.store import Change, Store
from device_api_core.client.watch import WatchEvent

T_contra = TypeVar("T_contra", bound=Resource, contravariant=True)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class List:
    """List, and report with ``listed``."""


@dataclass(frozen=True, slots=True)
class WatchFrom:
    """Watch the changes after a version, with bookmarks, and report each with ``received``."""

    resource_version: int


Step = Pause | List | WatchFrom


class Follower(Protocol[T_contra]):
    """What a reflector drives. ``began`` is when the list was asked for, in seconds of the
    monotonic clock; whatever ends a list or a watch is ``failed``."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is wanted."""

    def step(self) -> Step: ...

    def listed(self, listed: ResourceList[T_contra], began: float) -> object: ...

    def received(self, event: WatchEvent[T_contra]) -> object: ...

    def failed(self, error: Exception) -> object: ...


class Reflection(Generic[T]):
    """Keeps a store equal to the server's list. Used by one thread."""

    def __init__(self, store: Store[T], backoff: Backoff) -> None:
        self.store = store
        self._backoff = backoff
        self._version: int | None = None
        self._pause_seconds = 0.0
        self._may_list_at_once = True

    def __repr__(self) -> str:
        return f"<Reflection of {self.store!r} after version {self._version}>"

    def step(self) -> Step:
        """What to do next."""
        if self._pause_seconds:
            pause, self._pause_seconds = self._pause_seconds, 0.0
            return Pause(pause)
        return List() if self._version is None else WatchFrom(self._version)

    def listed(self, listed: ResourceList[T]) -> list[Change[T]]:
        """A list arrived. Returns what it changes."""
        # A failure here must lead to another list.
        changes = self.store.replace(listed)
        self._version = listed.resource_version
        return changes

    def received(self, event: WatchEvent[T]) -> Change[T] | None:
        """An event arrived. Returns what it changes."""
        change = self.store.apply(event)
        self._version = max(self._version or 0, event.resource_version)
        self._backoff.reset()
        self._may_list_at_once = True
        return change

    def failed(self, error: Exception) -> None:
        """The list or the watch ended."""
        behind = isinstance(error, LimitExceeded) and error.reason == SLOW_WATCHER
        if behind or isinstance(error, WatchExpired):
            self._version = None
            if self._may_list_at_once:
                self._may_list_at_once = False
                return
        elif isinstance(error, InvalidArgument):
            self._version = None
        self._pause_seconds = self._backoff.pause()

    def distrust(self) -> None:
        """What was seen may not have been applied: the next step is a list."""
        self._version = None
