"""Leases: who was heard when, and what happens when a provider falls silent.

Deadlines are on the monotonic clock of the event loop. A renewal only notes the time; the one
timer of each lease looks at it when it fires, so a busy provider costs no timer per write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from device_api_core.errors import LimitExceeded

MAX_PROVIDERS = 256
"""How many provider ids are remembered; bounds memory and the labels of the metrics."""


HEARTBEAT_SECONDS = 60.0


class LeaseTerms(NamedTuple):
    """How long silence may last. ``heartbeat_seconds`` is the lease of who sends heartbeats and
    states no interval; ``required`` gives one to every writer. A provider that stays lost for
    ``gone_seconds`` more is gone for good; 0 is never."""

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    required: bool = False
    gone_seconds: float = 0.0


@dataclass(slots=True)
class Sign:
    """A provider's last sign of life. ``heard`` is monotonic seconds, ``heard_at`` nanoseconds
    since the Unix epoch, ``None`` for a provider that is only known from before a restart;
    ``lease_seconds`` is ``None`` for a writer without a lease. ``tells_synced`` is whether it says
    itself when it has reported everything."""

    provider_id: str
    heard: float
    heard_at: int | None
    lease_seconds: float | None = None
    lapsed: bool = False
    synced: bool = False
    tells_synced: bool = False
    summary: str = ""
    timer: asyncio.TimerHandle | None = None


class Leases:
    """Signs of life of all providers. ``expired`` is called once per silence with the id, and
    ``gone`` after every ``gone_seconds`` more of the same silence; 0 is never."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], int],
        expired: Callable[[str], None],
        gone: Callable[[str], None],
        gone_seconds: float = 0.0,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._expired = expired
        self._gone = gone
        self._gone_seconds = gone_seconds
        self._signs: dict[str, Sign] = {}

    def __repr__(self) -> str:
        return f"<Leases of {sorted(self._signs)}>"

    @property
    def signs(self) -> tuple[Sign, ...]:
        """Every remembered provider."""
        return tuple(self._signs.values())

    @property
    def full(self) -> bool:
        """Whether no further provider id can be remembered."""
        return len(self._signs) >= MAX_PROVIDERS

    def left_seconds(self, sign: Sign) -> float | None:
        """What is left of its lease, 0 once it ran out; ``None`` without one."""
        if sign.lease_seconds is None:
            return None
        return 0.0 if sign.lapsed else sign.heard + sign.lease_seconds - self._monotonic()

    def get(self, provider_id: str) -> Sign | None:
        """The provider's sign of life, or ``None`` if it was never heard."""
        return self._signs.get(provider_id)

    def silence(self, provider_id: str) -> float | None:
        """Seconds since the provider was heard, or ``None`` if it never was."""
        sign = self._signs.get(provider_id)
        if sign is None or sign.heard_at is None:
            return None
        return self._monotonic() - sign.heard

    def require_room(self, provider_id: str) -> None:
        """Raises ``LimitExceeded`` if a new provider id would be one too many."""
        if provider_id not in self._signs and self.full:
            raise LimitExceeded(
                f"{MAX_PROVIDERS} provider ids are in use; `device-api forget provider` frees one"
            )

    def heard(self, provider_id: str, *, lease_seconds: float | None = None) -> Sign:
        """Note a sign of life. ``lease_seconds`` grants a lease or changes its length; ``None``
        leaves it as it is."""
        sign = self._signs.get(provider_id)
        if sign is None:
            sign = self._signs[provider_id] = Sign(provider_id, 0.0, 0)
        sign.heard = self._monotonic()
        sign.heard_at = self._wall()
        if sign.lapsed:
            sign.lapsed = False
            self._disarm(sign)
        if lease_seconds is not None and sign.lease_seconds != lease_seconds:
            sign.lease_seconds = lease_seconds
            self._disarm(sign)
        if sign.lease_seconds is not None and sign.timer is None:
            self._arm(sign, sign.lease_seconds)
        return sign

    def remember(self, provider_id: str) -> None:
        """A provider that is known from before a restart and has not been heard since."""
        sign = Sign(provider_id, self._monotonic(), None, lapsed=True)
        self._signs[provider_id] = sign
        self._await_return(sign)

    def end(self, provider_id: str) -> None:
        """End the lease without a lapse; the last sign of life is still remembered."""
        if (sign := self._signs.get(provider_id)) is not None:
            self._disarm(sign)
            sign.lease_seconds = None

    def forget(self, provider_id: str) -> None:
        """Remember nothing of the provider."""
        if (sign := self._signs.pop(provider_id, None)) is not None:
            self._disarm(sign)

    def _arm(self, sign: Sign, seconds: float) -> None:
        sign.timer = asyncio.get_running_loop().call_later(seconds, self._check, sign)

    def _disarm(self, sign: Sign) -> None:
        if sign.timer is not None:
            sign.timer.cancel()
            sign.timer = None

    def _check(self, sign: Sign) -> None:
        sign.timer = None
        if sign.lapsed:
            # A fault of it may be cleared later: look again.
            self._await_return(sign)
            self._gone(sign.provider_id)
            return
        if sign.lease_seconds is None:
            return
        left = sign.heard + sign.lease_seconds - self._monotonic()
        if left > 0:
            self._arm(sign, left)
            return
        sign.lapsed = True
        self._await_return(sign)
        self._expired(sign.provider_id)

    def _await_return(self, sign: Sign) -> None:
        if self._gone_seconds:
            self._arm(sign, self._gone_seconds)
