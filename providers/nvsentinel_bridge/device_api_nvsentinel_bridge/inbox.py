"""What other threads have for the thread of the provider."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted event, its number in the journal, and when it arrived (nanoseconds since the
    Unix epoch)."""

    number: int
    arrival: int
    message: pb.HealthEvent


@dataclass(frozen=True, slots=True)
class Cleared:
    """An operator cleared a condition at that time."""

    gpu: str
    type: str
    when: int


Item = Entry | Cleared


class Inbox:
    """A queue that is emptied at once, so that many events cost one report."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._filled = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Sequence[Item]) -> None:
        """From any thread."""
        with self._filled:
            self._items.extend(items)
            self._filled.notify()

    def take(self, seconds: float) -> list[Item]:
        """Everything there is; waits so long for the first item."""
        with self._filled:
            if not self._items:
                self._filled.wait(max(0.0, seconds))
            items = list(self._items)
            self._items.clear()
            return items
