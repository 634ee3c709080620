"""All conditions that follow from readings."""

from __future__ import annotations

from device_api_nvml import clocks, fabric, links, memory, pcie
from device_api_nvml.health import Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions
from device_api_nvml.recovery import NOTHING_TO_DO, recovery
from device_api_nvml.signals import Area, Finding, Suspicion

RECOVERY_REASON = "RecoveryActionRequired"


def _read_recovery(nvml: Nvml, gpu: Handle, _rare: bool) -> int | None:
    return nvml.recovery_action(gpu)


def _judge_recovery(
    _memo: None, value: int, _at: float, _options: NvmlOptions
) -> tuple[Finding, None]:
    good = "The driver asks for nothing."
    if value == NOTHING_TO_DO:
        return Finding(good), None
    wish, action = recovery(value)
    text = f"The driver asks for {wish} (recovery action {value})."
    return Finding(good, (Suspicion(Fault(RECOVERY_REASON, text, action, event=False)),)), None


RECOVERY = Area(
    type="RecoveryActionNone",
    faults=(Fault(RECOVERY_REASON, "", "", event=False),),
    read=_read_recovery,
    judge=_judge_recovery,
)

MEASURED: tuple[Area, ...] = (
    memory.AREA,
    clocks.HEAT,
    clocks.POWER,
    links.AREA,
    fabric.AREA,
    pcie.AREA,
)
"""Those that a look reads besides what it needs anyway."""

AREAS = (RECOVERY, *MEASURED)
