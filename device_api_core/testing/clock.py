"""Time that passes when a test says so."""

from __future__ import annotations

_NANOSECONDS = 1_000_000_000


class FakeClock:
    """Two clocks that move together: ``monotonic`` in seconds, ``wall`` in nanoseconds since the
    Unix epoch."""

    def __init__(self, monotonic: float = 1_000.0, wall: int = 1_700_000_000_000_000_000) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def __repr__(self) -> str:
        return f"<FakeClock {self._monotonic:g}>"

    def monotonic(self) -> float:
        """As ``time.monotonic``."""
        return self._monotonic

    def wall(self) -> int:
        """As ``time.time_ns``."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let that much time pass on both."""
        self._monotonic += seconds
        self._wall += round(seconds * _NANOSECONDS)
