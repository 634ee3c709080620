"""Looking at a GPU: who is it, does it answer, what does the driver recommend."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from device_api_core.resources import GpuSpec
from device_api_nvml.areas import MEASURED, RECOVERY
from device_api_nvml.gauges import supported
from device_api_nvml.library import DriverGone, GpuLost, Handle, Nvml, NvmlError, ResetRequired
from device_api_nvml.signals import Area

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of looking at the GPU with this index. ``began`` is in monotonic seconds.

    With an ``error`` the fields after it hold what was learned before it. ``readings`` are by
    condition type: ``None`` where the board has no such signal, an error where reading it failed;
    what was not read is not among them."""

    index: int
    began: float
    error: NvmlError | None = None
    handle: Handle | None = None
    spec: GpuSpec | None = None
    readings: Mapping[str, object] = field(default_factory=dict)

    @property
    def recovery(self) -> int | None:
        """The driver's recovery action, ``None`` where it has no such field."""
        value = self.readings.get(RECOVERY.type)
        return value if isinstance(value, int) else None

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for was answered."""
        failed = any(isinstance(value, NvmlError) for value in self.readings.values())
        return self.error is None and not failed

    @property
    def name(self) -> str:
        """The GPU's name in the API: its UUID in lower case; empty if it did not say."""
        return self.spec.uuid.lower() if self.spec else ""


def examine(nvml: Nvml, index: int, rare: bool = True) -> Answer:
    """Look at one GPU. Makes every call that a poll makes; any of them may never return. ``rare``:
    those too that are too expensive for every poll."""
    began = time.monotonic()
    handle = spec = None
    try:
        handle = nvml.handle(index)
        spec = GpuSpec(uuid=nvml.uuid(handle), index=index)
        spec = describe(nvml, handle, spec.uuid, index)
        readings: dict[str, object] = {
            RECOVERY.type: supported(lambda: nvml.recovery_action(handle))
        }
        for area in MEASURED:
            if rare or not area.rare:
                readings[area.type] = _read(area, nvml, handle, rare)
    except NvmlError as error:
        return Answer(index, began, error, handle, spec)
    return Answer(index, began, None, handle, spec, readings)


def _read(area: Area, nvml: Nvml, gpu: Handle, rare: bool) -> object:
    """One signal's failure is not the GPU's, unless it says that the GPU is lost."""
    try:
        return supported(lambda: area.read(nvml, gpu, rare))
    except (GpuLost, ResetRequired, DriverGone):
        raise
    except NvmlError as error:
        return error


def describe(nvml: Nvml, gpu: Handle, uuid: str, index: int) -> GpuSpec:
    """The facts about a GPU. Those that the board or the driver does not tell stay empty.

    Raises:
        NvmlError: the GPU is lost, or does not even tell its memory size, which all boards do.
    """
    return GpuSpec(
        uuid=uuid,
        index=index,
        minor=_told(lambda: nvml.minor(gpu)),
        pci_bus_id=_told(lambda: nvml.pci_bus_id(gpu)) or "",
        product_name=_told(lambda: nvml.product_name(gpu)) or "",
        architecture=_told(lambda: nvml.architecture(gpu)) or "",
        memory_bytes=supported(lambda: nvml.memory_bytes(gpu)),
        serial=_told(lambda: nvml.serial(gpu)) or "",
        mig_mode=_told(lambda: nvml.mig_mode(gpu)) or "",
    )


def _told(read: Callable[[], T]) -> T | None:
    """A fact that is no signal: its absence, whatever the error, says nothing about health. Only a
    lost GPU or driver is worth stopping for."""
    try:
        return read()
    except (GpuLost, DriverGone):
        raise
    except NvmlError:
        return None
