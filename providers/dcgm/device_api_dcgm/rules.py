"""What the plain series mean, those without a code: one rule per reason.

The thresholds are settings. ``source`` is ``dcgm`` where DCGM's health module has the same rule,
``nvml`` where the driver itself says so, ``device-api`` where the judgement is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_api_core.actions import COMPONENT_RESET, CONTACT_SUPPORT
from device_api_dcgm import series


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a watch's condition is False without the watch saying so. ``signal`` is what has to say
    that it is over; ``latched``: not even that does, only a reset that was seen."""

    reason: str
    signal: str
    watch: str
    series: str
    when: str
    action: str
    source: str
    latched: bool = False


RULES = {
    rule.reason: rule
    for rule in (
        Rule("UncorrectableEcc", "ecc", "MEM", series.DBE, "rises", COMPONENT_RESET, "dcgm", True),
        Rule(
            "RowRemapFailure",
            *("remap_failed", "MEM", series.REMAP_FAILED, "not 0", CONTACT_SUPPORT, "dcgm"),
        ),
        Rule(
            "RowRemapPending",
            *("remap_pending", "MEM", series.REMAP_PENDING, "not 0", COMPONENT_RESET, "device-api"),
        ),
        Rule(
            "HwThermalSlowdown",
            *("thermal", "THERMAL", series.CLOCK_EVENTS, "hw_thermal, or slowdown temperature"),
            *(CONTACT_SUPPORT, "nvml"),
        ),
        Rule(
            "ThermalViolation",
            *("thermal_violation", "THERMAL", series.THERMAL_VIOLATION, "above violation_percent"),
            *(CONTACT_SUPPORT, "device-api"),
        ),
        Rule(
            "HwPowerBrake",
            *("power_brake", "POWER", series.CLOCK_EVENTS, "hw_power_brake"),
            *(CONTACT_SUPPORT, "nvml"),
        ),
        Rule(
            "NvlinkErrors",
            *("nvlink", "NVLINK", "DCGM_FI_DEV_NVLINK_*_ERROR_TOTAL"),
            *("above nvlink_errors_per_second", COMPONENT_RESET, "device-api"),
        ),
    )
}
