"""What happened: the last state changes, operator's acts and refusals, for logs and `events`.

Each kind has its own bounded memory, so that a condition that flaps cannot push an operator's act
out. Every event is also one structured log line; a burst is thinned in the log, never in memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge

logger = logging.getLogger(__name__)

KEPT_PER_KIND = 1_000
_LOG_BURST = 100
_LOG_PER_SECOND = 20.0


class Kind(StrEnum):
    """Whose doing it was; each kind is remembered separately."""

    HEALTH = "health"
    PROVIDER = "provider"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Event:
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


class EventLog:
    """The recent past. ``wall`` gives nanoseconds since the Unix epoch, ``monotonic`` seconds."""

    def __init__(self, *, wall: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._sequence = 0
        self._kept: dict[Kind, deque[Event]] = {k: deque(maxlen=KEPT_PER_KIND) for k in Kind}
        self._allowance = float(_LOG_BURST)
        self._refilled = monotonic()
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
        event = Event(
            self._sequence, self._wall(), kind, warning, reason, message, gpu, provider_id
        )
        self._kept[kind].append(event)
        if kind is not Kind.HEALTH or self._may_log():
            self._log(event)

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

    def _may_log(self) -> bool:
        now = self._monotonic()
        refill = (now - self._refilled) * _LOG_PER_SECOND
        self._allowance = min(float(_LOG_BURST), self._allowance + refill)
        self._refilled = now
        if self._allowance < 1.0:
            self._suppressed += 1
            return False
        self._allowance -= 1.0
        return True

    def _log(self, event: Event) -> None:
        level = logging.WARNING if event.warning else logging.INFO
        facts = {"gpu": event.gpu, "provider": event.provider_id, "reason": event.reason}
        extra: dict[str, object] = {k: v for k, v in facts.items() if v}
        if self._suppressed:
            extra["suppressed"] = self._suppressed
            self._suppressed = 0
        logger.log(level, "%s", event.message, extra=extra)
