"""Gauges, made of the state.

A scrape reads everything at one moment on the event loop, so gauges are never old and agree with
one another. What has to look at every condition is done once per version of the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from device_api_core.actions import action_strength
from device_api_core.conditions import LAPSED_REASONS
from device_api_core.metrics import PREFIX
from device_api_core.observation import (
    PROVIDER_STATES,
    Observation,
    ObservedGpu,
    ProviderObservation,
    StateObservation,
)
from device_api_core.resources import READY, ConditionStatus
from device_api_core.validation import shortened

MAX_CONDITION_KINDS = 512
"""Pairs of a condition type and its provider that have series of their own."""
MAX_LABEL_BYTES = 128
"""Of a text that comes from a provider."""
OTHER = "other"
"""The type under which all further pairs are counted. No condition type begins like it."""

_UNHEALTHY_LABELS = ("gpu", "uuid", "pci_bus_id", "reason", "action")


class StateCollector(Collector):
    """The gauges. ``describe`` keeps registration from scraping."""

    def __init__(self, source: Callable[[], Observation], info: Mapping[str, str]) -> None:
        self._source = source
        self._info = info
        self._health: tuple[Metric, ...] = ()
        self._health_version = -1

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        now = self._source()
        info = GaugeMetricFamily(
            f"{PREFIX}info", "What runs here; always 1.", labels=list(self._info)
        )
        info.add_metric(list(self._info.values()), 1)
        yield info
        if now.resource_version != self._health_version:
            self._health = tuple(_health_families(now.gpus))
            self._health_version = now.resource_version
        yield from self._health
        yield from _gauges(now)
        # The reference drops events for slow watchers; here there is nothing to drop them.
        yield _counter(
            "watch_events_dropped", "Events not delivered to an open watch; always 0.", 0
        )
        yield _counter("watches_ended_slow", "Watches ended as too slow.", now.watches_ended_slow)
        yield _counter("sockets_lost", "Unix sockets lost while served.", now.sockets_lost)
        if now.state is not None:
            yield from _state_families(now.state)
        yield from _histograms(now)
        yield from _nvml_gauges(now.providers)
        yield from _provider_families(now.providers)


def _health_families(gpus: Sequence[ObservedGpu]) -> Iterable[Metric]:
    ready = Counter(gpu.health.ready.status for gpu in gpus)
    for name, text, value in (
        ("total", "GPUs in the cache.", len(gpus)),
        ("healthy", "GPUs whose Ready is True.", ready[ConditionStatus.TRUE]),
        ("unhealthy", "GPUs whose Ready is False.", ready[ConditionStatus.FALSE]),
        ("unknown", "GPUs whose Ready is Unknown.", ready[ConditionStatus.UNKNOWN]),
    ):
        yield _gauge(f"cache_gpus_{name}", text, value)
    said = [c for gpu in gpus for c in gpu.health.published if c.type != READY]
    yield _conditions(Counter((c.type, c.provider_id, c.status) for c in said))
    lapsed = Counter(c.reason for c in said if c.status is ConditionStatus.UNKNOWN)
    stale = GaugeMetricFamily(
        f"{PREFIX}conditions_stale",
        "Conditions that are Unknown because the server stopped believing what it was told.",
        labels=["reason"],
    )
    for reason in sorted(LAPSED_REASONS):
        stale.add_metric([reason], lapsed[reason])
    yield stale
    yield _unhealthy(gpus)


def _conditions(counts: Mapping[tuple[str, str, ConditionStatus], int]) -> Metric:
    kinds = dict.fromkeys((type_, provider_id) for type_, provider_id, _ in counts)
    shown = dict.fromkeys(sorted(kinds)[:MAX_CONDITION_KINDS])
    folded: Counter[tuple[str, str, ConditionStatus]] = Counter()
    for (type_, provider_id, status), count in counts.items():
        kind = (type_, provider_id) if (type_, provider_id) in shown else (OTHER, "")
        folded[(*kind, status)] += count
    if len(kinds) > len(shown):
        shown[(OTHER, "")] = None
    family = GaugeMetricFamily(
        f"{PREFIX}conditions",
        "Conditions, without the computed Ready.",
        labels=["type", "status", "provider_id"],
    )
    for type_, provider_id in shown:
        for status in ConditionStatus:
            count = folded[(type_, provider_id, status)]
            family.add_metric([type_, status.value, provider_id], count)
    return family


def _unhealthy(gpus: Iterable[ObservedGpu]) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}gpu_unhealthy",
        "1 for each GPU whose Ready is False: which it is, why, and what to do about it.",
        labels=_UNHEALTHY_LABELS,
    )
    for gpu in gpus:
        ready = gpu.health.ready
        if ready.status is ConditionStatus.FALSE:
            reason = shortened(ready.reason, MAX_LABEL_BYTES)
            action = _action_label(gpu.health.recommended_action)
            family.add_metric([gpu.name, gpu.spec.uuid, gpu.spec.pci_bus_id, reason, action], 1)
    return family


def _action_label(action: str) -> str:
    """Free text becomes CUSTOM: it may be long, and ranks as that anyway."""
    strength = action_strength(action)
    if strength == 0:
        return "NONE"
    return "CUSTOM" if strength == 1 and action != "CONTACT_SUPPORT" else action


def _gauges(now: Observation) -> Iterable[Metric]:
    for name, text, value in (
        ("cache_resource_version", "Version of the last change.", now.resource_version),
        ("watch_streams_active", "Open watches.", now.watches),
        ("watch_queue_depth", "Events queued for the slowest watch.", now.deepest_watch_queue),
        ("updates_held", "Updates that providers hold now.", now.updates_held),
        ("readers_parked", "Reads that wait for held updates.", now.readers_parked),
        ("sockets_missing", "Unix sockets that nobody can connect to now.", now.sockets_missing),
        ("ready", "Whether reads are answered.", float(now.ready)),
    ):
        yield _gauge(name, text, value)


def _histograms(now: Observation) -> Iterable[Metric]:
    for name, text, durations in (
        (
            "watch_delivery_seconds",
            "From a change to when the transport takes it for a watcher.",
            now.deliveries,
        ),
        ("update_hold_seconds", "How long providers held updates.", now.holds),
        (
            "read_wait_seconds",
            "How long reads waited for held updates, those that did not wait left out.",
            now.read_waits,
        ),
    ):
        yield HistogramMetricFamily(
            f"{PREFIX}{name}", text, buckets=durations.cumulative, sum_value=durations.seconds
        )


def _state_families(state: StateObservation) -> Iterable[Metric]:
    yield _counter("state_write_failures", "Failed writes of the state.", state.failures)
    yield _counter(
        "state_late_acknowledgements",
        "Changes acknowledged before they were on the disk, because it failed or was slow.",
        state.late,
    )
    yield _gauge("state_healthy", "Whether the state is written in time.", float(state.healthy))


def _nvml_gauges(providers: Iterable[ProviderObservation]) -> Iterable[Metric]:
    """The documented names for the built-in monitor: what a generic provider series says, of the
    plugin called nvml."""
    nvml = next((p for p in providers if p.plugin and p.provider_id == "nvml"), None)
    running = nvml is not None and nvml.state == "running"
    for name, text, value in (
        ("nvml_provider_enabled", "Whether the NVML provider was asked for.", nvml is not None),
        ("nvml_gpu_count", "GPUs that NVML reports.", nvml.gpus if nvml else 0),
        ("nvml_health_monitor_running", "Whether NVML is watched.", running),
    ):
        yield _gauge(name, text, float(value))


def _provider_families(providers: Iterable[ProviderObservation]) -> Iterable[Metric]:
    connected = _by_provider("connection_state", "1 while the provider runs and is heard, else 0.")
    state = _by_provider("state", "1 for the state that the provider is in.", "state")
    heard = _by_provider("last_heartbeat_timestamp_seconds", "Unix time of its last sign of life.")
    silence = _by_provider("lease_age_seconds", "Time since its last sign of life.")
    lease = _by_provider("lease_seconds", "How long it may be silent, if it has a lease.")
    left = _by_provider("lease_remaining_seconds", "What is left of its lease; 0 once it ran out.")
    gpus = _by_provider("gpus_managed", "GPUs it registered or reports on.")
    restarts = CounterMetricFamily(
        f"{PREFIX}provider_restarts", "Restarts after a failure.", labels=["provider_id"]
    )
    for p in providers:
        id_ = [p.provider_id]
        connected.add_metric(id_, float(p.state == "running"))
        for each in PROVIDER_STATES:
            state.add_metric([*id_, each], float(p.state == each))
        gpus.add_metric(id_, p.gpus)
        restarts.add_metric(id_, p.restarts)
        for family, value in (
            (heard, p.last_heard),
            (silence, p.silence),
            (lease, p.lease),
            (left, p.lease_left),
        ):
            if value is not None:
                family.add_metric(id_, value)
    return connected, state, heard, silence, lease, left, gpus, restarts


def _by_provider(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}provider_{name}", text, labels=["provider_id", *labels])


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", text, value=value)
