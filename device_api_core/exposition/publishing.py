"""What a publisher has done, as families of their own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from device_api_core.published import Published

PREFIX = "device_api_publisher_"


class PublishedCollector(Collector):
    """The numbers of one publisher."""

    def __init__(self, published: Published) -> None:
        self._published = published

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        now = self._published
        for kind, name, text, value in (
            (CounterMetricFamily, "published", "Views published.", now.successes),
            (CounterMetricFamily, "failures", "Failed attempts to publish.", now.failures),
            (
                GaugeMetricFamily,
                "last_success_timestamp_seconds",
                "Unix time of the last success; 0 before the first.",
                now.last_success,
            ),
            (
                GaugeMetricFamily,
                "stale",
                "Whether the server's view is not proven to be current.",
                float(now.stale),
            ),
        ):
            family = kind(f"{PREFIX}{name}", text, labels=["publisher"])
            family.add_metric([now.publisher], value)
            yield family
        yield from self._own()

    def _own(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for series, value in self._published.tally.read().counts.items():
            text = "A counter of publishers; their own documentation says what it means."
            name = f"{PREFIX}{series.name}"
            family = families.setdefault(series.name, Metric(name, text, "counter"))
            labels = {**dict(series.labels), "publisher": self._published.publisher}
            family.add_sample(f"{name}_total", labels, value)
        return families.values()


def registry_of_publisher(published: Published) -> CollectorRegistry:
    """All families of a publisher."""
    registry = CollectorRegistry()
    registry.register(PublishedCollector(published))
    return registry
