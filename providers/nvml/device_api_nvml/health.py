"""From signals to NVMLReady. Pure: every step returns a new :class:`Health`.

Three things are kept apart. A *fault* is False and stays until there is evidence of recovery. A
*doubt* is Unknown and goes when the GPU answers. A *notice* is a warning inside True.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf

from device_api_core.actions import (
    COMPONENT_RESET,
    CONTACT_SUPPORT,
    RESTART_BM,
    action_strength,
)
from device_api_core.resources import Condition, ConditionStatus
from device_api_nvml.xid import Effect, Xid

NVML_READY = "NVMLReady"

_MAX_ALSO = 8
_MAX_NOTICES = 4
_MAX_TEXT = 1_000
_ALSO = " Also seen: "
_BACK = " It answers again and has to prove itself."
_XID_REASON = re.compile(r"Xid(\d+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the GPU is not ready. ``also`` names what came with it, in order."""

    reason: str
    text: str
    action: str
    also: tuple[str, ...] = ()
    event: bool = True
    """It happened, so that no good reading ends it; a reading that was bad ends when it is good."""

    @classmethod
    def resumed(cls, said: Condition, action: str) -> Fault:
        """From a condition that was False before a restart."""
        text, _, also = said.message.partition(_ALSO)
        labels = tuple(also.removesuffix(".").split(", ")) if also else ()
        return cls(said.reason, text, action, labels)

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

    def merged(self, other: Fault) -> Fault:
        """Both. The first one keeps the reason unless the other's action is stronger; then that
        heads the message and the old one is among what was also seen."""
        if action_strength(other.action) <= action_strength(self.action):
            return replace(self.joined_by(other.reason), event=self.event or other.event)
        return other.heading(self)

    def heading(self, held: Fault) -> Fault:
        """This one, with another and what came with that among what was also seen."""
        seen = replace(self, event=self.event or held.event)
        for label in (held.reason, *held.also):
            seen = seen.joined_by(label)
        return seen


LOST = Fault("GpuLost", "The driver cannot reach the GPU any more.", RESTART_BM)
NOT_FOUND = Fault("GpuNotFound", "The driver does not list the GPU any more.", RESTART_BM)
RESET_REQUIRED = Fault("ResetRequired", "The driver refuses it until it is reset.", COMPONENT_RESET)
REPLACED = Fault("GpuReplaced", "Another board is at its PCI address.", "")
_ABSENCES = {LOST.reason, NOT_FOUND.reason, REPLACED.reason}


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
class Story:
    """How long XIDs belong together, and how long the warning of an informational one is shown."""

    burst_seconds: float
    notice_seconds: float


@dataclass(frozen=True, slots=True)
class Health:
    """All that is known about one GPU. ``probe`` doubts that it answers, ``watch`` that its XIDs
    would be seen. ``unwatched`` says why there are no XIDs to be seen, which is no doubt."""

    fault: Fault | None = None
    probe: Doubt | None = AWAITED
    watch: Doubt | None = AWAITED
    unwatched: str = ""
    notices: tuple[Notice, ...] = ()
    story_until: float = inf
    """Until then, what is seen belongs to the fault's story (monotonic seconds)."""

    @classmethod
    def resumed(cls, known: Condition | None, builtin: dict[int, Xid]) -> Health:
        """After a restart: a False that was said before is still a fault."""
        if known is None or known.status is not ConditionStatus.FALSE:
            return cls()
        said = replace(known, message=known.message.removesuffix(_BACK))
        return cls(Fault.resumed(said, _action_of(known.reason, builtin)))

    def struck(self, fault: Fault) -> Health:
        """A fault is added to what there is."""
        return replace(self, fault=fault if self.fault is None else self.fault.merged(fault))

    def hit(self, xid: Xid, now: float, terms: Story, where: str = "") -> Health:
        """An XID event. Within the window after a fatal one it is part of that one's story; a
        fatal one after it begins another, with its own reason unless its action is weaker."""
        if xid.effect is Effect.IGNORE:
            return self
        held, late = self.fault, now > self.story_until
        if xid.effect is Effect.FATAL:
            fault = Fault.of(xid, where)
            until = self.story_until if held and not late else now + terms.burst_seconds
            if held and late and action_strength(fault.action) == action_strength(held.action):
                fault = held if fault.reason == held.reason else fault.heading(held)
                return replace(self, fault=fault, story_until=until)
            return replace(self.struck(fault), story_until=until)
        if held is not None and not late:
            return replace(self, fault=held.joined_by(xid.reason))
        notice = Notice(xid.text + where, now + terms.notice_seconds)
        others = tuple(n for n in self.notices if n.text != notice.text)
        return replace(self, notices=(*others, notice)[-_MAX_NOTICES:])

    def healed(self) -> Health:
        """The fault is over by evidence."""
        return replace(self, fault=None)

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
    for fault in (LOST, NOT_FOUND, RESET_REQUIRED, REPLACED):
        if reason == fault.reason:
            return fault.action
    if (match := _XID_REASON.fullmatch(reason)) is None:
        return ""
    row = builtin.get(int(match[1]))
    return row.action if row and row.action else CONTACT_SUPPORT
