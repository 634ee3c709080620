"""ThermalHealthy and PowerHealthy: what holds the clocks back, and the distance to the limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_api_core.actions import CONTACT_SUPPORT
from device_api_nvml import gauges
from device_api_nvml.gauges import supported
from device_api_nvml.health import Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions
from device_api_nvml.signals import Area, Finding, Suspicion, Warned

HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x8, 0x20, 0x40, 0x80

THERMAL = Fault(
    "HwThermalSlowdown",
    "The hardware slows the GPU down because it is too hot.",
    CONTACT_SUPPORT,
    event=False,
)
SLOWDOWN = Fault(
    "HwSlowdown",
    "The hardware slows the GPU down and does not say why.",
    CONTACT_SUPPORT,
    event=False,
)
BRAKE = Fault(
    "HwPowerBrake",
    "The hardware slows the GPU down because the power supply asked for it.",
    CONTACT_SUPPORT,
    event=False,
)


@dataclass(frozen=True, slots=True)
class Heat:
    """In degrees Celsius; ``None`` where the board does not tell."""

    reasons: int | None
    celsius: int | None
    margin: int | None


def read_heat(nvml: Nvml, gpu: Handle, _rare: bool) -> Heat | None:
    found = Heat(
        reasons=supported(lambda: gauges.clock_reasons(nvml, gpu)),
        celsius=supported(lambda: gauges.temperature(nvml, gpu)),
        margin=supported(lambda: gauges.margin(nvml, gpu)),
    )
    return found if found.reasons is not None or found.margin is not None else None


def judge_heat(_memo: None, now: Heat, _at: float, o: NvmlOptions) -> tuple[Finding, None]:
    reasons = now.reasons or 0
    suspicions, warnings = [], []
    reading = _reading(now)
    if reasons & HW_THERMAL:
        fault = replace(THERMAL, text=f"{THERMAL.text}{reading}")
        suspicions.append(Suspicion(fault, o.thermal_seconds))
    elif reasons & HW_SLOWDOWN and not reasons & POWER_BRAKE:
        fault = replace(SLOWDOWN, text=f"{SLOWDOWN.text}{reading}")
        suspicions.append(Suspicion(fault, o.thermal_seconds))
    if reasons & SW_THERMAL:
        text = f"The driver slows the GPU down because it is hot.{reading}"
        warnings.append(Warned("SwThermalSlowdown", text))
    if now.margin is not None and now.margin <= o.thermal_margin_celsius:
        warnings.append(Warned("ThermalMargin", f"The GPU is at its thermal limit.{reading}"))
    return Finding("The hardware does not slow it down.", tuple(suspicions), tuple(warnings)), None


def _reading(now: Heat) -> str:
    words = []
    if now.celsius is not None:
        words.append(f"{now.celsius} C")
    if now.margin is not None:
        words.append(f"margin {now.margin} C")
    return f" At the time: {', '.join(words)}." if words else ""


def read_power(nvml: Nvml, gpu: Handle, _rare: bool) -> int | None:
    return supported(lambda: gauges.clock_reasons(nvml, gpu))


def judge_power(_memo: None, now: int, _at: float, o: NvmlOptions) -> tuple[Finding, None]:
    braked = (Suspicion(BRAKE, o.power_seconds),) if now & POWER_BRAKE else ()
    return Finding("The power supply does not slow it down.", braked), None


HEAT = Area("ThermalHealthy", (THERMAL, SLOWDOWN), read_heat, judge_heat)
POWER = Area("PowerHealthy", (BRAKE,), read_power, judge_power)
