"""What the daemon counts, in one place.

Counters and histograms are recorded where things happen; gauges are read from the state when they
are scraped. The page, and with it the texts, is :mod:`~device_api_core.exposition`. Labels are
bounded, and ``docs/metrics.md`` says by what. What providers count themselves is in ``tallies``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection

from device_api_core.durations import Durations
from device_api_core.observation import Observation

PREFIX = "device_api_server_"


class Calls:
    """The calls of one gRPC method: begun, finished by code, and how long they took. ``kind`` is
    ``unary``, or what sort of stream it is: how long a stream was open says nothing, so that only
    calls of the first kind are timed.

    Plain numbers, as in :class:`~device_api_core.durations.Durations`, and for the same reason.
    """

    __slots__ = ("codes", "durations", "elsewhere", "kind", "method", "service", "started")

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.codes: dict[str, int] = {}
        self.durations = Durations()
        self.elsewhere: list[Callable[[], tuple[int, float]]] = []
        """Each tells how many calls were answered, past all this, since it was last asked, and how
        many seconds that took."""

    def collect(self) -> None:
        """Count what was answered elsewhere."""
        for take in self.elsewhere:
            count, seconds = take()
            if count:
                self.started += count
                self.codes["OK"] = self.codes.get("OK", 0) + count
                self.durations.observed(seconds / count, count)

    def finished(self, code: str, seconds: float = 0.0) -> None:
        """Count the end of a call."""
        self.codes[code] = self.codes.get(code, 0) + 1
        if self.kind == "unary":
            self.durations.observed(seconds)


class Metrics:
    """What is counted, by the names of its families. Plain numbers: they are on the way of every
    write, and what makes a page of them is imported by the first who asks for one."""

    def __init__(self, *, version: str, node: str) -> None:
        self.info = {"version": version, "python_version": sys.version.split()[0], "node": node}
        self.observe: Callable[[], Observation] | None = None
        """Where the gauges are read from, when they are asked for."""
        self.updates = dict.fromkeys(
            ("register", "unregister", "update_status", "update_condition"), 0
        )
        self.watch_events = dict.fromkeys(("ADDED", "MODIFIED", "DELETED"), 0)
        self.refused_forgeries = 0
        self.messages_cut = 0
        # By provider.
        self.updates_aborted: Counter[str] = Counter()
        self.updates_expired: Counter[str] = Counter()
        self.heartbeats: Counter[str] = Counter()
        self.heartbeat_timeouts: Counter[str] = Counter()
        self._calls: dict[tuple[str, str], Calls] = {}

    def calls(self, service: str, method: str, kind: str) -> Calls:
        """The record of one gRPC method; ``kind`` is ``unary``, ``server_stream`` or
        ``bidi_stream``."""
        return self._calls.setdefault((service, method), Calls(service, method, kind))

    @property
    def all_calls(self) -> Collection[Calls]:
        """The records of all methods, as they are now."""
        for calls in self._calls.values():
            calls.collect()
        return self._calls.values()

    def know_provider(self, provider_id: str) -> None:
        """Begin the series of a provider at 0: a rate does not see a first event that is also the
        first sample."""
        for counts in self.by_provider:
            counts.setdefault(provider_id, 0)

    def forget_provider(self, provider_id: str) -> None:
        """Drop the series of a provider that is gone for good."""
        for counts in self.by_provider:
            counts.pop(provider_id, None)

    @property
    def by_provider(self) -> tuple[Counter[str], ...]:
        """What is counted for each provider."""
        return (
            self.updates_aborted,
            self.updates_expired,
            self.heartbeats,
            self.heartbeat_timeouts,
        )
