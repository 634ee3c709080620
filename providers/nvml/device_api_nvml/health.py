"""From signals to NVMLReady. Pure: every step returns a new :class:`Health`.

Three things are kept apart. A *fault* is False and stays: nothing that happens by itself removes
it. A *doubt* is Unknown and goes when the GPU answers. A *notice* is a warning inside True.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from device_api_core.resources import Condition, ConditionStatus
from device_api_nvml.recovery import (
    COMPONENT_RESET,
    CONTACT_SUPPORT,
    NOTHING_TO_DO,
    RESTART_BM,
    recovery,
    strength,
)
from device_api_nvml.xid import Effect, Xid

NVML_READY = "NVMLReady"

_MAX_ALSO = 8
_MAX_NOTICES = 4
_MAX_TEXT = 1_000
_ALSO = " Also seen: "
_BACK = " It answers again; an operator has to clear the fault."
_XID_REASON = re.compile(r"Xid(\d+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the GPU is not ready. ``also`` names what came with it, in order."""

    reason: str
    text: str
    action: str
    also: tuple[str, ...] = ()

    @classmethod
    def of(cls, xid: Xid, where: str = "") -> Fault:
        """A fatal XID; ``where`` names the MIG instance it concerns."""
        return cls(xid.reason, xid.text + where, xid.action)

    @property
    def message(self) -> str:
        return self.text + (f"{_ALSO}{', '.join(self.also)}." if self.also else "")

    def joined_by(self, label: str) -> Fault:
        """The same fault with one more thing seen; the list is bounded and has each once."""
        if label in {self.reason, *self.also} or len(self.also) > _MAX_ALSO:
            return self
        return replace(self, also=(*self.also, label if len(self.also) < _MAX_ALSO else "more"))


LOST = Fault("GpuLost", "The driver cannot reach the GPU any more.", RESTART_BM)
NOT_FOUND = Fault("GpuNotFound", "The driver does not list the GPU any more.", RESTART_BM)
RESET_REQUIRED = Fault("ResetRequired", "The driver refuses it until it is reset.", COMPONENT_RESET)
_ABSENCES = {LOST.reason, NOT_FOUND.reason}


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why it is not known how the GPU is."""

    reason: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text[:_MAX_TEXT])


AWAITED = Doubt("Awaited", "Not looked at yet.")
"""The provider has just begun to look: nothing is said, what was said before stays."""
CLEARED = Doubt("Cleared", "An operator cleared the fault; the GPU is being looked at.")


def unresponsive(what: str, seconds: float) -> Doubt:
    """A vendor call that has not returned."""
    return Doubt("NvmlUnresponsive", f"{what} has not returned for more than {seconds:g} s.")


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning, shown until ``until`` (monotonic seconds)."""

    text: str
    until: float


@dataclass(frozen=True, slots=True)
class Health:
    """All that is known about one GPU. ``probe`` doubts that it answers, ``watch`` that its XIDs
    would be seen. ``unwatched`` says why there are no XIDs to be seen, which is no doubt."""

    fault: Fault | None = None
    probe: Doubt | None = AWAITED
    watch: Doubt | None = AWAITED
    unwatched: str = ""
    notices: tuple[Notice, ...] = ()

    @classmethod
    def resumed(cls, known: Condition | None, builtin: dict[int, Xid]) -> Health:
        """After a restart: a False that was said before is still a fault."""
        if known is None or known.status is not ConditionStatus.FALSE:
            return cls()
        text, _, also = known.message.removesuffix(_BACK).partition(_ALSO)
        labels = tuple(also.removesuffix(".").split(", ")) if also else ()
        return cls(Fault(known.reason, text, _action_of(known.reason, builtin), labels))

    def struck(self, fault: Fault) -> Health:
        """A fault is added. The first one keeps the reason unless the new one's action is
        stronger; then it heads the message and the old one is among what was also seen."""
        held = self.fault
        if held is None:
            return replace(self, fault=fault)
        if strength(fault.action) > strength(held.action) and fault.reason != held.reason:
            seen = fault
            for label in (held.reason, *held.also):
                seen = seen.joined_by(label)
            return replace(self, fault=seen)
        return replace(self, fault=held.joined_by(fault.reason))

    def hit(self, xid: Xid, until: float, where: str = "") -> Health:
        """An XID event. ``until`` is when its notice ends, should it be informational."""
        if xid.effect is Effect.IGNORE:
            return self
        if xid.effect is Effect.FATAL:
            return self.struck(Fault.of(xid, where))
        if self.fault is not None:
            return replace(self, fault=self.fault.joined_by(xid.reason))
        notice = Notice(xid.text + where, until)
        others = tuple(n for n in self.notices if n.text != notice.text)
        return replace(self, notices=(*others, notice)[-_MAX_NOTICES:])

    def advised(self, value: int | None) -> Health:
        """The driver's recovery action. Any but "none" is a fault; one that is held already keeps
        its reason and gets the action, if stronger. ``None``: the driver does not say."""
        if value is None or value == NOTHING_TO_DO:
            return self
        wish, action = recovery(value)
        text = f"The driver asks for {wish} (recovery action {value})."
        fault = Fault("RecoveryActionRequired", text, action)
        if self.fault is None:
            return replace(self, fault=fault)
        held = self.fault.joined_by(fault.reason)
        return replace(self, fault=replace(held, action=max(held.action, action, key=strength)))

    def lifted(self) -> Health:
        """An operator declares the fault's cause gone. What is observed next decides."""
        if self.fault is None:
            return self
        return replace(self, fault=None, probe=self.probe or CLEARED, notices=())

    def current(self, now: float) -> Health:
        """Without the notices whose time is over."""
        if all(n.until > now for n in self.notices):
            return self
        return replace(self, notices=tuple(n for n in self.notices if n.until > now))

    @property
    def pending(self) -> bool:
        """Nothing can be said yet."""
        return self.fault is None and AWAITED in (self.probe, self.watch) and not self.doubt

    @property
    def doubt(self) -> Doubt | None:
        """What makes it Unknown unless there is a fault."""
        return next((d for d in (self.probe, self.watch) if d not in (None, AWAITED)), None)

    @property
    def action(self) -> str:
        return self.fault.action if self.fault else ""

    @property
    def condition(self) -> Condition:
        """NVMLReady. Not to be asked while :attr:`pending`."""
        if self.fault is not None:
            message = self.fault.message
            # Answering again proves that the GPU is back, not that it is well.
            if self.fault.reason in _ABSENCES and self.probe is None:
                message += _BACK
            return Condition(NVML_READY, ConditionStatus.FALSE, self.fault.reason, message)
        if (doubt := self.doubt) is not None:
            return Condition(NVML_READY, ConditionStatus.UNKNOWN, doubt.reason, doubt.text)
        text = self.unwatched or "The GPU answers, and its XIDs are watched."
        text = " ".join([text, *(f"Warning: {n.text}" for n in self.notices)])
        return Condition(NVML_READY, ConditionStatus.TRUE, "Initialized", text)


def _action_of(reason: str, builtin: dict[int, Xid]) -> str:
    """The action that belongs to the reason of a fault from before a restart. The driver's own
    recommendation is asked again, so that it needs none here."""
    for fault in (LOST, NOT_FOUND, RESET_REQUIRED):
        if reason == fault.reason:
            return fault.action
    if (match := _XID_REASON.fullmatch(reason)) is None:
        return ""
    row = builtin.get(int(match[1]))
    return row.action if row and row.action else CONTACT_SUPPORT
