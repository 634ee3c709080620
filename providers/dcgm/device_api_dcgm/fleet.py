"""All GPUs this provider knows. The only one that writes to the sink about them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from device_api_core.errors import DeviceApiError, NotFound, SinkClosed
from device_api_core.plugins import Sink
from device_api_core.resources import Condition, GpuSpec
from device_api_dcgm.exposition import Exposition
from device_api_dcgm.gpu import DcgmGpu, Doubt, Status
from device_api_dcgm.health import Judge
from device_api_dcgm.overruled import Overruled

_MAX_GPUS = 1_024  # what the daemon takes
_log = logging.getLogger(__name__)


class Fleet:
    """GPUs by name, from scrape to scrape."""

    def __init__(self, sink: Sink, judge: Judge, overruled: Overruled) -> None:
        self._sink = sink
        self._judge = judge
        self._overruled = overruled
        self._past: Mapping[str, str] = {}
        self._gpus: dict[str, DcgmGpu] = {}
        self._registered: set[str] = set()
        self._refused: dict[str, str] = {}

    @property
    def refusals(self) -> int:
        """GPUs about which the daemon did not take the last word."""
        return len(self._refused)

    def resume(self, known: Mapping[str, tuple[Condition, ...]]) -> None:
        """Begin from what was said before a restart."""
        self._past = self._overruled.load()
        for name, conditions in known.items():
            self._add(name, conditions)

    def observe(self, scrape: Exposition, now: float) -> None:
        """Take a good scrape."""
        for name, reading in scrape.gpus.items():
            if name not in self._gpus and len(self._gpus) >= _MAX_GPUS:
                continue
            for fault in self._add(name).observe(reading, now):
                _log.info("fault is over", extra={"gpu": name, "reason": fault.reason})
        for name, gpu in self._gpus.items():
            if name not in scrape.gpus:
                gpu.miss()
        self._overruled.store({name: gpu.overruled for name, gpu in self._gpus.items()})

    def fail(self, doubt: Doubt | None) -> None:
        """Take a failed scrape; ``doubt`` if there were too many."""
        for gpu in self._gpus.values():
            gpu.fail(doubt)

    def clear(self, name: str, type_: str) -> None:
        """An operator says that the cause is gone."""
        if (gpu := self._gpus.get(name)) is not None:
            _log.info("cleared by an operator", extra={"gpu": name, "type": type_})
            gpu.clear(type_)

    def publish(self) -> None:
        """Say everything. What was said before costs nothing and mends what was lost."""
        for gpu in tuple(self._gpus.values()):
            if not gpu.silent:
                self._publish(gpu)

    def _add(self, name: str, known: Iterable[Condition] = ()) -> DcgmGpu:
        gpu = self._gpus.get(name)
        if gpu is None:
            gpu = DcgmGpu(name, self._judge, known, self._past.get(name, ""))
            self._gpus[name] = gpu
        return gpu

    def _publish(self, gpu: DcgmGpu) -> None:
        status = gpu.status
        try:
            self._say(gpu, status)
        except SinkClosed:
            raise
        except NotFound:
            self._unknown(gpu)
            return
        except DeviceApiError as error:
            self._refuse(gpu.name, error.message)
            return
        self._refused.pop(gpu.name, None)

    def _say(self, gpu: DcgmGpu, status: Status) -> None:
        if gpu.name not in self._registered and not gpu.absent:
            self._register(gpu)
        try:
            self._set(gpu.name, status)
        except NotFound:
            if gpu.absent or not self._register(gpu):
                raise
            self._set(gpu.name, status)

    def _set(self, name: str, status: Status) -> None:
        self._sink.set_status(name, status.conditions, recommended_action=status.action)

    def _register(self, gpu: DcgmGpu) -> bool:
        if not self._judge.options.register_gpus:
            return False
        if self._sink.register(gpu.name, gpu.spec or GpuSpec()):
            _log.info("GPU registered", extra={"gpu": gpu.name})
        self._registered.add(gpu.name)
        return True

    def _unknown(self, gpu: DcgmGpu) -> None:
        if gpu.absent:
            # The exporter does not have it, and somebody took it away here: it is gone.
            del self._gpus[gpu.name]
            self._registered.discard(gpu.name)
            self._refused.pop(gpu.name, None)
        else:
            self._refuse(gpu.name, "no provider has registered it yet")

    def _refuse(self, name: str, why: str) -> None:
        if self._refused.get(name) != why:
            _log.warning("the daemon takes nothing about a GPU: %s", why, extra={"gpu": name})
        self._refused[name] = why
