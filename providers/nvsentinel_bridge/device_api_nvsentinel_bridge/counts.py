"""Counting what came and what became of it. Safe to use from any thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from enum import StrEnum


class Count(StrEnum):
    """What is counted; the value is the word for people."""

    ACCEPTED = "accepted"
    """Events that are kept until they took effect."""
    STORE_ONLY = "store-only"
    """Ignored: the event asks that nothing changes."""
    OTHER_NODE = "other node"
    """Ignored: about another node."""
    OTHER_CLASS = "other class"
    """Ignored: the component class, or the check, is not configured to count."""
    MALFORMED = "malformed"
    """Ignored: without the name of a check, or healthy and fatal at once."""
    LATE = "late"
    """Without effect: older than what the check said last of the same GPU."""
    REPEATED = "repeated"
    """Without effect: taken before."""
    DROPPED = "dropped"
    """Lost: too many events waited for GPUs that nobody registered."""
    OVERFLOW = "overflow"
    """Lost: too many checks with faults on one GPU."""
    UNKNOWN_ENUM = "unknown enum"
    """Taken, with a number that this version has no name for."""
    UNAUTHENTICATED = "unauthenticated"
    """Calls refused: no or a wrong bearer token."""
    INVALID = "invalid"
    """Calls refused: not a message, or CUSTOM without saying what."""
    REFUSED = "refused"
    """Calls refused: too many events wait, or the journal cannot be written."""
    UNTOLD = "untold"
    """Reports that the daemon refused; they are tried again."""


_OTHERS = {
    Count.UNAUTHENTICATED: "refused_calls",
    Count.INVALID: "refused_calls",
    Count.REFUSED: "refused_calls",
    Count.UNTOLD: "refused_reports",
}
"""What is no count of events, and the metric that it has instead."""

Tell = Callable[[str, int, str], None]
"""Adds to a metric: its name, how many, and the word for what became of them."""


class Counts:
    """Numbers since the start. ``tell`` is given each."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._numbers: Counter[Count] = Counter()

    def __repr__(self) -> str:
        return f"<Counts {self}>"

    def __str__(self) -> str:
        """Everything that is not zero: ``accepted 12, late 1``."""
        with self._lock:
            return ", ".join(f"{c} {self._numbers[c]}" for c in Count if self._numbers[c])

    def __getitem__(self, count: Count) -> int:
        with self._lock:
            return self._numbers[count]

    def add(self, count: Count, number: int = 1) -> int:
        """Count; returns the new number."""
        self._tell(_OTHERS.get(count, "events"), number, count.name.lower())
        with self._lock:
            self._numbers[count] += number
            return self._numbers[count]
