"""Says that a GPU is well for as long as a file says ``ok``."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_api_core.plugins import Provider, Sink, hookimpl, read_options
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

HEALTHY = "example.com/TemplateHealthy"


@dataclass(frozen=True)
class Options:
    """The table ``[providers.template]``: the GPU's name, and the file that is watched."""

    gpu: str = "gpu-0"
    file: str = "/run/device-api-template/state"


class TemplateProvider(Provider):
    name = "template"
    contract_version = 1
    interval_seconds = 1.0
    types = (HEALTHY,)

    def __init__(self, options: Options) -> None:
        self._options = options

    def run(self, sink: Sink, stop: threading.Event) -> None:
        sink.register(self._options.gpu, GpuSpec())
        while not stop.is_set():
            sink.set_condition(self._options.gpu, self.look())
            sink.synced()
            stop.wait(self.interval_seconds / 2)

    def look(self) -> Condition:
        """What cannot be read is Unknown: neither good nor bad."""
        try:
            text = Path(self._options.file).read_text(encoding="utf-8").strip()
        except OSError as error:
            return Condition(HEALTHY, ConditionStatus.UNKNOWN, "SourceUnreadable", str(error))
        if text == "ok":
            return Condition(HEALTHY, ConditionStatus.TRUE)
        return Condition(HEALTHY, ConditionStatus.FALSE, "SourceSaysSo", text)

    def clear(self, gpu: str, type: str) -> None:
        """Nothing is latched here: the next look decides."""


@hookimpl
def device_api_provider(options: Mapping[str, object]) -> Provider:
    return TemplateProvider(read_options(Options, options))
