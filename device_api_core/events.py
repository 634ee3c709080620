"""What happened: the last state changes, operator's acts and refusals, for logs and `events`.

Each kind has its own bounded memory, so that a condition that flaps cannot push an operator's act
out. Every event is also one structured log line; a burst is thinned in the log, never in memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from heapq import merge
from typing import NamedTuple

from device_api_core.validation import shortened

logger = logging.getLogger(__name__)

KEPT_PER_KIND = 1_000
MAX_TEXT_BYTES = 1_024
"""Of a reason or message; both may come from a provider."""
_LOG_BURST = 100
_LOG_PER_SECOND = 20.0


class Kind(StrEnum):
    """Whose doing it was; each kind is remembered separately."""

    HEALTH = "health"
    PROVIDER = "provider"
    OPERATOR = "operator"
    SERVER = "server"


class Event(NamedTuple):
    """One thing that happened. ``sequence`` rises by one; ``time`` is nanoseconds since the Unix
    epoch; ``warning`` marks what an operator should look at."""

    sequence: int
    time: int
    kind: Kind
    warning: bool
    reason: str
    message: str
    gpu: str = ""
    provider_id: str = ""


class _Allowance:
    """Log lines that may be written: a burst, refilled at a steady rate."""

    def __init__(self, now: float) -> None:
        self._lines = float(_LOG_BURST)
        self._refilled = now

    def take(self, now: float) -> bool:
        """Whether one more line may be written."""
        refill = (now - self._refilled) * _LOG_PER_SECOND
        self._lines = min(float(_LOG_BURST), self._lines + refill)
        self._refilled = now
        if self._lines < 1.0:
            return False
        self._lines -= 1.0
        return True


class EventLog:
    """The recent past. ``wall`` gives nanoseconds since the Unix epoch, ``monotonic`` seconds."""

    def __init__(self, *, wall: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._sequence = 0
        self._kept: dict[Kind, deque[Event]] = {k: deque(maxlen=KEPT_PER_KIND) for k in Kind}
        # One each: conditions that flap must not hide that a provider is lost.
        self._allowances = {k: _Allowance(monotonic()) for k in Kind}
        self._suppressed = 0

    def record(
        self,
        kind: Kind,
        reason: str,
        message: str,
        *,
        gpu: str = "",
        provider_id: str = "",
        warning: bool = False,
    ) -> None:
        """Remember an event and log it."""
        self._sequence += 1
        reason, message = shortened(reason, MAX_TEXT_BYTES), shortened(message, MAX_TEXT_BYTES)
        event = Event(
            self._sequence, self._wall(), kind, warning, reason, message, gpu, provider_id
        )
        self._kept[kind].append(event)
        # Operators act at the pace of people and want each act on record.
        if kind is Kind.OPERATOR or self._allowances[kind].take(self._monotonic()):
            self._log(event)
        else:
            self._suppressed += 1

    def newest(self, *, gpu: str = "", provider_id: str = "", limit: int) -> list[Event]:
        """The newest ``limit`` events (all if it is not positive), oldest first; empty filters
        match everything."""
        found: list[Event] = []
        for event in self._newest_first():
            if (gpu and event.gpu != gpu) or (provider_id and event.provider_id != provider_id):
                continue
            found.append(event)
            if len(found) == limit:
                break
        found.reverse()
        return found

    def _newest_first(self) -> Iterator[Event]:
        kinds = (reversed(kept) for kept in self._kept.values())
        return merge(*kinds, key=lambda e: -e.sequence)

    def _log(self, event: Event) -> None:
        level = logging.WARNING if event.warning else logging.INFO
        facts = {"gpu": event.gpu, "provider": event.provider_id, "reason": event.reason}
        extra: dict[str, object] = {k: v for k, v in facts.items() if v}
        if self._suppressed:
            extra["suppressed"] = self._suppressed
            self._suppressed = 0
        logger.log(level, "%s", event.message, extra=extra)
