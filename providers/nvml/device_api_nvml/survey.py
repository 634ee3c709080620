"""Looking at a GPU: who is it, does it answer, what does the driver recommend."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from device_api_core.resources import GpuSpec
from device_api_nvml.library import DriverGone, GpuLost, Handle, Nvml, NvmlError, Unsupported

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of looking at the GPU with this index. ``began`` is in monotonic seconds.

    With an ``error`` the fields after it hold what was learned before it. ``recovery`` is
    ``None`` where the driver has no such field."""

    index: int
    began: float
    error: NvmlError | None = None
    handle: Handle | None = None
    spec: GpuSpec | None = None
    recovery: int | None = None

    @property
    def name(self) -> str:
        """The GPU's name in the API: its UUID in lower case; empty if it did not say."""
        return self.spec.uuid.lower() if self.spec else ""


def examine(nvml: Nvml, index: int) -> Answer:
    """Look at one GPU. Makes every call that a poll makes; any of them may never return."""
    began = time.monotonic()
    handle = spec = None
    try:
        handle = nvml.handle(index)
        spec = GpuSpec(uuid=nvml.uuid(handle), index=index)
        spec = describe(nvml, handle, spec.uuid, index)
        advice = _supported(lambda: nvml.recovery_action(handle))
    except NvmlError as error:
        return Answer(index, began, error, handle, spec)
    return Answer(index, began, None, handle, spec, advice)


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
        memory_bytes=_supported(lambda: nvml.memory_bytes(gpu)),
        serial=_told(lambda: nvml.serial(gpu)) or "",
        mig_mode=_told(lambda: nvml.mig_mode(gpu)) or "",
    )


def _supported(read: Callable[[], T]) -> T | None:
    with suppress(Unsupported):
        return read()
    return None


def _told(read: Callable[[], T]) -> T | None:
    """A fact that is no signal: its absence, whatever the error, says nothing about health. Only a
    lost GPU or driver is worth stopping for."""
    try:
        return read()
    except (GpuLost, DriverGone):
        raise
    except NvmlError:
        return None
