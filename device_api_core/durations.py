"""How long things took, counted in buckets."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

CALL_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for calls and for what they wait for."""
DELIVERY_SECONDS = (0.0001, 0.00025, 0.0005, *CALL_SECONDS)
"""Upper bounds for events on their way to watchers."""


class Durations:
    """A histogram of seconds. ``bounds`` are the upper bounds of its buckets.

    Counted on the event loop and read there by a scrape, so plain numbers do. A library
    histogram's lock and look-up of labels would cost more than a whole read of the cache.
    """

    __slots__ = ("_bounds", "_buckets", "seconds")

    def __init__(self, bounds: tuple[float, ...] = CALL_SECONDS) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        """The sum of all."""

    def observed(self, seconds: float, times: int = 1) -> None:
        """Count one, or several that took so long each."""
        self._buckets[bisect_left(self._bounds, seconds)] += times
        self.seconds += seconds * times

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._buckets)

    @property
    def cumulative(self) -> list[tuple[str, float]]:
        """How many took no longer than each bound, as Prometheus wants them."""
        bounds = (*(str(bound) for bound in self._bounds), "+Inf")
        return list(zip(bounds, accumulate(self._buckets), strict=True))

    def add(self, other: Durations) -> None:
        """Count everything that ``other``, which has the same bounds, has counted."""
        for number, count in enumerate(other._buckets):
            self._buckets[number] += count
        self.seconds += other.seconds
