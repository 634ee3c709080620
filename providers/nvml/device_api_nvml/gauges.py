"""The readings that health follows from, with types. Every call raises what ``Nvml.call`` does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pynvml

from device_api_nvml.library import INVALID_ARGUMENT, Handle, Nvml, NvmlError, Unsupported

T = TypeVar("T")

MAX_LINKS = 36

_UNCORRECTED, _CORRECTED, _VOLATILE = 1, 0, 0
_LINK_COUNTERS = (0, 1, 2, 3, 4)
_LINK5_ERROR_FIELDS = (206, 207, 208, 210, 211)
_LINK5_FAILED_RECOVERIES = 214
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


def supported(read: Callable[[], T]) -> T | None:
    """What it returns, or ``None`` if board or driver do not have it."""
    with suppress(Unsupported):
        return read()
    return None


def fields(
    nvml: Nvml, gpu: Handle, wanted: Sequence[tuple[int, int]]
) -> Mapping[tuple[int, int], int]:
    """The field values that there are, by what was asked for: id and scope."""
    values = nvml.call(pynvml.nvmlDeviceGetFieldValues, gpu.pointer, list(wanted))
    return {
        name: int(getattr(value.value, _MEMBERS[value.valueType]))
        for name, value in zip(wanted, values, strict=True)
        if not value.nvmlReturn
    }


def ecc_uncorrected(nvml: Nvml, gpu: Handle) -> int:
    """Uncorrected memory errors since the last reset."""
    call = pynvml.nvmlDeviceGetTotalEccErrors
    return int(nvml.call(call, gpu.pointer, _UNCORRECTED, _VOLATILE))


def ecc_corrected(nvml: Nvml, gpu: Handle) -> int:
    """Corrected memory errors since the last reset."""
    call = pynvml.nvmlDeviceGetTotalEccErrors
    return int(nvml.call(call, gpu.pointer, _CORRECTED, _VOLATILE))


@dataclass(frozen=True, slots=True)
class Rows:
    """Row remapping. ``pending``: a reset completes it. ``failure``: for ever."""

    pending: bool
    failure: bool


def remapped_rows(nvml: Nvml, gpu: Handle) -> Rows:
    """Ampere and newer, unless there are MIG instances."""
    [_, _, pending, failure] = nvml.call(pynvml.nvmlDeviceGetRemappedRows, gpu.pointer)
    return Rows(bool(pending), bool(failure))


def banks_without_spares(nvml: Nvml, gpu: Handle) -> int:
    """Memory banks in which the next faulty row cannot be replaced."""
    return int(nvml.call(pynvml.nvmlDeviceGetRowRemapperHistogram, gpu.pointer).none)


def retirement_pending(nvml: Nvml, gpu: Handle) -> bool:
    """Before Ampere: a faulty page is in use until the next reset."""
    return bool(nvml.call(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, gpu.pointer))


def repairs_pending(nvml: Nvml, gpu: Handle) -> tuple[str, ...]:
    """Blackwell: what the next reset repairs."""
    channel, tpc = nvml.call(pynvml.nvmlDeviceGetRepairStatus, gpu.pointer)
    return (*(["memory channel"] if channel else []), *(["TPC"] if tpc else []))


def sram_exceeded(nvml: Nvml, gpu: Handle) -> bool:
    """Whether the SRAM has had more uncorrectable errors than a good one may have."""
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    nvml.call(pynvml.nvmlDeviceGetSramEccErrorStatus, gpu.pointer, ctypes.byref(status))
    return bool(status.bThresholdExceeded)


def clock_reasons(nvml: Nvml, gpu: Handle) -> int:
    """Bit mask of what holds the clocks back now. Drivers before R535 have the older name."""
    try:
        return int(nvml.call(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu.pointer))
    except Unsupported:
        return int(nvml.call(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu.pointer))


def temperature(nvml: Nvml, gpu: Handle) -> int:
    return int(nvml.call(pynvml.nvmlDeviceGetTemperature, gpu.pointer, 0))


def margin(nvml: Nvml, gpu: Handle) -> int:
    """Degrees left to the thermal limit; below zero beyond it."""
    return int(nvml.call(pynvml.nvmlDeviceGetMarginTemperature, gpu.pointer))


def pcie_width(nvml: Nvml, gpu: Handle) -> int:
    return int(nvml.call(pynvml.nvmlDeviceGetCurrPcieLinkWidth, gpu.pointer))


def pcie_max_width(nvml: Nvml, gpu: Handle) -> int:
    """What board and slot allow."""
    return int(nvml.call(pynvml.nvmlDeviceGetMaxPcieLinkWidth, gpu.pointer))


def pcie_replays(nvml: Nvml, gpu: Handle) -> int:
    return int(nvml.call(pynvml.nvmlDeviceGetPcieReplayCounter, gpu.pointer))


def links(nvml: Nvml, gpu: Handle) -> dict[int, bool]:
    """Whether each NVLink that the board has is up."""
    call = pynvml.nvmlDeviceGetNvLinkState
    found = {}
    for link in range(MAX_LINKS):
        try:
            found[link] = bool(nvml.call(call, gpu.pointer, link))
        except NvmlError as error:
            # Links are numbered without gaps. Of one beyond the last it is said that it is not
            # supported, or that there is no such argument.
            if isinstance(error, Unsupported) or (found and error.number == INVALID_ARGUMENT):
                break
            raise
    return found


def link_errors(nvml: Nvml, gpu: Handle, link: int) -> int:
    """Errors of one NVLink since the last reset, corrected ones included, up to NVLink 4.

    Raises:
        Unsupported: none of the counters is there.
    """
    call = pynvml.nvmlDeviceGetNvLinkErrorCounter
    found = [supported(partial(nvml.call, call, gpu.pointer, link, c)) for c in _LINK_COUNTERS]
    if (known := [int(n) for n in found if n is not None]) == []:
        raise Unsupported("nvmlDeviceGetNvLinkErrorCounter", 3, "no error counters")
    return sum(known)


def link5_errors(nvml: Nvml, gpu: Handle, links: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Errors and failed recoveries of each NVLink 5."""
    wanted = [(f, link) for link in links for f in (*_LINK5_ERROR_FIELDS, _LINK5_FAILED_RECOVERIES)]
    found = fields(nvml, gpu, wanted) if wanted else {}
    return {
        link: (
            sum(found.get((f, link), 0) for f in _LINK5_ERROR_FIELDS),
            found.get((_LINK5_FAILED_RECOVERIES, link), 0),
        )
        for link in links
        if any(of == link for _, of in found)
    }


@dataclass(frozen=True, slots=True)
class Fabric:
    """How the GPU is attached to the NVLink fabric. ``state``: 1 not started, 2 in progress, 3
    completed; ``status`` is an NVML code, valid when completed."""

    state: int
    status: int
    mask: int
    summary: int


def fabric(nvml: Nvml, gpu: Handle) -> Fabric:
    """
    Raises:
        Unsupported: the GPU is on no fabric.
    """
    info = pynvml.c_nvmlGpuFabricInfo_v3_t()
    nvml.call(pynvml.nvmlDeviceGetGpuFabricInfoV, gpu.pointer, ctypes.byref(info))
    state = int(info.state) & 0xFF  # one byte in C; pynvml reads four
    if state == 0:
        raise Unsupported("nvmlDeviceGetGpuFabricInfoV", 3, "no fabric")
    return Fabric(state, int(info.status), int(info.healthMask), int(info.healthSummary))
