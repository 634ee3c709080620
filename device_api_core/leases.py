"""Leases: who was heard when, and what happens when a provider falls silent.

Deadlines are on the monotonic clock of the event loop. A renewal only notes the time; the one
timer of each lease looks at it when it fires, so a busy provider costs no timer per write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from device_api_core.errors import LimitExceeded

MAX_PROVIDERS = 256
"""How many provider ids are remembered; bounds memory and the labels of the metrics."""


@dataclass(slots=True)
class Sign:
    """A provider's last sign of life. ``heard`` is monotonic seconds, ``heard_at`` nanoseconds
    since the Unix epoch; ``lease_seconds`` is ``None`` for a writer without a lease.
    ``tells_synced`` is whether it says itself when it has reported everything."""

    provider_id: str
    heard: float
    heard_at: int
    lease_seconds: float | None = None
    lapsed: bool = False
    synced: bool = False
    tells_synced: bool = False
    summary: str = ""
    timer: asyncio.TimerHandle | None = None


class Leases:
    """Signs of life of all providers. ``expired`` is called once per silence with the id."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], int],
        expired: Callable[[str], None],
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._expired = expired
        self._signs: dict[str, Sign] = {}

    def __repr__(self) -> str:
        return f"<Leases of {sorted(self._signs)}>"

    @property
    def signs(self) -> tuple[Sign, ...]:
        """Every remembered provider."""
        return tuple(self._signs.values())

    def get(self, provider_id: str) -> Sign | None:
        """The provider's sign of life, or ``None`` if it was never heard."""
        return self._signs.get(provider_id)

    def silence(self, provider_id: str) -> float | None:
        """Seconds since the provider was heard, or ``None`` if it never was."""
        sign = self._signs.get(provider_id)
        return None if sign is None else self._monotonic() - sign.heard

    def require_room(self, provider_id: str) -> None:
        """Raises ``LimitExceeded`` if a new provider id would be one too many."""
        if provider_id not in self._signs and len(self._signs) >= MAX_PROVIDERS:
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
        sign.lapsed = False
        if lease_seconds is not None and sign.lease_seconds != lease_seconds:
            sign.lease_seconds = lease_seconds
            self._disarm(sign)
        if sign.lease_seconds is not None and sign.timer is None:
            self._arm(sign, sign.lease_seconds)
        return sign

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
        if sign.lease_seconds is None:
            return
        left = sign.heard + sign.lease_seconds - self._monotonic()
        if left > 0:
            self._arm(sign, left)
            return
        sign.lapsed = True
        self._expired(sign.provider_id)
