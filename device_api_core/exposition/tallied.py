"""What providers have counted, as families of their own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from device_api_core.tallies import Tallies

PREFIX = "device_api_provider_"


class TalliesCollector(Collector):
    """The numbers of all providers. One name may be a counter's and a gauge's."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        families: dict[tuple[str, str], Metric] = {}
        for provider_id, kind, series, value in self._tallies.lines():
            family = families.get((kind, series.name))
            if family is None:
                text = f"A {kind} of providers; their own documentation says what it means."
                family = families[kind, series.name] = Metric(PREFIX + series.name, text, kind)
            suffix = "_total" if kind == "counter" else ""
            labels = {"provider_id": provider_id, **dict(series.labels)}
            family.add_sample(f"{family.name}{suffix}", labels, value)
        return families.values()
