"""Writes docs/metrics.md from the code: ``python tools/metrics_page.py``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from device_api_core.conditions import LAPSED_REASONS, new_health, set_condition
from device_api_core.durations import DELIVERY_SECONDS, Durations
from device_api_core.entries import Entry
from device_api_core.exposition import registry_of
from device_api_core.exposition.gauges import MAX_CONDITION_KINDS, MAX_LABEL_BYTES, OTHER
from device_api_core.exposition.publishing import PREFIX as PUBLISHER
from device_api_core.exposition.publishing import registry_of_publisher
from device_api_core.leases import MAX_PROVIDERS
from device_api_core.metrics import PREFIX, Metrics
from device_api_core.observation import (
    PROVIDER_STATES,
    Observation,
    ProviderObservation,
    StateObservation,
)
from device_api_core.published import Published
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.tallies import Tallies
from device_api_core.validation import MAX_GPUS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

_LABELS = {
    "action": "the recommended action; free text is `CUSTOM`, none is `NONE`: at most 9",
    "code": "gRPC's status codes, `NOT_FOUND`: at most 17",
    "gpu": f"the GPU's name: at most {MAX_GPUS:,}, and only while it is unhealthy",
    "grpc_code": "the same as Go spells them, `NotFound`",
    "grpc_method": "the methods of the API",
    "grpc_service": "the services of the API",
    "grpc_type": "`unary`, `server_stream`, `bidi_stream`",
    "method": "the methods of the API",
    "node": "`--node-name`: one",
    "operation": "the four kinds of writes; the reference's fifth, `set`, is no call of this API",
    "pci_bus_id": "goes with `gpu`",
    "provider_id": f"at most {MAX_PROVIDERS}, and the plugins that run",
    "publisher": "the name of the publisher: one",
    "python_version": "one",
    "reason": f"of `conditions_stale`: {', '.join(f'`{r}`' for r in sorted(LAPSED_REASONS))}. Of "
    f"`gpu_unhealthy`: the provider's, cut after {MAX_LABEL_BYTES} bytes; goes with `gpu`",
    "state": ", ".join(f"`{state}`" for state in PROVIDER_STATES),
    "status": "`True`, `False`, `Unknown`",
    "type": "of `watch_events_total`: `ADDED`, `MODIFIED`, `DELETED`. Of `conditions`: the "
    f"condition's, for at most {MAX_CONDITION_KINDS} pairs of type and provider; further ones are "
    f"counted together as type `{OTHER}`",
    "uuid": "goes with `gpu`",
    "version": "one",
}

_HEAD = f"""# Metrics

Generated from the code by `tools/metrics_page.py` (`make fix`); a test compares. Served as
`/metrics` on `--metrics-port`. [Alerts](runbooks/README.md) are made of them.

Names without another prefix begin with `{PREFIX}`. Gauges are read from the state at
the moment of the scrape and agree with one another. Counters start at 0 with each start of the
server.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
"""

_MIDDLE = """
What providers count themselves, XIDs by code for one, begins with `device_api_provider_`:
[operations](operations/device-api-server.md#health-readiness-metrics).
`process_*`, `python_info` and `python_gc_*` come with them.
`cache_gpus_total` and `nvml_gpu_count` are gauges in spite of their names, which are the
reference's.

## Publishers

Served by `device-api publish NAME` on its `--metrics-address`, with `process_*`, `python_info` and
`python_gc_*`. [What publishers count themselves](publishers.md#metrics) begins with
`{PUBLISHER}` too.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
{PUBLISHED}
## Cost

What has to look at every condition is read once per change of the cache, when somebody scrapes. On
one core of an ordinary server a scrape takes 1 ms with 8 GPUs, and with 1,024 GPUs of 8 conditions
each 4 ms while they are healthy and 15 ms if all are unhealthy; at every limit at once (1,024
unhealthy GPUs of 64 conditions) 37 ms. The first scrape of a server takes about 60 ms more, once,
for it imports what makes the page. Reads wait for that long. An event's way to a watcher is timed
for 0.3 µs each.

## Labels

Every label is bounded, so that no provider and no caller can grow the page without end.

| Label | Values |
| --- | --- |
"""


def registry() -> CollectorRegistry:
    """Every metric of a daemon, each with a sample."""
    metrics = Metrics(version="1", node="n")
    metrics.know_provider("x")
    metrics.calls("Service", "Method", "unary").finished("OK", 0.1)
    provider = ProviderObservation("p", "running", 0.0, 0.0, 30.0, 30.0, 1, 0, plugin=True)
    broken = Condition("FanHealthy", ConditionStatus.FALSE, "Stuck")
    health = set_condition(new_health(0), broken, 0)
    gpu = Entry("gpu-0", GpuSpec(), frozenset(), health)
    metrics.observe = lambda: Observation(
        gpus=(gpu,),
        resource_version=1,
        watches=0,
        watches_ended_slow=0,
        deepest_watch_queue=0,
        deliveries=Durations(DELIVERY_SECONDS),
        updates_held=0,
        holds=Durations(),
        readers_parked=0,
        read_waits=Durations(),
        state=StateObservation(0, 0, healthy=True),
        sockets_lost=0,
        sockets_missing=0,
        ready=True,
        providers=(provider,),
    )
    return registry_of(metrics, Tallies())


def page() -> str:
    """The page's text."""
    families = sorted(registry().collect(), key=lambda f: (not f.name.startswith(PREFIX), f.name))
    published = list(registry_of_publisher(Published("p")).collect())
    labels = sorted({label for family in (*families, *published) for label in labels_of(family)})
    rows = (f"| `{label}` | {_LABELS[label]} |\n" for label in labels)
    middle = _MIDDLE.format(PUBLISHER=PUBLISHER, PUBLISHED="".join(map(_row, published)))
    return "".join([_HEAD, *map(_row, families), middle, *rows])


def labels_of(family: Metric) -> Iterable[str]:
    """Its labels, without the bounds of a histogram's buckets."""
    return dict.fromkeys(label for s in family.samples for label in s.labels if label != "le")


def name_of(family: Metric) -> str:
    """The name that a query uses."""
    suffix = "_total" if family.type == "counter" else ""
    return family.name + suffix


def _row(family: Metric) -> str:
    name = name_of(family).removeprefix(PREFIX)
    labels = ", ".join(labels_of(family))
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
