"""The read gate: readers wait while a provider finds out what is wrong.

A provider that has seen a fault signal *holds* an update. A reader waits for the updates that are
held when it arrives and for none that begins later, so readers can neither see the state that is
in doubt nor starve. Writers never wait here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from device_api_core.durations import Durations
from device_api_core.errors import LimitExceeded


@dataclass(eq=False, slots=True)
class Hold:
    """One held update. ``gpus`` are the names in doubt, empty for all of the provider's."""

    provider_id: str
    gpus: tuple[str, ...]
    opened: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None


class ReadGate:
    """Held updates and parked readers. Lives on the event loop; only :meth:`passage` waits.

    ``max_hold_seconds`` bounds one hold; after it ``expired`` is called with the hold, already
    released. ``closing`` is called when a hold begins. ``clock`` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        max_hold_seconds: float,
        clock: Callable[[], float],
        expired: Callable[[Hold], None],
        closing: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_hold_seconds = max_hold_seconds
        self._clock = clock
        self._expired = expired
        self._closing = closing
        self._holds: dict[str, Hold] = {}
        self._reopens: dict[str, float] = {}
        self.parked = 0
        """Readers that wait now."""
        self.waits = Durations()
        """How long readers have waited, in seconds; who passed at once is left out."""
        self.holds = Durations()
        """How long updates were held, in seconds."""

    def __repr__(self) -> str:
        return f"<ReadGate held by {sorted(self._holds)}, {self.parked} parked>"

    @property
    def held(self) -> int:
        """How many updates are held now."""
        return len(self._holds)

    @property
    def holders(self) -> frozenset[str]:
        """The providers that hold an update now."""
        return frozenset(self._holds)

    def hold(self, provider_id: str, gpus: tuple[str, ...]) -> Hold:
        """Close the gate for readers that arrive from now on.

        Raises:
            LimitExceeded: the provider holds an update already, or its last one ended more
                recently than it had lasted; otherwise it could park readers for good.
        """
        now = self._clock()
        if provider_id in self._holds:
            raise LimitExceeded(f"provider {provider_id} already holds an update")
        if (wait := self._reopens.get(provider_id, now) - now) > 0:
            raise LimitExceeded(
                f"provider {provider_id} may hold its next update in {wait:.3f} s: an update may "
                "begin no sooner after the last one than that one had lasted"
            )
        held = Hold(provider_id, gpus, now)
        loop = asyncio.get_running_loop()
        held.timer = loop.call_later(self._max_hold_seconds, self._expire, held)
        self._holds[provider_id] = held
        self._closing()
        return held

    def release(self, held: Hold) -> bool:
        """End a hold and let its readers pass. Returns whether it was still held."""
        if self._holds.get(held.provider_id) is not held:
            return False
        del self._holds[held.provider_id]
        if held.timer is not None:
            held.timer.cancel()
        now = self._clock()
        lasted = now - held.opened
        self._reopens[held.provider_id] = now + lasted
        self.holds.observed(lasted)
        held.ended.set()
        return True

    def is_held(self, held: Hold) -> bool:
        """Whether the hold has neither been released nor expired."""
        return self._holds.get(held.provider_id) is held

    def held_by(self, provider_id: str) -> Hold | None:
        """The update that the provider holds now, if any."""
        return self._holds.get(provider_id)

    def forget(self, provider_id: str) -> None:
        """Drop what is remembered of a provider that holds nothing and will not come back."""
        self._reopens.pop(provider_id, None)

    async def passage(self, *, but_for: str | None = None) -> None:
        """Wait for the updates that are held now, except that of the provider ``but_for``, who
        reads while it holds one. Cancelling the reader harms nobody else."""
        awaited = [held for id_, held in self._holds.items() if id_ != but_for]
        if not awaited:
            return
        self.parked += 1
        began = self._clock()
        try:
            for held in awaited:
                await held.ended.wait()
        finally:
            self.parked -= 1
            self.waits.observed(self._clock() - began)

    def _expire(self, held: Hold) -> None:
        # The owner turns its True conditions into Unknown before the readers are let through.
        if self.is_held(held):
            try:
                self._expired(held)
            finally:
                self.release(held)
