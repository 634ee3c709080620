"""The conversion of what a provider has counted and shows."""

from __future__ import annotations

from device_api_core._proto import provider_pb2
from device_api_core.series import Numbers


def numbers_to_proto(numbers: Numbers) -> provider_pb2.ProviderNumbers:
    """The message of a provider's numbers."""
    message = provider_pb2.ProviderNumbers(run=numbers.run)
    for series, value in numbers.counts.items():
        message.metrics.add(name=series.name, labels=dict(series.labels), counter=value)
    for series, value in numbers.gauges.items():
        message.metrics.add(name=series.name, labels=dict(series.labels), gauge=value)
    return message
