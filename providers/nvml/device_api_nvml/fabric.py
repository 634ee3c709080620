"""FabricHealthy: how a GPU behind NVSwitches is attached to its NVLink fabric."""

from __future__ import annotations

from dataclasses import replace

from device_api_core.actions import CONTACT_SUPPORT
from device_api_nvml import gauges
from device_api_nvml.gauges import Fabric, supported
from device_api_nvml.health import Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions
from device_api_nvml.signals import Area, Finding, Suspicion, Warned

NOT_JOINED = Fault(
    "FabricNotReady", "The GPU has not joined its NVLink fabric.", CONTACT_SUPPORT, event=False
)
REFUSED = Fault(
    "FabricRegistrationFailed",
    "The GPU could not join its NVLink fabric.",
    CONTACT_SUPPORT,
    event=False,
)
UNHEALTHY = Fault(
    "FabricUnhealthy", "The NVLink fabric of the GPU is not well.", CONTACT_SUPPORT, event=False
)

_COMPLETED = 3
_SUMMARY_UNHEALTHY, _SUMMARY_LIMITED = 2, 3
_TRUE = 1
_BITS = {
    0: ("degraded bandwidth", True),
    2: ("route recovery in progress", False),
    4: ("route unhealthy", True),
    6: ("recovery from an access time-out", False),
}
"""Shift in the health mask: what it says, and whether it is a fault of its own."""
_CONFIGURATION_SHIFT, _CONFIGURATION_GOOD = 8, (0, 1)


def read(nvml: Nvml, gpu: Handle, _rare: bool) -> Fabric | None:
    return supported(lambda: gauges.fabric(nvml, gpu))


def judge(_memo: None, now: Fabric, _at: float, o: NvmlOptions) -> tuple[Finding, None]:
    good = "The GPU is part of its NVLink fabric."
    if now.state != _COMPLETED:
        text = f"{NOT_JOINED.text} State {now.state}."
        return Finding(good, (Suspicion(replace(NOT_JOINED, text=text), o.fabric_seconds),)), None
    if now.status:
        text = f"{REFUSED.text} NVML error {now.status}."
        return Finding(good, (Suspicion(replace(REFUSED, text=text)),)), None
    says = _says(now.mask)
    words = [name for name, _ in says]
    listed = f" It says: {', '.join(words)}." if words else ""
    if now.summary == _SUMMARY_UNHEALTHY or any(bad for _, bad in says):
        text = f"{UNHEALTHY.text}{listed}"
        return Finding(good, (Suspicion(replace(UNHEALTHY, text=text)),)), None
    if now.summary == _SUMMARY_LIMITED or words:
        text = f"The NVLink fabric has limited capacity.{listed}"
        return Finding(good, warnings=(Warned(f"FabricLimited{words}", text),)), None
    return Finding(good), None


def _says(mask: int) -> list[tuple[str, bool]]:
    found = [said for shift, said in _BITS.items() if mask >> shift & 0b11 == _TRUE]
    kind = mask >> _CONFIGURATION_SHIFT & 0xF
    if kind not in _CONFIGURATION_GOOD:
        found.append((f"incorrect configuration {kind}", True))
    return found


AREA = Area("FabricHealthy", (NOT_JOINED, REFUSED, UNHEALTHY), read, judge, rare=True)
