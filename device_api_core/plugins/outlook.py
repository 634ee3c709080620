"""When a publisher is to be called. Decided here, from what is seen and when; nothing waits.

Bad news is published at once. Doubt is not: a server that is restarted shows what was good as
Unknown until its providers have looked again, and a consumer must not see each upgrade as a failure
of all GPUs. So a view with no other news than doubt has to last for the grace time first. Meanwhile
nothing is published at all, for what was published before is no longer known to be true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_api_core.resources import READY, ConditionStatus, Gpu

RESYNC_SECONDS = 300.0
"""After that time it is published again although nothing changed."""


@dataclass(frozen=True, slots=True)
class View:
    """What there is to publish: all GPUs of the node by name, and if it is not current, why."""

    gpus: tuple[Gpu, ...] = ()
    stale: str = ""

    @property
    def bad(self) -> frozenset[tuple[str, str, str]]:
        """Name, reason and recommended action of each GPU that is not healthy."""
        return frozenset(
            (gpu.name, ready.reason, gpu.status.recommended_action)
            for gpu in self.gpus
            if (ready := gpu.condition(READY)) and ready.status is ConditionStatus.FALSE
        )

    @property
    def unknown(self) -> frozenset[str]:
        """The names of the GPUs of which nobody knows."""
        return frozenset(gpu.name for gpu in self.gpus if gpu.ready is ConditionStatus.UNKNOWN)

    def only_doubts(self, before: View | None) -> bool:
        """Whether its only news, compared with what was published, is doubt about what was good."""
        if self.stale:
            # Its age is its patience.
            return False
        known = before or View()
        if self.bad != known.bad:
            return False
        vanished = not self.gpus and (before is None or bool(before.gpus))
        return vanished or bool(self.unknown - known.unknown)


class Outlook:
    """What was published when, and so what is due. Times are monotonic seconds."""

    def __init__(self, interval_seconds: float, grace_seconds: float) -> None:
        self._interval = interval_seconds
        self._grace = grace_seconds
        self._published: View | None = None
        self._began = self._succeeded = -math.inf
        self._not_before: float | None = None
        self._doubted_since: float | None = None

    def __repr__(self) -> str:
        return f"<Outlook failing={self._not_before is not None}>"

    def is_due(self, view: View, now: float) -> bool:
        """Whether to publish this view now."""
        if view.only_doubts(self._published):
            if self._doubted_since is None:
                self._doubted_since = now
            if now - self._doubted_since < self._grace:
                return False
        else:
            self._doubted_since = None
        if self._not_before is not None:
            return now >= self._not_before
        if view != self._published:
            return now >= self._began + self._interval
        return now >= self._succeeded + RESYNC_SECONDS

    def published(self, view: View, began: float, now: float) -> None:
        """It went well. ``began`` is when the attempt did."""
        self._published = view
        self._began, self._succeeded = began, now
        self._not_before = None

    def failed(self, next_attempt: float) -> None:
        """It did not, and is to be tried again then."""
        self._not_before = next_attempt
