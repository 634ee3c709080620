"""The two clocks of the daemon."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: ``monotonic`` in seconds for intervals, ``wall`` in nanoseconds since the Unix
    epoch for what people read."""

    def monotonic(self) -> float: ...

    def wall(self) -> int: ...


class SystemClock:
    """The system's two clocks."""

    def monotonic(self) -> float:
        """Seconds; never set back."""
        return time.monotonic()

    def wall(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()
