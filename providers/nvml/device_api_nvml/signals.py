"""A condition that follows from readings: findings, and what stays of them. Pure.

A rule turns a reading into a :class:`Finding`. A :class:`Signal` remembers: suspicions have to
last before they are faults, faults stay until there is evidence, warnings are shown while True.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from device_api_core.resources import Condition, ConditionStatus
from device_api_nvml.healing import Terms, Trial
from device_api_nvml.health import AWAITED, CLEARED, Doubt, Fault
from device_api_nvml.library import Handle, Nvml
from device_api_nvml.options import NvmlOptions

_FAILURES_BEFORE_DOUBT = 2


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A bad reading: a fault once it was seen in every look for ``seconds``."""

    fault: Fault
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning. ``key`` says whether two are the same; its text may hold a reading."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule makes of one reading. ``text`` is shown while all is well and must not change
    with every look: each change of it would be an event for every watcher."""

    text: str
    suspicions: tuple[Suspicion, ...] = ()
    warnings: tuple[Warned, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """One condition type: how it is read and judged, and the faults it can have.

    ``read`` returns ``None`` where the board has no such signal. ``judge`` gets what it last
    returned as its memory, the reading, the time and the options."""

    type: str
    faults: tuple[Fault, ...]
    read: Callable[[Nvml, Handle, bool], Any]
    judge: Callable[[Any, Any, float, NvmlOptions], tuple[Finding, Any]]
    rare: bool = False
    resume: Callable[[str], Any] = lambda _message: None
    """Its memory after a restart, from the message of a fault that was said before."""

    def fault(self, condition: Condition) -> Fault:
        """A fault that was said before a restart."""
        known = {fault.reason: fault for fault in self.faults}
        said = Fault.resumed(condition, "")
        names = [known[name] for name in (said.reason, *said.also) if name in known]
        event = any(f.event for f in names) or said.reason not in known
        action = known[said.reason].action if said.reason in known else ""
        return replace(said, action=action, event=event)


@dataclass(frozen=True, slots=True)
class Signal:
    """What is known of one condition. It is said once ``offered``: once the board has shown that
    it has the signal, now or before a restart."""

    type: str
    offered: bool = False
    text: str = ""
    fault: Fault | None = None
    doubt: Doubt | None = None
    warnings: tuple[Warned, ...] = ()
    suspected: tuple[tuple[str, float], ...] = ()
    failures: int = 0
    trial: Trial = Trial()

    def resumed(self, area: Area, said: Condition, now: float, terms: Terms) -> Signal:
        """After a restart: a False that was said before is still a fault."""
        if said.status is not ConditionStatus.FALSE:
            return replace(self, offered=True)
        trial = self.trial.struck(now, terms)
        return replace(self, offered=True, fault=area.fault(said), trial=trial)

    def found(
        self, finding: Finding | None, now: float, recovery: int | None, terms: Terms
    ) -> Signal:
        """A look read it; ``None``: the board or the driver does not offer it."""
        if finding is None:
            text = "The driver does not offer this signal any more."
            gone = replace(self, text=text, doubt=None, warnings=(), suspected=())
            return replace(gone, trial=self.trial.failed(), failures=0)
        since = dict(self.suspected)
        suspected = tuple(
            (s.fault.reason, since.get(s.fault.reason, now)) for s in finding.suspicions
        )
        held = tuple(
            s
            for s, (_, began) in zip(finding.suspicions, suspected, strict=True)
            if now - began >= s.seconds
        )
        waiting = tuple(
            Warned(s.fault.reason, s.fault.text) for s in finding.suspicions if s not in held
        )
        seen = replace(
            self,
            offered=True,
            text=finding.text,
            doubt=None,
            failures=0,
            suspected=suspected,
            warnings=self._same_or((*waiting, *finding.warnings)),
        )
        if held:
            return seen._struck((s.fault for s in held), now, terms)
        if seen.fault is None:
            return seen
        if finding.suspicions:
            return replace(seen, trial=self.trial.failed())
        counts = None if not seen.fault.event else recovery
        return replace(seen, trial=self.trial.passed(now, counts))

    def _same_or(self, warnings: tuple[Warned, ...]) -> tuple[Warned, ...]:
        """The old texts while the same warnings stand."""
        old = {w.key: w for w in self.warnings}
        return tuple(old.get(w.key, w) for w in warnings)

    def _struck(self, faults: Iterable[Fault], now: float, terms: Terms) -> Signal:
        held = self.fault
        for fault in faults:
            held = fault if held is None else held.merged(fault)
        return replace(self, fault=held, trial=self.trial.struck(now, terms))

    def unread(self, text: str) -> Signal:
        """Reading it failed. Twice in a row, it is not known how it is."""
        failures = self.failures + 1
        doubt = Doubt("ReadingFailed", text) if failures >= _FAILURES_BEFORE_DOUBT else self.doubt
        return replace(self, failures=failures, doubt=doubt, trial=self.trial.failed())

    def failed(self) -> Signal:
        """A look that did not even come to it."""
        return replace(self, suspected=(), trial=self.trial.failed())

    def evidence(self, now: float) -> str:
        """Why its fault is over, or an empty text."""
        if self.fault is None:
            return ""
        return self.trial.evidence(now, level=not self.fault.event)

    def healed(self, now: float) -> Signal:
        """Its fault is over by evidence."""
        return replace(self, fault=None, trial=self.trial.ended(now))

    def lifted(self) -> Signal:
        """An operator declares the fault's cause gone. The next look decides."""
        if self.fault is None:
            return self
        return replace(self, fault=None, doubt=CLEARED, suspected=(), trial=Trial())

    def condition(self, doubt: Doubt | None) -> Condition | None:
        """What there is to say; ``None``: nothing yet. ``doubt`` is that of the GPU itself."""
        if self.fault is not None:
            reason, message = self.fault.reason, self.fault.message
            return Condition(self.type, ConditionStatus.FALSE, reason, message)
        doubt = doubt or self.doubt
        if not self.offered or doubt == AWAITED or (doubt is None and not self.text):
            return None
        if doubt is not None:
            return Condition(self.type, ConditionStatus.UNKNOWN, doubt.reason, doubt.text)
        text = " ".join([self.text, *(f"Warning: {w.text}" for w in self.warnings)])
        return Condition(self.type, ConditionStatus.TRUE, "Good", text)
