"""PcieHealthy: the width of the link and what it has to repeat."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_api_core.actions import CONTACT_SUPPORT
from device_api_nvml import gauges
from device_api_nvml.gauges import supported
from device_api_nvml.health import Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions
from device_api_nvml.signals import Area, Finding, Suspicion

NARROW = Fault(
    "PcieWidthDegraded",
    "The PCIe link has fewer lanes than it could have.",
    CONTACT_SUPPORT,
    event=False,
)
REPLAYS = Fault(
    "PcieReplays", "The PCIe link has to repeat too much.", CONTACT_SUPPORT, event=False
)


@dataclass(frozen=True, slots=True)
class Pcie:
    """``None`` where the board does not tell. The generation is not looked at: an idle GPU lowers
    it on purpose."""

    width: int | None
    most: int | None
    replays: int | None


@dataclass(frozen=True, slots=True)
class Replays:
    """How many there were, when."""

    count: int
    at: float


def read(nvml: Nvml, gpu: Handle, _rare: bool) -> Pcie | None:
    found = Pcie(
        width=supported(lambda: gauges.pcie_width(nvml, gpu)),
        most=supported(lambda: gauges.pcie_max_width(nvml, gpu)),
        replays=supported(lambda: gauges.pcie_replays(nvml, gpu)),
    )
    return found if found != Pcie(None, None, None) else None


def judge(
    memo: Replays | None, now: Pcie, at: float, o: NvmlOptions
) -> tuple[Finding, Replays | None]:
    suspicions = []
    text = "The PCIe link is well."
    if now.width and now.most:
        text = f"The PCIe link has {now.most} lanes."
        if now.width < now.most:
            narrow = f"The PCIe link has {now.width} lanes of {now.most}."
            suspicions.append(Suspicion(replace(NARROW, text=narrow), o.pcie_seconds))
    rate = _per_minute(memo, now.replays, at)
    if rate > o.pcie_replays_per_minute:
        many = f"The PCIe link repeats {rate:.0f} packets a minute."
        suspicions.append(Suspicion(replace(REPLAYS, text=many), o.pcie_seconds))
    seen = memo if now.replays is None else Replays(now.replays, at)
    return Finding(text, tuple(suspicions)), seen


def _per_minute(memo: Replays | None, count: int | None, at: float) -> float:
    if memo is None or count is None or at <= memo.at:
        return 0.0
    return max(0, count - memo.count) / (at - memo.at) * 60.0


AREA = Area("PcieHealthy", (NARROW, REPLAYS), read, judge)
