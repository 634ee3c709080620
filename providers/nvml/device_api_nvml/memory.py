"""MemoryHealthy: uncorrectable errors, and whether the board could and can repair itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_api_core.actions import COMPONENT_RESET, CONTACT_SUPPORT
from device_api_nvml import gauges
from device_api_nvml.gauges import Rows, supported
from device_api_nvml.health import Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions
from device_api_nvml.signals import Area, Finding, Suspicion, Warned

UNCORRECTABLE = Fault("EccUncorrectable", "Memory errors could not be corrected.", COMPONENT_RESET)
SRAM = Fault(
    "SramThresholdExceeded",
    "The SRAM has had more uncorrectable errors than a good board has.",
    CONTACT_SUPPORT,
    event=False,
)
REMAP_FAILED = Fault(
    "RowRemapFailed",
    "A faulty memory row could not be replaced by a spare one; replace the board.",
    CONTACT_SUPPORT,
    event=False,
)
REMAP_PENDING = Fault(
    "RowRemapPending",
    "A faulty memory row is replaced at the next reset of the GPU.",
    COMPONENT_RESET,
    event=False,
)
RETIREMENT_PENDING = Fault(
    "PageRetirementPending",
    "A faulty memory page stays in use until the next reset of the GPU.",
    COMPONENT_RESET,
    event=False,
)
REPAIR_PENDING = Fault(
    "RepairPending",
    "A repair is completed by the next reset of the GPU.",
    COMPONENT_RESET,
    event=False,
)


@dataclass(frozen=True, slots=True)
class Memory:
    """``None`` where the board does not have it. The last four are read rarely."""

    uncorrected: int | None = None
    corrected: int | None = None
    rows: Rows | None = None
    sram: bool | None = None
    spareless: int | None = None
    retiring: bool | None = None
    repairs: tuple[str, ...] | None = None


def read(nvml: Nvml, gpu: Handle, rare: bool) -> Memory | None:
    found = Memory(
        uncorrected=supported(lambda: gauges.ecc_uncorrected(nvml, gpu)),
        corrected=supported(lambda: gauges.ecc_corrected(nvml, gpu)),
        rows=supported(lambda: gauges.remapped_rows(nvml, gpu)),
    )
    if rare:
        found = replace(
            found,
            sram=supported(lambda: gauges.sram_exceeded(nvml, gpu)),
            spareless=supported(lambda: gauges.banks_without_spares(nvml, gpu)),
            retiring=supported(lambda: gauges.retirement_pending(nvml, gpu)),
            repairs=supported(lambda: gauges.repairs_pending(nvml, gpu)),
        )
    return found if found != Memory() else None


def judge(memo: Memory | None, now: Memory, _at: float, o: NvmlOptions) -> tuple[Finding, Memory]:
    before = memo or Memory()
    changed = {n: v for n in Memory.__slots__ if (v := getattr(now, n)) is not None}
    last = replace(before, **changed)
    suspicions = [Suspicion(f) for f in _faults(before, now, last)]
    warnings = []
    pending = []
    if last.rows and last.rows.pending:
        pending.append(REMAP_PENDING)
    if last.repairs:
        text = f"A repair of {' and '.join(last.repairs)} is completed by the next reset."
        pending.append(replace(REPAIR_PENDING, text=text))
    for fault in pending:
        if o.row_remap_pending == "fault":
            suspicions.append(Suspicion(fault))
        else:
            warnings.append(Warned(fault.reason, f"{fault.reason}: {fault.text}"))
    if last.spareless:
        warnings.append(Warned("SpareRowsGone", _spareless(last.spareless)))
    if last.uncorrected:
        errors = f"{last.uncorrected} uncorrectable memory errors since the last reset."
        warnings.append(Warned(f"Ecc{last.uncorrected}", errors))
    return Finding(_text(last), tuple(suspicions), tuple(warnings)), last


def _faults(before: Memory, now: Memory, last: Memory) -> list[Fault]:
    found = []
    grown = (now.uncorrected or 0) - (before.uncorrected or 0)
    if now.uncorrected and before.uncorrected is not None and grown > 0:
        text = f"{grown} memory errors could not be corrected ({now.uncorrected} since reset)."
        found.append(replace(UNCORRECTABLE, text=text))
    if last.rows and last.rows.failure:
        found.append(REMAP_FAILED)
    if last.sram:
        found.append(SRAM)
    if last.retiring:
        found.append(RETIREMENT_PENDING)
    return found


def _spareless(banks: int) -> str:
    return f"{banks} memory banks have no spare rows left; their next fault cannot be repaired."


def _text(last: Memory) -> str:
    watched = {
        "ECC errors": last.uncorrected,
        "row remapping": last.rows,
        "SRAM threshold": last.sram,
        "retired pages": last.retiring,
        "repairs": last.repairs,
    }
    return f"Watched: {', '.join(n for n, value in watched.items() if value is not None)}."


def reset_seen(before: Memory | None, now: Memory | None) -> str:
    """How two readings prove that the GPU was reset between them, or an empty text."""
    if before is None or now is None:
        return ""
    for name in ("uncorrected", "corrected"):
        old, new = getattr(before, name), getattr(now, name)
        if old is not None and new is not None and new < old:
            return f"the GPU was reset (volatile {name} ECC errors fell from {old} to {new})"
    if before.rows and now.rows and before.rows.pending and not now.rows.pending:
        return "the GPU was reset (the pending row remap was completed)"
    if before.retiring and now.retiring is False:
        return "the GPU was reset (the pending page retirement was completed)"
    return ""


AREA = Area(
    type="MemoryHealthy",
    faults=(UNCORRECTABLE, SRAM, REMAP_FAILED, REMAP_PENDING, RETIREMENT_PENDING, REPAIR_PENDING),
    read=read,
    judge=judge,
)
