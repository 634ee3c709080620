"""When a fault is over: evidence, and for how long it has to stand. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_api_nvml.recovery import NOTHING_TO_DO

_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """What recovery costs: ``hold_seconds`` of good looks, doubled for each relapse within
    ``relapse_seconds`` of a recovery, up to ``relapse_seconds``."""

    hold_seconds: float
    relapse_seconds: float

    def hold(self, relapses: int) -> float:
        """For how long the evidence has to stand after so many relapses."""
        longest = max(self.hold_seconds, self.relapse_seconds)
        return min(self.hold_seconds * 2.0 ** min(relapses, 32), longest)


@dataclass(frozen=True, slots=True)
class Trial:
    """How far a faulty GPU is with proving that it is well. All times are of one clock.

    ``good_since`` is when the unbroken row of good looks began, ``none_since`` when the unbroken
    row of those in which the driver said that it asks for nothing. ``reset`` says how it is known
    that the GPU was reset since the fault; ``heals`` are the recoveries before it."""

    hold: float = 0.0
    good_since: float | None = None
    none_since: float | None = None
    looks: int = 0
    reset: str = ""
    heals: tuple[float, ...] = ()

    def struck(self, now: float, terms: Terms) -> Trial:
        """A fault, new or once more: everything has to be proven from here on."""
        recent = tuple(t for t in self.heals if now - t < terms.relapse_seconds)
        return Trial(terms.hold(len(recent)), heals=recent)

    def failed(self) -> Trial:
        """A look that went wrong, did not end, or could have missed an XID."""
        return replace(self, good_since=None, none_since=None, looks=0)

    def passed(self, now: float, recovery: int | None) -> Trial:
        """A look that went well in all its parts. ``recovery`` is the driver's recovery action,
        ``None`` if it does not tell or if its word is not to count."""
        if recovery not in (None, NOTHING_TO_DO):
            return self.failed()
        good = now if self.good_since is None else self.good_since
        none = now if self.none_since is None else self.none_since
        return replace(
            self,
            good_since=good,
            none_since=None if recovery is None else none,
            looks=self.looks + 1,
        )

    def was_reset(self, evidence: str) -> Trial:
        """The GPU was reset, seen by ``evidence``. What was good before it proves nothing."""
        return replace(self.failed(), reset=evidence)

    def evidence(self, now: float, *, level: bool = False) -> str:
        """Why the fault is over, or an empty text while it is not. ``level``: the fault is a
        reading, and the same reading being good again is the proof."""
        if self.looks < _LOOKS or self.good_since is None:
            return ""
        for_long = f"for {self.hold:g} s"
        stood = now - self.good_since >= self.hold
        if level and stood:
            return f"the reading was good in every look {for_long}"
        if self.reset and stood:
            return f"{self.reset}, and every look since then was good {for_long}"
        if self.none_since is not None and now - self.none_since >= self.hold:
            return (
                "the driver's recovery action was none and every look was good, "
                f"without a new fatal XID, {for_long}"
            )
        return ""

    def ended(self, now: float) -> Trial:
        """The fault is over by evidence. Another one soon is a relapse."""
        return Trial(heals=(*self.heals, now))
