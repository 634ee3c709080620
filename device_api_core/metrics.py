"""Every metric of the daemon, in one place.

Counters and histograms are recorded where things happen; gauges are read from the state when they
are scraped, so they are never old. Labels are bounded: methods, codes and operations are fixed
sets, provider ids at most ``leases.MAX_PROVIDERS``. What providers count themselves is in
``tallies``.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

PREFIX = "device_api_server_"
_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class ProviderObservation:
    """One provider at the moment of a scrape. ``last_heard`` is seconds since the Unix epoch, or
    ``None`` if it was never heard; ``connected`` is whether it runs and its lease holds. The
    lease's length and what is left of it are ``None`` without a lease."""

    provider_id: str
    connected: bool
    last_heard: float | None
    gpus: int
    restarts: int
    plugin: bool
    lease_seconds: float | None = None
    lease_left_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StateObservation:
    """Writes of the state that failed, changes that were acknowledged before they were on the disk,
    and whether writes succeed in time now."""

    failures: int
    late: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """The state at the moment of a scrape. ``state`` is ``None`` without a state directory."""

    healthy: int
    unhealthy: int
    unknown: int
    resource_version: int
    watches: int
    watches_ended_slow: int
    deepest_watch_queue: int
    updates_held: int
    readers_parked: int
    state: StateObservation | None
    ready: bool
    providers: tuple[ProviderObservation, ...]


class Calls:
    """The finished calls of one gRPC method, by code, and how long they took.

    Counted on the event loop and read there by a scrape, so plain numbers do. A library counter's
    lock and look-up of labels would cost more than a whole read of the cache.
    """

    __slots__ = ("buckets", "codes", "seconds")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.buckets = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0

    def finished(self, code: str, seconds: float) -> None:
        """Count a call."""
        self.ended(code)
        self.buckets[bisect_left(_BUCKETS, seconds)] += 1
        self.seconds += seconds

    def ended(self, code: str) -> None:
        """Count the end of a watch, whose duration says nothing."""
        self.codes[code] = self.codes.get(code, 0) + 1


class Metrics:
    """The metric families on ``registry``. Attributes are the families to record on."""

    def __init__(self, registry: CollectorRegistry, *, version: str, node: str) -> None:
        # The _created series double the size of every scrape and nothing here reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self._info = {"version": version, "python_version": platform.python_version(), "node": node}
        self.updates = dict.fromkeys(
            ("register", "unregister", "update_status", "update_condition"), 0
        )
        self.watch_events = dict.fromkeys(("ADDED", "MODIFIED", "DELETED"), 0)
        self._calls: dict[str, Calls] = {}
        registry.register(_Counts(self.updates, self.watch_events, self._calls))
        self.refused_forgeries = Counter(
            f"{PREFIX}refused_false",
            "Writes of False that were refused because another provider owns the condition.",
            registry=registry,
        )
        self.updates_aborted = Counter(
            f"{PREFIX}updates_aborted",
            "Held updates that expired, failed or lost their provider.",
            ["provider_id"],
            registry=registry,
        )
        self.messages_cut = Counter(
            f"{PREFIX}messages_cut",
            "Texts of new faults that were cut because there was no room for them.",
            registry=registry,
        )
        self.heartbeats = Counter(
            f"{PREFIX}provider_heartbeat",
            "Heartbeats received.",
            ["provider_id"],
            registry=registry,
        )
        self.heartbeat_timeouts = Counter(
            f"{PREFIX}provider_heartbeat_timeout",
            "Leases that ran out.",
            ["provider_id"],
            registry=registry,
        )

    def calls(self, method: str) -> Calls:
        """The record of one gRPC method."""
        return self._calls.setdefault(method, Calls())

    def observe(self, source: Callable[[], Observation]) -> None:
        """Read the gauges from ``source`` at every scrape."""
        self.registry.register(_State(source, self._info))

    def forget_provider(self, provider_id: str) -> None:
        """Drop the series of a provider that is gone for good."""
        for family in (self.updates_aborted, self.heartbeats, self.heartbeat_timeouts):
            family.remove(provider_id)


class _Counts(Collector):
    """What is counted with every write and every call."""

    def __init__(
        self, updates: dict[str, int], watch_events: dict[str, int], calls: dict[str, Calls]
    ) -> None:
        self._updates = updates
        self._watch_events = watch_events
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        updates = CounterMetricFamily(
            f"{PREFIX}cache_updates",
            "Successful writes to the cache, those that changed nothing included.",
            labels=["operation"],
        )
        for operation, count in self._updates.items():
            updates.add_metric([operation], count)
        events = CounterMetricFamily(
            f"{PREFIX}watch_events",
            "Changes published to watchers, by event type.",
            labels=["type"],
        )
        for event_type, count in self._watch_events.items():
            events.add_metric([event_type], count)
        return (updates, events, *_call_families(self._calls))


class _State(Collector):
    """The gauges. Read at scrape time; ``describe`` keeps registration from scraping."""

    def __init__(self, source: Callable[[], Observation], info: dict[str, str]) -> None:
        self._source = source
        self._info = info

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        now = self._source()
        info = GaugeMetricFamily(
            f"{PREFIX}info", "What runs here; always 1.", labels=list(self._info)
        )
        info.add_metric(list(self._info.values()), 1)
        yield info
        yield from _gauges(now)
        # The reference drops events for slow watchers; here there is nothing to drop them.
        yield _counter(
            "watch_events_dropped", "Events not delivered to an open watch; always 0.", 0
        )
        yield _counter("watches_ended_slow", "Watches ended as too slow.", now.watches_ended_slow)
        if now.state is not None:
            yield from _state_families(now.state)
        yield from _nvml_gauges(now.providers)
        yield from _provider_families(now.providers)


def _call_families(calls: Mapping[str, Calls]) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        f"{PREFIX}grpc_requests", "Finished gRPC calls.", labels=["method", "code"]
    )
    durations = HistogramMetricFamily(
        f"{PREFIX}grpc_request_duration_seconds",
        "Duration of gRPC calls, watches excluded.",
        labels=["method"],
    )
    bounds = (*(str(bound) for bound in _BUCKETS), "+Inf")
    for method, record in calls.items():
        for code, count in record.codes.items():
            requests.add_metric([method, code], count)
        if any(record.buckets):
            buckets = list(zip(bounds, accumulate(record.buckets), strict=True))
            durations.add_metric([method], buckets, record.seconds)
    return requests, durations


def _gauges(now: Observation) -> Iterable[Metric]:
    total = now.healthy + now.unhealthy + now.unknown
    for name, text, value in (
        ("cache_gpus_total", "GPUs in the cache.", total),
        ("cache_gpus_healthy", "GPUs whose Ready is True.", now.healthy),
        ("cache_gpus_unhealthy", "GPUs whose Ready is False.", now.unhealthy),
        ("cache_gpus_unknown", "GPUs whose Ready is Unknown.", now.unknown),
        ("cache_resource_version", "Version of the last change.", now.resource_version),
        ("watch_streams_active", "Open watches.", now.watches),
        ("watch_queue_depth", "Events queued for the slowest watch.", now.deepest_watch_queue),
        ("updates_held", "Updates that providers hold now.", now.updates_held),
        ("readers_parked", "Reads that wait for held updates.", now.readers_parked),
        ("ready", "Whether reads are answered.", float(now.ready)),
    ):
        yield GaugeMetricFamily(f"{PREFIX}{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", text, value=value)


def _state_families(state: StateObservation) -> Iterable[Metric]:
    yield _counter("state_write_failures", "Failed writes of the state.", state.failures)
    yield _counter(
        "state_late_acknowledgements",
        "Changes acknowledged before they were on the disk, because it failed or was slow.",
        state.late,
    )
    yield GaugeMetricFamily(
        f"{PREFIX}state_healthy", "Whether writes are in time.", value=float(state.healthy)
    )


def _nvml_gauges(providers: Iterable[ProviderObservation]) -> Iterable[Metric]:
    """The documented names for the built-in monitor: what a generic provider series says, of the
    plugin called nvml."""
    nvml = next((p for p in providers if p.plugin and p.provider_id == "nvml"), None)
    for name, text, value in (
        ("nvml_provider_enabled", "Whether the NVML provider was asked for.", nvml is not None),
        ("nvml_gpu_count", "GPUs that NVML reports.", nvml.gpus if nvml else 0),
        ("nvml_health_monitor_running", "Whether NVML is watched.", bool(nvml and nvml.connected)),
    ):
        yield GaugeMetricFamily(f"{PREFIX}{name}", text, value=float(value))


def _provider_families(providers: Iterable[ProviderObservation]) -> Iterable[Metric]:
    state = _by_provider("connection_state", "1 while the provider runs and is heard, else 0.")
    heard = _by_provider("last_heartbeat_timestamp_seconds", "Unix time of its last sign of life.")
    gpus = _by_provider("gpus_managed", "GPUs it registered or reports on.")
    lease = _by_provider("lease_seconds", "Length of its lease, if it has one.")
    left = _by_provider("lease_remaining_seconds", "What is left of its lease; 0 once it ran out.")
    restarts = CounterMetricFamily(
        f"{PREFIX}provider_restarts", "Restarts after a failure.", labels=["provider_id"]
    )
    for p in providers:
        state.add_metric([p.provider_id], float(p.connected))
        gpus.add_metric([p.provider_id], p.gpus)
        restarts.add_metric([p.provider_id], p.restarts)
        if p.last_heard is not None:
            heard.add_metric([p.provider_id], p.last_heard)
        if p.lease_seconds is not None and p.lease_left_seconds is not None:
            lease.add_metric([p.provider_id], p.lease_seconds)
            left.add_metric([p.provider_id], p.lease_left_seconds)
    return state, heard, gpus, restarts, lease, left


def _by_provider(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}provider_{name}", text, labels=["provider_id"])
