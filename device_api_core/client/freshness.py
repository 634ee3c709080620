"""How old a store may be, from evidence that cannot lie.

That a watch is open, even that an event arrives, does not say that a store is up to date: events
may have waited in a buffer while this process, or the server, stood still. The only proof is a
round trip. A list is one. While a watch is open, a *probe* is: it asks for the server's version,
and when the store has arrived at the version answered, the store is as new as the moment at which
the probe was **sent**. That moment, and never that of an arrival, is what is kept, so the age that
is told is never too small; and because probes are made all the time, also when nothing changes, it
is never larger than the interval of probes plus the time of one.

A read waits while a provider holds an update, and so does a probe: while the server itself is in
doubt, nothing here is called fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment on both clocks: ``monotonic`` in seconds, ``wall`` in nanoseconds since the Unix
    epoch."""

    monotonic: float
    wall: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe under way, and of which watch it speaks."""

    began: Moment
    watch: int


@dataclass(frozen=True, slots=True)
class _Awaited:
    """What is proven once the store has arrived at ``version``; ``reached`` is how far it was."""

    moment: Moment
    version: int
    reached: int


class Freshness:
    """Collects the evidence. ``clock`` is monotonic seconds, ``wall`` nanoseconds since the Unix
    epoch. Not thread-safe; the informer has a lock."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], int]) -> None:
        self._clock = clock
        self._wall = wall
        self._proven: Moment | None = None
        self._watch = 0
        self._watching = False
        self._awaited: _Awaited | None = None

    def __repr__(self) -> str:
        return f"<Freshness age={self.age_seconds}>"

    @property
    def proven(self) -> Moment | None:
        """The newest moment of which the store is known to hold the state; ``None`` if there is
        none."""
        return self._proven

    @property
    def age_seconds(self) -> float | None:
        """How long ago that was."""
        return None if self._proven is None else self._clock() - self._proven.monotonic

    def now(self) -> Moment:
        """Now, on both clocks."""
        return Moment(self._clock(), self._wall())

    def listed(self, began: float) -> None:
        """The store holds a list that was asked for then."""
        self._prove(Moment(began, self._wall() - round((self._clock() - began) * 1e9)))

    def watching(self) -> None:
        """A watch goes on from the store's version."""
        self._watch += 1
        self._watching = True

    def broken(self) -> None:
        """The watch is over: no probe can prove anything until the next one."""
        self._watching = False
        self._awaited = None

    def probe(self) -> Probe | None:
        """Begin a probe; ``None`` while there is no watch for it to speak of."""
        return Probe(self.now(), self._watch) if self._watching else None

    def answered(self, probe: Probe, version: int, reached: int) -> bool:
        """The server's version was that, and the store has arrived at ``reached``. Returns False
        if the watch has stalled: it owes what an earlier probe saw, and nothing came since."""
        if not self._watching or probe.watch != self._watch:
            return True
        if reached >= version:
            self._prove(probe.began)
            self._awaited = None
        elif self._awaited is None:
            self._awaited = _Awaited(probe.began, version, reached)
        elif self._awaited.reached == reached:
            return False
        else:
            # It is behind, but moves: the older question will be proven first.
            self._awaited = replace(self._awaited, reached=reached)
        return True

    def reached(self, version: int) -> None:
        """The store has arrived at that version."""
        if self._awaited is not None and version >= self._awaited.version:
            self._prove(self._awaited.moment)
            self._awaited = None

    def _prove(self, moment: Moment) -> None:
        if self._proven is None or moment.monotonic > self._proven.monotonic:
            self._proven = moment
