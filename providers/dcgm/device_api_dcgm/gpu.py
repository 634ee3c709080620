"""One GPU: what was seen of it, and the conditions that follow.

Faults are False and stay. A doubt is Unknown and goes with the next good reading. Whatever else was
read is True, with its warnings in the text. A series that once was there and is not any more is a
doubt: missing is not healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from device_api_core.actions import action_strength
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_dcgm.exposition import Reading
from device_api_dcgm.health import (
    ALL_SIGNAL,
    ROLL_UP,
    TYPES,
    WATCH,
    WATCHES,
    Fault,
    Judge,
    Notice,
    Verdict,
)
from device_api_dcgm.latches import ALSO, Latches, resume
from device_api_dcgm.series import BEARING, HEALTH
from device_api_dcgm.trends import Trends

_MAX_TEXT = 1_000


class Doubt(NamedTuple):
    """Why it is not known how the GPU is."""

    reason: str
    text: str


CLEARED = Doubt("Cleared", "An operator cleared it; the next scrape decides.")
NOT_REPORTED = Doubt("GpuNotReported", "dcgm-exporter does not report the GPU any more.")
NO_HEALTH = Doubt("NoHealthSeries", "dcgm-exporter reports nothing about the GPU's health.")


class Status(NamedTuple):
    """What there is to say about a GPU."""

    conditions: tuple[Condition, ...]
    action: str


class DcgmGpu:
    """State of one GPU from scrape to scrape. ``overruled`` is the code of the ALL watch that is
    known to be of the past."""

    def __init__(
        self, name: str, judge: Judge, known: Iterable[Condition] = (), overruled: str = ""
    ) -> None:
        known = tuple(known)
        options = judge.options
        self.name = name
        self.spec: GpuSpec | None = None
        self.overruled = overruled
        self._judge = judge
        self._patience = options.failed_scrapes
        self._latches = Latches(options.clean_seconds)
        self._latches.hold(resume(judge, known))
        self._trends = Trends(options.rate_seconds)
        self._counted: dict[int, float] = {}
        self._all_code = ""
        self._types = {c.type for c in known} | {ROLL_UP}
        self._notices: dict[str, list[Notice]] = {}
        self._missing: dict[tuple[str, str], int] = {}
        self._series: set[str] = set()
        self._absences = 0
        self._doubt: Doubt | None = None
        self._cleared: set[str] = set()
        self._observed = False

    def __repr__(self) -> str:
        said = {c.type: f"{c.status} {c.reason}" for c in self.status.conditions}
        return f"<DcgmGpu {self.name} {said}>"

    @property
    def absent(self) -> bool:
        """The last scrapes did not have it."""
        return self._absences > 0 or not self._observed

    @property
    def silent(self) -> bool:
        """Nothing was seen yet and nothing is in doubt: what was said before a restart stays."""
        return not self._observed and self._doubt is None

    def observe(self, reading: Reading, now: float) -> list[Fault]:
        """Take a scrape that has this GPU. Returns the faults that it ended."""
        moves = self._trends.add(reading.values, now)
        self._forget_overruled(reading)
        verdicts = self._judge.verdicts(reading, moves, self._counted, self.overruled)
        ended = self._latches.observe(reading, moves, verdicts, now)
        self.spec = reading.spec
        if any(fault.signal == ALL_SIGNAL for fault in ended):
            self._overrule()
            verdicts = self._judge.verdicts(reading, moves, self._counted, self.overruled)
        self._counted = dict(reading.xids) if reading.xids is not None else self._counted
        self._see(reading, verdicts)
        return ended

    def miss(self) -> None:
        """A good scrape did not have this GPU."""
        self._latches.doubt()
        self._absences += 1
        if self._absences >= self._patience:
            self._doubt = NOT_REPORTED

    def fail(self, doubt: Doubt | None) -> None:
        """A scrape failed; ``doubt`` if too many did."""
        self._latches.doubt()
        self._doubt = doubt or self._doubt

    def clear(self, type_: str) -> None:
        """An operator says that the cause is gone."""
        self._latches.drop(type_)
        if type_ in (ROLL_UP, WATCHES["ALL"]):
            self._overrule()
        concerned = TYPES if type_ == ROLL_UP else (type_, ROLL_UP)
        self._cleared |= set(concerned)
        self._missing = {
            key: count for key, count in self._missing.items() if key[1] not in concerned
        }

    @property
    def status(self) -> Status:
        """The conditions, and the strongest action of the faults among them."""
        faults = sorted(
            self._latches, key=lambda f: (-action_strength(f.action), TYPES.index(f.type))
        )
        types = self._types | {fault.type for fault in faults}
        conditions = [
            self._condition(type_, [fault for fault in faults if type_ in (ROLL_UP, fault.type)])
            for type_ in TYPES
            if type_ in types
        ]
        return Status(tuple(conditions), faults[0].action if faults else "")

    def _forget_overruled(self, reading: Reading) -> None:
        said = reading.watches.get("ALL")
        if said is None:
            return
        self._all_code = said.code if said.value > 0 else ""
        if self.overruled != self._all_code:
            self.overruled = ""

    def _overrule(self) -> None:
        self.overruled = self._all_code

    def _see(self, reading: Reading, verdicts: Sequence[Verdict]) -> None:
        if not self._observed:
            self._types = {ROLL_UP}  # of what was True once, only what is seen again is said again
        self._observed, self._absences, self._doubt = True, 0, None
        self._cleared = set()
        self._series = reading.series
        seen = {(verdict.signal, verdict.type) for verdict in verdicts}
        self._missing = {key: count + 1 for key, count in self._missing.items()}
        self._missing.update(dict.fromkeys(seen, 0))
        self._types |= {type_ for signal, type_ in seen if signal.startswith(WATCH)}
        self._types |= {fault.type for fault in self._latches}
        self._notices = {}
        for verdict in verdicts:
            self._notices.setdefault(verdict.type, []).extend(verdict.notices)

    def _condition(self, type_: str, faults: Sequence[Fault]) -> Condition:
        if faults:
            text = _texts(type_, faults)
            return Condition(type_, ConditionStatus.FALSE, faults[0].reason, text)
        if (doubt := self._doubt_of(type_)) is not None:
            return Condition(type_, ConditionStatus.UNKNOWN, doubt.reason, doubt.text[:_MAX_TEXT])
        if type_ == ROLL_UP:
            return self._good_roll_up()
        notices = self._notices.get(type_, [])
        text = _sentence("; ".join(n.text for n in notices) or "DCGM finds no fault")
        return Condition(
            type_, ConditionStatus.TRUE, notices[0].reason if notices else "Pass", text
        )

    def _doubt_of(self, type_: str) -> Doubt | None:
        if self._doubt is not None:
            return self._doubt
        if type_ in self._cleared:
            return CLEARED
        gone = sorted(
            signal
            for (signal, of), count in self._missing.items()
            if count >= self._patience and type_ in (ROLL_UP, of)
        )
        if gone:
            text = f"Not reported any more: {', '.join(gone)}."
            return Doubt("SeriesNotReported", text)
        return NO_HEALTH if type_ == ROLL_UP and not self._series & BEARING else None

    def _good_roll_up(self) -> Condition:
        reason, text = "Pass", "DCGM finds no fault"
        if HEALTH not in self._series:
            reason = "PartialSeries"
            text = (
                f"no fault in what dcgm-exporter reports, which is not DCGM's own health ({HEALTH})"
            )
        warnings = [n.text for type_ in TYPES for n in self._notices.get(type_, [])]
        if warnings:
            text += f"; warnings: {'; '.join(warnings)}"
        return Condition(ROLL_UP, ConditionStatus.TRUE, reason, _sentence(text))


def _texts(type_: str, faults: Sequence[Fault]) -> str:
    """The message of a False condition: its first fault, and the reasons of the others."""
    head = faults[0]
    text = _sentence(head.text)
    others = dict.fromkeys(fault.reason for fault in faults[1:] if fault.reason != head.reason)
    return (text if head.type == type_ else f"{head.type}: {text}") + (
        f"{ALSO}{', '.join(others)}."[:_MAX_TEXT] if others else ""
    )


def _sentence(text: str) -> str:
    # Codes come from outside: no control characters, no endless text.
    shown = "".join(c if c.isprintable() else "?" for c in text).rstrip(".")[:_MAX_TEXT]
    return f"{shown[:1].upper()}{shown[1:]}."
