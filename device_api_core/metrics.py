"""What the daemon counts, in one place.

Counters and histograms are recorded where things happen; gauges are read from the state when they
are scraped (:mod:`~device_api_core.observation`). Labels are bounded, and ``docs/metrics.md`` says
by what. What providers count themselves is in ``tallies``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from device_api_core.durations import Durations
from device_api_core.observation import PREFIX, Observation, StateCollector


class Calls:
    """The calls of one gRPC method: begun, finished by code, and how long they took. ``kind`` is
    ``unary``, or what sort of stream it is: how long a stream was open says nothing, so that only
    calls of the first kind are timed.

    Plain numbers, as in :class:`~device_api_core.durations.Durations`, and for the same reason.
    """

    __slots__ = ("codes", "durations", "kind", "method", "service", "started")

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.codes: dict[str, int] = {}
        self.durations = Durations()

    def finished(self, code: str, seconds: float = 0.0) -> None:
        """Count the end of a call."""
        self.codes[code] = self.codes.get(code, 0) + 1
        if self.kind == "unary":
            self.durations.observed(seconds)


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
        self._calls: dict[tuple[str, str], Calls] = {}
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
        self.updates_expired = Counter(
            f"{PREFIX}updates_expired",
            "Held updates that took longer than they may.",
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

    def calls(self, service: str, method: str, kind: str) -> Calls:
        """The record of one gRPC method; ``kind`` is ``unary``, ``server_stream`` or
        ``bidi_stream``."""
        return self._calls.setdefault((service, method), Calls(service, method, kind))

    def observe(self, source: Callable[[], Observation]) -> None:
        """Read the gauges from ``source`` at every scrape."""
        self.registry.register(StateCollector(source, self._info))

    def know_provider(self, provider_id: str) -> None:
        """Begin the series of a provider at 0: a rate does not see a first event that is also the
        first sample."""
        for family in self._by_provider:
            family.labels(provider_id)

    def forget_provider(self, provider_id: str) -> None:
        """Drop the series of a provider that is gone for good."""
        for family in self._by_provider:
            family.remove(provider_id)

    @property
    def _by_provider(self) -> tuple[Counter, ...]:
        return (
            self.updates_aborted,
            self.updates_expired,
            self.heartbeats,
            self.heartbeat_timeouts,
        )


class _Counts(Collector):
    """What is counted with every write and every call."""

    def __init__(
        self,
        updates: dict[str, int],
        watch_events: dict[str, int],
        calls: dict[tuple[str, str], Calls],
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
        calls = self._calls.values()
        return (updates, events, *_documented_families(calls), *_standard_families(calls))


def _documented_families(calls: Iterable[Calls]) -> Iterable[Metric]:
    """The reference's names. They tell methods apart by name alone, so the services are summed."""
    requests = CounterMetricFamily(
        f"{PREFIX}grpc_requests", "Finished gRPC calls.", labels=["method", "code"]
    )
    durations = HistogramMetricFamily(
        f"{PREFIX}grpc_request_duration_seconds",
        "Duration of gRPC calls, streams excluded.",
        labels=["method"],
    )
    by_method: dict[str, Calls] = {}
    for record in calls:
        joined = by_method.setdefault(record.method, Calls("", record.method, record.kind))
        joined.durations.add(record.durations)
        for code, count in record.codes.items():
            joined.codes[code] = joined.codes.get(code, 0) + count
    for method, record in by_method.items():
        for code, count in record.codes.items():
            requests.add_metric([method, code], count)
        _add_durations(durations, [method], record)
    return requests, durations


def _standard_families(calls: Iterable[Calls]) -> Iterable[Metric]:
    """The names that every gRPC dashboard knows, those of go-grpc-prometheus."""
    labels = ["grpc_type", "grpc_service", "grpc_method"]
    started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=labels)
    handled = CounterMetricFamily(
        "grpc_server_handled", "Calls finished, by code.", labels=[*labels, "grpc_code"]
    )
    durations = HistogramMetricFamily(
        "grpc_server_handling_seconds", "Duration of calls, streams excluded.", labels=labels
    )
    for record in calls:
        values = [record.kind, record.service, record.method]
        started.add_metric(values, record.started)
        for code, count in record.codes.items():
            handled.add_metric([*values, _standard_code(code)], count)
        _add_durations(durations, values, record)
    return started, handled, durations


def _add_durations(family: HistogramMetricFamily, labels: list[str], record: Calls) -> None:
    if record.durations.count:
        family.add_metric(labels, record.durations.cumulative, record.durations.seconds)


def _standard_code(code: str) -> str:
    """A code as Go spells it."""
    if code == "CANCELLED":
        return "Canceled"
    return code if code == "OK" else code.title().replace("_", "")
