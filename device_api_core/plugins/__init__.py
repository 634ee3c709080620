"""How to write a provider.

A provider is a Python package with one entry point and one class::

    # pyproject.toml
    [project.entry-points."device_api.providers"]
    fan = "my_fan_provider.plugin"

    # my_fan_provider/plugin.py
    from device_api_core.plugins import Provider, hookimpl
    from device_api_core.resources import Condition, ConditionStatus, GpuSpec

    class FanProvider(Provider):
        name = "fan"                      # the provider id; the entry point has the same name
        contract_version = 1
        interval_seconds = 5.0            # how often run() says something, at the least
        types = ("example.com/FanHealthy",)

        def run(self, sink, stop):
            sink.register("gpu-0", GpuSpec(uuid="GPU-..."))
            while True:
                sink.set_condition("gpu-0", Condition("example.com/FanHealthy", read_fan()))
                sink.synced()
                if stop.wait(self.interval_seconds):
                    return

        def clear(self, gpu, type):
            pass                          # nothing latched, nothing to drop

    @hookimpl
    def device_api_provider(options):
        return FanProvider()

``device-api providers`` then lists it, and ``device-api-server --provider fan`` runs it;
``device-api providers new fan`` writes such a package with its tests
(:mod:`device_api_core.testing`). The whole contract is :mod:`device_api_core.plugins.spec`.
"""

from device_api_core.plugins.options import InvalidOption, read_options
from device_api_core.plugins.publishing import (
    PUBLISHER_CONTRACT_VERSION,
    PUBLISHER_GROUP,
    Count,
    Publisher,
)
from device_api_core.plugins.spec import (
    CONTRACT_VERSION,
    ENTRY_POINT_GROUP,
    PROJECT,
    Provider,
    Sink,
    Update,
    hookimpl,
)

__all__ = [
    "CONTRACT_VERSION",
    "ENTRY_POINT_GROUP",
    "PROJECT",
    "PUBLISHER_CONTRACT_VERSION",
    "PUBLISHER_GROUP",
    "Count",
    "InvalidOption",
    "Provider",
    "Publisher",
    "Sink",
    "Update",
    "hookimpl",
    "read_options",
]
