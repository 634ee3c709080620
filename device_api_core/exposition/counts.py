"""Counters and histograms, of what was recorded where things happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from device_api_core.metrics import PREFIX, Calls, Metrics


class CountsCollector(Collector):
    """What :class:`~device_api_core.metrics.Metrics` has counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        metrics = self._metrics
        yield _counter(
            "cache_updates",
            "Successful writes to the cache, those that changed nothing included.",
            "operation",
            metrics.updates,
        )
        yield _counter(
            "watch_events",
            "Changes published to watchers, by event type.",
            "type",
            metrics.watch_events,
        )
        yield CounterMetricFamily(
            f"{PREFIX}refused_false",
            "Writes of False that were refused because another provider owns the condition.",
            value=metrics.refused_forgeries,
        )
        yield CounterMetricFamily(
            f"{PREFIX}messages_cut",
            "Texts of new faults that were cut because there was no room for them.",
            value=metrics.messages_cut,
        )
        for name, text, counts in (
            (
                "updates_aborted",
                "Held updates that expired, failed or lost their provider.",
                metrics.updates_aborted,
            ),
            (
                "updates_expired",
                "Held updates that took longer than they may.",
                metrics.updates_expired,
            ),
            ("provider_heartbeat", "Heartbeats received.", metrics.heartbeats),
            ("provider_heartbeat_timeout", "Leases that ran out.", metrics.heartbeat_timeouts),
        ):
            yield _counter(name, text, "provider_id", counts)
        yield from _documented_families(metrics.all_calls)
        yield from _standard_families(metrics.all_calls)


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


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
