"""Trying again: after how long, how often, and what. Decided here, waited for by the drivers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from device_api_core.client.errors import ConfigurationError, DeviceApiError, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is made in all, and how long the pauses between are at most.

    The pause doubles from ``first_pause_seconds`` to ``longest_pause_seconds``; half of each is
    random, so that clients that lost one server do not come back as one. All attempts of a call
    together have its deadline.
    """

    attempts: int = 3
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(f"retry: attempts must be 1 or more, not {self.attempts}")
        if not 0 <= self.first_pause_seconds <= self.longest_pause_seconds:
            raise ConfigurationError(
                "retry: pauses must be 0 or more seconds, the first no longer than the longest"
            )


NO_RETRY = RetryPolicy(attempts=1)
"""Every call is made once."""


class Backoff:
    """Growing pauses with jitter. ``uniform`` gives a random number between 0 and 1."""

    def __init__(
        self,
        first_seconds: float = 0.1,
        longest_seconds: float = 5.0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._uniform = uniform
        self._next = first_seconds

    def __repr__(self) -> str:
        return f"<Backoff next={self._next:g} s>"

    def pause(self) -> float:
        """Seconds to wait now; the next pause will be twice as long."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause * (1 + self._uniform()) / 2

    def reset(self) -> None:
        """Things go well again: the next pause is the first one."""
        self._next = self._first


class Attempts:
    """The attempts of one call, which began when this was made.

    Only UNAVAILABLE is tried again: it is the one status that passes by itself. And only for calls
    that are idempotent: a connection that broke does not tell whether the server had acted.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        idempotent: bool,
        timeout_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._left = policy.attempts if idempotent else 1
        self._backoff = Backoff(policy.first_pause_seconds, policy.longest_pause_seconds)
        self._clock = clock
        self._deadline = clock() + timeout_seconds

    @property
    def remaining_seconds(self) -> float:
        """What is left until the call's deadline."""
        return max(0.0, self._deadline - self._clock())

    def pause_after(self, error: DeviceApiError) -> float | None:
        """Seconds to wait before the next attempt; ``None`` if there is to be none."""
        self._left -= 1
        if self._left < 1 or not isinstance(error, Unavailable):
            return None
        pause = self._backoff.pause()
        return pause if pause < self.remaining_seconds else None
