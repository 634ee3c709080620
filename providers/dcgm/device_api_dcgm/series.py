"""The series of dcgm-exporter that say something about health: their names, and what is no value.

The exporter prints the name that its counters file uses. DCGM 4.6 renamed many fields and keeps
the old spelling as an alias, so both occur in the field; here each has one name, that of 4.6.
"""

from __future__ import annotations

import math

_DEV = "DCGM_FI_DEV_"

HEALTH = "DCGM_EXP_GPU_HEALTH_STATUS"
XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"
CLOCK_EVENTS = "DCGM_EXP_CLOCK_EVENTS_COUNT"
XID = f"{_DEV}XID_ERROR"
RECOVERY = f"{_DEV}GPU_RECOVERY_ACTION"
DBE = f"{_DEV}ECC_DBE_VOL_TOTAL"
SBE = f"{_DEV}ECC_SBE_VOL_TOTAL"
REMAP_FAILED = f"{_DEV}ROW_REMAP_FAILED"
REMAP_PENDING = f"{_DEV}ROW_REMAP_PENDING"
RETIRED_PENDING = f"{_DEV}PAGE_RETIRED_PENDING"
TEMPERATURE = f"{_DEV}GPU_TEMP_CELSIUS"
SLOWDOWN = f"{_DEV}GPU_TEMP_SLOWDOWN_CELSIUS"
MARGIN = f"{_DEV}GPU_TEMP_MARGIN_CELSIUS"
THERMAL_VIOLATION = f"{_DEV}THERMAL_VIOLATION"
POWER_VIOLATION = f"{_DEV}POWER_VIOLATION"
NVLINK_ERRORS = tuple(
    f"{_DEV}NVLINK_{kind}_ERROR_TOTAL" for kind in ("CRC_FLIT", "CRC_DATA", "REPLAY", "RECOVERY")
)

VOLATILE = (DBE, SBE)
"""Count from 0 again when the GPU is reset, and only then."""

EXPECTED = (HEALTH, XID_COUNT, CLOCK_EVENTS, RECOVERY, XID, DBE, SBE, REMAP_FAILED, REMAP_PENDING)
"""What the packaged counters file makes the exporter print and every verdict here rests on."""

BEARING = frozenset({HEALTH, XID_COUNT, XID, RECOVERY, DBE, REMAP_FAILED})
"""Without a single one of these nothing can be said about a GPU's health."""

_CANONICAL = {
    *EXPECTED,
    *NVLINK_ERRORS,
    RETIRED_PENDING,
    TEMPERATURE,
    SLOWDOWN,
    MARGIN,
    THERMAL_VIOLATION,
    POWER_VIOLATION,
}

_BEFORE_4_6 = {
    "XID_ERRORS": XID,
    "GET_GPU_RECOVERY_ACTION": RECOVERY,
    "ROW_REMAP_FAILURE": REMAP_FAILED,
    "RETIRED_PENDING": RETIRED_PENDING,
    "GPU_TEMP": TEMPERATURE,
    "SLOWDOWN_TEMP": SLOWDOWN,
    "GPU_TEMP_LIMIT": MARGIN,
    # Documented for CRC_FLIT; the others by analogy.
    **{
        name.removeprefix(_DEV).replace("_ERROR_TOTAL", "_ERROR_COUNT_TOTAL"): name
        for name in NVLINK_ERRORS
    },
}

ALIASES = {f"{_DEV}{old}": new for old, new in _BEFORE_4_6.items()}
"""Names before DCGM 4.6, and the names of today."""

_NAMES = {**{name: name for name in _CANONICAL}, **ALIASES}


def canonical(name: str) -> str:
    """The one name of a series that matters here, ``""`` for any other. A ``_total`` that was
    appended on the way does not matter."""
    return _NAMES.get(name) or _NAMES.get(name.removesuffix("_total"), "")


_INT32_BLANKS = frozenset(float(0x7FFFFFF0 + n) for n in range(4))
_FP64_BLANK = 140737488355328.0
_INT64_BLANKS_FROM = 9.2e18  # as floats the int64 blanks are one number, 9.223372036854776e18


def is_blank(value: float) -> bool:
    """Whether the number is one of DCGM's blanks (no value, not found, not supported, no
    permission), which older exporters print, or no finite number at all."""
    return (
        not math.isfinite(value)
        or value in _INT32_BLANKS
        or value >= _INT64_BLANKS_FROM
        or _FP64_BLANK <= value <= _FP64_BLANK + 3
    )
