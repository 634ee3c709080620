"""From series to verdicts. Pure: what one scrape says about one GPU, and what that means.

A *signal* is one way to learn about a fault, for example one health watch or one counter. Each
scrape gives at most one verdict per signal. What is remembered from scrape to scrape is elsewhere:
in :mod:`~device_api_dcgm.trends` and :mod:`~device_api_dcgm.latches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_api_dcgm import series
from device_api_dcgm.exposition import Reading, Watch
from device_api_dcgm.options import FAULT, DcgmOptions
from device_api_dcgm.rules import RULES
from device_api_dcgm.tables import (
    PREFIX,
    Code,
    Codes,
    Effect,
    Xid,
    Xids,
    recovery,
)
from device_api_dcgm.trends import Moves

ROLL_UP = "DCGMHealth"
WATCHES = {
    watch: f"DCGM{watch.capitalize()}Healthy"
    for watch in (
        *("PCIE", "NVLINK", "PMU", "MCU", "MEM", "SM"),
        *("INFOROM", "THERMAL", "POWER", "DRIVER", "ALL"),
    )
}
"""DCGM's health watches and their condition types."""
TYPES = (ROLL_UP, *WATCHES.values())

WATCH = "watch:"
"""Signals of health watches start so."""
XID_SIGNAL, RECOVERY_SIGNAL = "xid", "recovery"
ALL_SIGNAL = f"{WATCH}ALL"

_WARN, _FAIL = 10, 20
_NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a condition is False. ``latched``: its signal falling silent, or even saying that all is
    well, does not end it; only a reset that was seen does. ``event``: it is said once, when it
    happens, rather than for as long as it lasts."""

    type: str
    signal: str
    reason: str
    text: str
    action: str
    latched: bool = False
    event: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning inside True."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one signal says. Not ``conclusive``: the series is there, but it is too early to tell
    from it."""

    signal: str
    type: str
    faults: tuple[Fault, ...] = ()
    notices: tuple[Notice, ...] = ()
    conclusive: bool = True


class Judge:
    """The rules, with an operator's settings. Remembers nothing."""

    def __init__(self, options: DcgmOptions) -> None:
        """
        Raises:
            InvalidOption: the XID lists contradict one another.
        """
        self.options = options
        self.codes = Codes()
        self.xids = Xids(options.ignored_xids, options.informational_xids, options.fatal_xids)

    def verdicts(
        self, reading: Reading, moves: Moves, counted: Mapping[int, float], overruled: str
    ) -> list[Verdict]:
        """All verdicts of a scrape. ``counted`` is the window of XIDs at the scrape before,
        ``overruled`` the code of the ALL watch that is known to be of the past."""
        judged = [
            self._xid(reading, moves, counted, overruled),
            _ecc(reading, moves),
            _remap_failed(reading),
            self._pending(reading),
            _recovery(reading),
            self._thermal(reading),
            _power_brake(reading),
            self._thermal_violation(reading, moves),
            self._power_violation(reading, moves),
            self._nvlink(reading, moves),
        ]
        watches = (self._watch(name, said, overruled) for name, said in reading.watches.items())
        return [*watches, *filter(None, judged)]

    def _watch(self, name: str, said: Watch, overruled: str) -> Verdict:
        # A watch that this version does not know must not be lost: it counts for the roll-up.
        type_, signal = WATCHES.get(name, ROLL_UP), f"{WATCH}{name}"
        code = self.codes[said.code]
        if said.value < _WARN:
            return Verdict(signal, type_)
        if signal == ALL_SIGNAL and said.code == overruled:
            text = f"DCGM never forgets it: {code.name} is from before the recovery"
            return Verdict(signal, type_, notices=(Notice("Overruled", text),))
        if said.value < _FAIL:
            text = f"the {name} watch warns: {code.name}"
            return Verdict(signal, type_, notices=(Notice(code.reason, text),))
        return Verdict(signal, type_, (_watch_fault(name, type_, code),))

    def _xid(
        self, reading: Reading, moves: Moves, counted: Mapping[int, float], overruled: str
    ) -> Verdict | None:
        gauges = {int(value) for value in reading.all(series.XID).values()}
        if reading.xids is None and not gauges:
            return None
        new = _new_xids(reading, moves, counted, overruled)
        # The last XID stays until another one comes: it is of interest only without a window.
        shown = gauges if reading.xids is None else set(reading.xids)
        rows = [self.xids[xid] for xid in sorted(shown | new) if xid > 0]
        faults = (self.xid_fault(xid) for xid in rows if xid.code in new)
        notices = (Notice(x.reason, x.notice) for x in rows if x.effect is not Effect.IGNORE)
        return Verdict(XID_SIGNAL, ROLL_UP, tuple(filter(None, faults)), tuple(notices))

    def xid_fault(self, xid: Xid) -> Fault | None:
        """The fault that an XID is, if it is one."""
        if xid.effect is not Effect.FATAL:
            return None
        return Fault(
            ROLL_UP, XID_SIGNAL, xid.reason, xid.text, xid.action, latched=True, event=True
        )

    def _pending(self, reading: Reading) -> Verdict | None:
        counts = [reading.worst(name) for name in (series.REMAP_PENDING, series.RETIRED_PENDING)]
        if counts == [None, None]:
            return None
        reason, text = "RowRemapPending", "a row remap or page retirement waits for a reset"
        if not any(counts):
            return _fine(reason)
        if self.options.row_remap_pending == FAULT:
            return _bad(reason, text)
        return _fine(reason, Notice(reason, text))

    def _thermal(self, reading: Reading) -> Verdict | None:
        now, slowdown = reading.worst(series.TEMPERATURE), reading.worst(series.SLOWDOWN)
        margins, events = reading.all(series.MARGIN).values(), reading.clock_events
        if not margins and events is None and (now is None or slowdown is None):
            return None
        limit = self.options.slowdown_margin_celsius
        if (events or {}).get("hw_thermal"):
            text = "the hardware slowed the GPU down for its temperature"
        elif now is not None and slowdown is not None and now >= slowdown > 0:
            text = f"the GPU has reached {slowdown:g} C, where its hardware slows down"
        elif any(margin < limit for margin in margins):
            text = f"the GPU is beyond its temperature limit by more than {abs(limit):g} C"
        else:
            return _fine("HwThermalSlowdown")
        return _bad("HwThermalSlowdown", text)

    def _thermal_violation(self, reading: Reading, moves: Moves) -> Verdict | None:
        if not reading.all(series.THERMAL_VIOLATION):
            return None
        rate = moves.rate(series.THERMAL_VIOLATION)
        if self._violates(rate):
            share = f"{self.options.violation_percent:g} %"
            text = f"the GPU is slowed down for its temperature more than {share} of the time"
            return _bad("ThermalViolation", text)
        return _fine("ThermalViolation", conclusive=rate is not None)

    def _power_violation(self, reading: Reading, moves: Moves) -> Verdict | None:
        # A GPU that works hard runs into its power cap: worth a word, no fault. DCGM warns of it
        # too, and NVSentinel wants nothing done.
        signal, type_ = "power_violation", WATCHES["POWER"]
        if not reading.all(series.POWER_VIOLATION):
            return None
        if not self._violates(moves.rate(series.POWER_VIOLATION)):
            return Verdict(signal, type_)
        share = f"{self.options.violation_percent:g} %"
        text = f"the GPU is slowed down for its power more than {share} of the time"
        return Verdict(signal, type_, notices=(Notice("PowerViolation", text),))

    def _violates(self, rate: float | None) -> bool:
        return rate is not None and rate / _NANOSECONDS * 100 > self.options.violation_percent

    def _nvlink(self, reading: Reading, moves: Moves) -> Verdict | None:
        if not any(reading.all(name) for name in series.NVLINK_ERRORS):
            return None
        rate, limit = moves.rate(*series.NVLINK_ERRORS), self.options.nvlink_errors_per_second
        if rate is not None and rate > limit:
            text = f"more than {limit:g} NVLink errors of one kind per second"
            return _bad("NvlinkErrors", text)
        return _fine("NvlinkErrors", conclusive=rate is not None)


def recovering(reading: Reading) -> bool:
    """Whether the driver recommends a recovery action."""
    return bool(reading.worst(series.RECOVERY))


def _new_xids(
    reading: Reading, moves: Moves, counted: Mapping[int, float], overruled: str
) -> set[int]:
    """The XIDs since the scrape before: more of them in the window, or another last one."""
    counts = reading.xids or {}
    grown = {xid for xid, count in counts.items() if count > counted.get(xid, 0)}
    changed = {**moves.rises, **moves.falls}
    if _in_trouble(reading, overruled):
        # The last XID may be days old at first sight, unless something else is wrong as well.
        changed.update(moves.firsts)
    return grown | {int(value) for key, value in changed.items() if key.series == series.XID}


def _in_trouble(reading: Reading, overruled: str) -> bool:
    said = reading.watches.get("ALL", Watch(0, ""))
    return recovering(reading) or (said.value >= _FAIL and said.code != overruled)


def _watch_fault(name: str, type_: str, code: Code) -> Fault:
    signal = f"{WATCH}{name}"
    # Whatever the ALL watch says is an XID's, and it says so until the hostengine restarts.
    latched = code.latches or signal == ALL_SIGNAL
    text = f"the {name} watch fails: {PREFIX}{code.name}"
    return Fault(type_, signal, code.reason, text, code.action, latched)


def fault(reason: str, text: str) -> Fault:
    """The fault of the rule with this reason."""
    rule = RULES[reason]
    type_ = WATCHES[rule.watch]
    return Fault(type_, rule.signal, reason, text, rule.action, rule.latched, event=rule.latched)


def _bad(reason: str, text: str) -> Verdict:
    found = fault(reason, text)
    return Verdict(found.signal, found.type, (found,))


def _fine(reason: str, *notices: Notice, conclusive: bool = True) -> Verdict:
    rule = RULES[reason]
    return Verdict(rule.signal, WATCHES[rule.watch], (), notices, conclusive)


def _ecc(reading: Reading, moves: Moves) -> Verdict | None:
    count = reading.worst(series.DBE)
    if count is None:
        return None
    reason = "UncorrectableEcc"
    if moves.rose(series.DBE):
        return _bad(reason, "an uncorrectable ECC error happened")
    if not count:
        return _fine(reason)
    text = "there were uncorrectable ECC errors since the last reset"
    return _fine(reason, Notice("UncorrectableEccBefore", text))


def _remap_failed(reading: Reading) -> Verdict | None:
    failed = reading.worst(series.REMAP_FAILED)
    if failed is None:
        return None
    reason = "RowRemapFailure"
    return _bad(reason, "a row of the memory could not be remapped") if failed else _fine(reason)


def _recovery(reading: Reading) -> Verdict | None:
    value, type_ = reading.worst(series.RECOVERY), WATCHES["DRIVER"]
    if value is None:
        return None
    if not value:
        return Verdict(RECOVERY_SIGNAL, type_)
    asked = recovery(int(value))
    text = f"the driver recommends {asked.wish}"
    wanted = Fault(type_, RECOVERY_SIGNAL, asked.reason, text, asked.action)
    return Verdict(RECOVERY_SIGNAL, type_, (wanted,))


def _power_brake(reading: Reading) -> Verdict | None:
    if reading.clock_events is None:
        return None
    reason = "HwPowerBrake"
    if not reading.clock_events.get("hw_power_brake"):
        return _fine(reason)
    return _bad(reason, "the hardware slowed the GPU down for its power supply")
