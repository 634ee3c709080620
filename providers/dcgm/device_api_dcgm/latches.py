"""The faults of one GPU, and what ends each.

A fault of a *level* signal (a temperature, a watch) ends when that signal says for some time that
all is well. A *latched* fault (an XID, an uncorrectable ECC error) ends after a reset that was
seen, followed by the same time without anything new: an empty XID window or a last XID that became
another proves nothing. The ALL watch, which goes on failing until the hostengine restarts, is
overruled by the same evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from device_api_core.actions import CONTACT_SUPPORT
from device_api_core.resources import Condition, ConditionStatus
from device_api_dcgm import series
from device_api_dcgm.exposition import Reading
from device_api_dcgm.health import (
    ALL_SIGNAL,
    RECOVERY_SIGNAL,
    ROLL_UP,
    WATCH,
    WATCHES,
    Fault,
    Judge,
    Verdict,
    fault,
    recovering,
)
from device_api_dcgm.rules import RULES
from device_api_dcgm.tables import RECOVERIES
from device_api_dcgm.trends import Moves


@dataclass(slots=True)
class Held:
    """A fault, and how far its recovery has come. ``good_since`` is when its evidence began."""

    fault: Fault
    reset_seen: bool = False
    good_since: float | None = None


class Latches:
    """All faults of one GPU. ``clean_seconds`` is how long evidence has to hold."""

    def __init__(self, clean_seconds: float) -> None:
        self._clean_seconds = clean_seconds
        self._held: dict[tuple[str, str, str], Held] = {}
        self._recovering = False

    def __iter__(self) -> Iterator[Fault]:
        return (held.fault for held in self._held.values())

    def hold(self, faults: Iterable[Fault]) -> None:
        """Faults from before a restart."""
        for held in faults:
            self._held.setdefault(_key(held), Held(held))

    def drop(self, type_: str) -> None:
        """An operator says that the cause is gone. The roll-up's cause is any of them."""
        self._held = {
            key: held for key, held in self._held.items() if type_ not in (ROLL_UP, held.fault.type)
        }

    def doubt(self) -> None:
        """A scrape without this GPU: whatever was clean has to be so again from the beginning."""
        for held in self._held.values():
            held.good_since = None

    def observe(
        self, reading: Reading, moves: Moves, verdicts: Iterable[Verdict], now: float
    ) -> list[Fault]:
        """Take a scrape's verdicts. Returns the faults that it ended."""
        by_signal = {verdict.signal: verdict for verdict in verdicts}
        reset = self._reset_seen(reading, moves)
        for held in self._held.values():
            held.reset_seen = held.reset_seen or reset
        standing = {_key(f) for v in by_signal.values() for f in v.faults}
        for verdict in by_signal.values():
            for struck in verdict.faults:
                self._strike(struck)
        quiet = not recovering(reading)
        for key, held in self._held.items():
            good = _good(held, by_signal, standing=key in standing)
            if held.fault.latched:
                good = good and quiet
            if not good:
                held.good_since = None
            elif held.good_since is None:
                held.good_since = now
        return self._end(now)

    def _strike(self, struck: Fault) -> None:
        held = self._held.setdefault(_key(struck), Held(struck))
        if struck.event:  # it happened again, after whatever reset was seen
            held.reset_seen = False
            held.good_since = None

    def _reset_seen(self, reading: Reading, moves: Moves) -> bool:
        recovered = self._recovering and reading.worst(series.RECOVERY) == 0
        if (action := reading.worst(series.RECOVERY)) is not None:
            self._recovering = action != 0
        return recovered or moves.fell(*series.VOLATILE)

    def _end(self, now: float) -> list[Fault]:
        ended = {
            key: held.fault
            for key, held in self._held.items()
            if held.good_since is not None and now - held.good_since >= self._clean_seconds
        }
        for key in ended:
            del self._held[key]
        return list(ended.values())


def _key(of: Fault) -> tuple[str, str, str]:
    return of.type, of.signal, of.reason


def _good(held: Held, verdicts: Mapping[str, Verdict], *, standing: bool) -> bool:
    signal = held.fault.signal
    if held.fault.latched and not held.reset_seen:
        return False
    if standing and signal != ALL_SIGNAL:
        return False
    if not signal:  # nobody knows any more what said so: the reset has to do
        return True
    verdict = verdicts.get(signal)
    return verdict is not None and verdict.conclusive


ALSO = " Also: "
"""Between a condition's first fault and the others."""
_XID = re.compile(r"\bXid(\d{1,9})\b")


def resume(judge: Judge, known: Iterable[Condition]) -> Iterator[Fault]:
    """The faults behind the conditions that were False before a restart."""
    false = {c.type: c for c in known if c.status is ConditionStatus.FALSE}
    roll_up = false.pop(ROLL_UP, None)
    for condition in false.values():
        text, _, others = condition.message.partition(ALSO)
        yield _resumed(judge, condition.type, condition.reason, text)
        for reason in filter(None, others.removesuffix(".").split(", ")):
            yield _resumed(judge, condition.type, reason, f"{reason} was seen before a restart")
    if roll_up is None:
        return
    said = f"{roll_up.reason} {roll_up.message}"
    faults = [judge.xid_fault(judge.xids[int(xid)]) for xid in dict.fromkeys(_XID.findall(said))]
    yield from filter(None, faults)
    if not any(faults) and not any(c.reason == roll_up.reason for c in false.values()):
        text = roll_up.message.partition(ALSO)[0]
        yield _resumed(judge, ROLL_UP, roll_up.reason, text)


def _resumed(judge: Judge, type_: str, reason: str, text: str) -> Fault:
    watch = next((name for name, of in WATCHES.items() if of == type_), "")
    if reason in RULES and RULES[reason].watch == watch:
        return fault(reason, text)
    wanted = next((r for r in RECOVERIES.values() if r.reason == reason), None)
    if wanted is not None:
        return Fault(type_, RECOVERY_SIGNAL, reason, text, wanted.action)
    if watch:
        code = judge.codes.by_reason(reason)
        latched = code.latches or watch == "ALL"
        return Fault(type_, f"{WATCH}{watch}", reason, text, code.action, latched)
    return Fault(type_, "", reason, text, CONTACT_SUPPORT, latched=True)
