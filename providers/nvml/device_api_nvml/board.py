"""One GPU: all that is known about it, and what there is to say."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace

from device_api_core.actions import action_strength
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_nvml.healing import Terms, Trial
from device_api_nvml.health import AWAITED, NVML_READY, REPLACED, Doubt, Fault, Health
from device_api_nvml.library import Event, Handle
from device_api_nvml.recoveries import Recoveries
from device_api_nvml.recovery import NOTHING_TO_DO
from device_api_nvml.survey import Answer
from device_api_nvml.vitals import Vitals

_ABSENCES_BEFORE_RETURN = 2
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Board:
    """One GPU. ``index`` and ``handle`` are of the present driver session and ``None`` until the
    GPU was seen in it. An answer proves health only if its look began after ``fresh_after``."""

    name: str
    health: Health
    vitals: Vitals
    recoveries: Recoveries = field(repr=False)
    spec: GpuSpec | None = None
    place: str = ""
    """Its PCI address, also while it is missing."""
    index: int | None = None
    handle: Handle | None = None
    fresh_after: float = 0.0
    failures: int = 0
    absences: int = 0
    """Looks in a row that found it lost or missing."""
    trial: Trial = field(init=False)
    rare_due: float = 0.0
    told: dict[str, tuple[Condition, str]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.trial = Trial(heals=self.recoveries.of(self.name, NVML_READY))

    @property
    def answers(self) -> bool:
        """Whether the last look at it went well."""
        return (
            self.handle is not None and self.failures == 0 and self.health.probe in (None, AWAITED)
        )

    @property
    def retired(self) -> bool:
        """Whether another board has taken its place."""
        return self.health.fault is not None and self.health.fault.reason == REPLACED.reason

    def expect(self, doubt: Doubt = AWAITED) -> None:
        """Take nothing for granted that was learned before this moment."""
        self.fresh_after = time.monotonic()
        self.health = replace(self.health, probe=doubt)
        self.unproven()

    def unproven(self) -> None:
        """Whatever was on its way to be proven has to be proven from here on."""
        self.trial = self.trial.failed()
        self.vitals.failed()

    def strike(self, now: float, terms: Terms, health: Health) -> None:
        """A fault, which is in ``health``. Looks that began before it prove nothing."""
        self.health = health
        self.trial = self.trial.struck(now, terms)
        self.fresh_after = time.monotonic()

    def retire(self, now: float, terms: Terms, successor: str) -> None:
        """Another board is where it was."""
        text = f"{REPLACED.text} {successor} is at {self.place} now."
        fault, held = replace(REPLACED, text=text), self.health.fault
        fault = fault if held is None else fault.heading(held)
        self.strike(now, terms, replace(self.health, fault=fault, probe=Doubt(fault.reason, text)))
        self.vitals.failed()

    def is_rare_due(self, seconds: float) -> bool:
        """Whether to read now what is expensive. If so, it is due again after this time."""
        now = time.monotonic()
        if now < self.rare_due:
            return False
        self.rare_due = now + seconds
        return True

    def returned(self) -> str:
        """It answers. If it was gone before, that is a reset: what this is known by."""
        absences, self.absences = self.absences, 0
        if absences < _ABSENCES_BEFORE_RETURN:
            return ""
        return f"the GPU was reset (it was gone in {absences} looks and is back)"

    def was_reset(self, evidence: str) -> None:
        """Faults from before this moment may now be proven over."""
        _log.info("GPU was reset", extra={"gpu": self.name, "evidence": evidence})
        self.trial = self.trial.was_reset(evidence)
        self.vitals.was_reset(evidence)

    def recovered(self, type_: str, reason: str, evidence: str) -> None:
        """A fault is over."""
        extra = {"gpu": self.name, "reason": reason, "evidence": evidence}
        _log.info("%s recovered", type_, extra=extra)
        self.recoveries.add(self.name, type_)

    def prove(self, answer: Answer, now: float) -> str:
        """A good look at a faulty GPU. Returns why its fault is over, or nothing."""
        if self.health.watch is not None or not answer.complete:
            self.trial = self.trial.failed()
            return ""
        counts = answer.recovery
        # Where XIDs are not watched nobody knows that there was none: only a reset counts.
        if self.health.unwatched and counts == NOTHING_TO_DO:
            counts = None
        self.trial = self.trial.passed(now, counts)
        return self.trial.evidence(now)

    def conditions(self) -> list[Condition]:
        """All there is to say."""
        said = self.vitals.conditions(self.health.probe)
        if self.health.pending:  # good readings alone must not make it look ready
            return [c for c in said if c.status is ConditionStatus.FALSE]
        return [self.health.condition, *said]

    @property
    def faults(self) -> list[Fault]:
        return ([self.health.fault] if self.health.fault else []) + self.vitals.faults

    def action(self, conditions: list[Condition]) -> str | None:
        """The strongest action of its faults. ``None``: a fault from before a restart has one that
        only the daemon remembers."""
        best = max((fault.action for fault in self.faults), key=action_strength, default="")
        faulty = any(c.status is ConditionStatus.FALSE for c in conditions)
        return None if faulty and not best and not self.retired else best


def where(event: Event, spec: GpuSpec | None) -> str:
    """Whom of its MIG instances an event concerns, as the end of a sentence about it."""
    if event.gpu_instance is None:
        everywhere = spec is not None and spec.mig_mode == "enabled"
        return " It concerns all MIG instances." if everywhere else ""
    compute = "" if event.compute_instance is None else f", compute {event.compute_instance}"
    return f" In MIG instance {event.gpu_instance}{compute}."
