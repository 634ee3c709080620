"""The metrics page, in Prometheus's text format.

The only importer of prometheus_client, which brings along an HTTP server and more: it is imported
with the first scrape.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from device_api_core.exposition.counts import CountsCollector
from device_api_core.exposition.gauges import StateCollector
from device_api_core.exposition.tallied import TalliesCollector
from device_api_core.metrics import Metrics
from device_api_core.tallies import Tallies


def registry_of(metrics: Metrics, tallies: Tallies) -> CollectorRegistry:
    """All families of the daemon's own."""
    registry = CollectorRegistry()
    registry.register(CountsCollector(metrics))
    registry.register(TalliesCollector(tallies))
    if metrics.observe is not None:
        registry.register(StateCollector(metrics.observe, metrics.info))
    return registry


class Exposition:
    """The page of one process, with what that says of itself."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def text(self) -> bytes:
        """The page as it is now."""
        return generate_latest(self._registry)
