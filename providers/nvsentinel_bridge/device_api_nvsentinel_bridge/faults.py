"""What one check has found on one GPU, and how events change it. Pure.

Several codes can be active in one check of one GPU, and one code in several places; DCGM's monitor
sends one event per new code and a single healthy one when all are gone. So a :class:`Record` holds
a set of faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from device_api_core.resources import ConditionStatus
from device_api_nvsentinel_bridge.actions import stronger
from device_api_nvsentinel_bridge.events import Entity, Event, reason_for

MAX_FAULTS = 32
"""Per record. Beyond it the oldest are joined, which makes them harder to clear, never easier."""
_MAX_SEEN = 64

_TRUE = ConditionStatus.TRUE
_BADNESS = {_TRUE: 0, ConditionStatus.UNKNOWN: 1, ConditionStatus.FALSE: 2}


def worse(a: ConditionStatus, b: ConditionStatus) -> ConditionStatus:
    """The worse of two: False, then Unknown, then True."""
    return a if _BADNESS[a] >= _BADNESS[b] else b


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding that is not over. ``status`` True is one that nobody has to act on; Unknown is
    loss of sight. ``location`` are the entities beside the GPU itself."""

    code: str
    location: frozenset[Entity]
    status: ConditionStatus
    action: str
    text: str
    reason: str
    time: int

    def cleared_by(self, event: Event) -> bool:
        """Whether a healthy event is about this fault: it names this code or none, and no place
        that the fault does not name."""
        return (not event.codes or self.code in event.codes) and event.location <= self.location

    def seen_again(self, newer: Fault) -> Fault:
        """The same code in the same place once more. Milder news does not take back the older:
        that is what healthy events are for."""
        milder = _BADNESS[newer.status] < _BADNESS[self.status]
        return replace(
            newer,
            status=self.status if milder else newer.status,
            action=self.action if milder else newer.action,
            reason=self.reason if milder else newer.reason,
        )

    def joined(self, newer: Fault) -> Fault:
        """Both in one, to keep the record small. Cleared only by what would clear each of them."""
        return replace(
            newer,
            code=newer.code if newer.code == self.code else "",
            location=self.location & newer.location,
            status=worse(self.status, newer.status),
            action=stronger(self.action, newer.action),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A check on a GPU. ``time`` is that of the newest event, ``since`` that of the one which last
    changed :attr:`status`; ``seen`` are the digests of the events that have ``time``. ``faults``
    are in the order of the events that named them last. A ``remembered`` one stems from what the
    daemon knew, and its ``check`` is spelled as the condition is."""

    check: str
    time: int
    since: int
    faults: tuple[Fault, ...] = ()
    seen: tuple[str, ...] = ()
    remembered: bool = False

    @property
    def status(self) -> ConditionStatus:
        """That of the worst fault; True without any."""
        return max((f.status for f in self.faults), key=_BADNESS.__getitem__, default=_TRUE)

    def is_late(self, event: Event, now: int) -> bool:
        """Whether the event is older than the newest one taken. A newest one that lies in the
        future was stamped before the clock was set back, and proves nothing."""
        return event.time < self.time <= now

    def has_taken(self, event: Event) -> bool:
        """Whether this is a copy of an event of the newest time."""
        return event.time == self.time and event.digest in self.seen

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "time": self.time,
            "since": self.since,
            "seen": list(self.seen),
            "remembered": self.remembered,
            "faults": [
                {
                    "code": f.code,
                    "location": sorted(f.location),
                    "status": f.status.value,
                    "action": f.action,
                    "text": f.text,
                    "reason": f.reason,
                    "time": f.time,
                }
                for f in self.faults
            ],
        }

    @classmethod
    def from_json(cls, check: str, body: Mapping[str, Any]) -> Record:
        """The reverse of :meth:`to_json`. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for
        anything else."""
        faults = (
            Fault(
                code=f["code"],
                location=frozenset((t, v) for t, v in f["location"]),
                status=ConditionStatus(f["status"]),
                action=f["action"],
                text=f["text"],
                reason=f["reason"],
                time=f["time"],
            )
            for f in body["faults"]
        )
        return cls(
            check,
            body["time"],
            body["since"],
            tuple(faults),
            tuple(body["seen"]),
            body["remembered"],
        )


def take(record: Record | None, event: Event) -> Record:
    """The record after an event that is neither late nor taken before."""
    if record is None:
        record = Record(event.check, event.time, event.time)
    faults = _cleared(record, event) if event.healthy else _found(record, event)
    seen = record.seen if record.time == event.time else ()
    after = replace(record, time=event.time, faults=faults, seen=(*seen, event.digest)[-_MAX_SEEN:])
    return after if after.status is record.status else replace(after, since=event.time)


def _cleared(record: Record, event: Event) -> tuple[Fault, ...]:
    return tuple(f for f in record.faults if not f.cleared_by(event))


def _found(record: Record, event: Event) -> tuple[Fault, ...]:
    faults = {(f.code, f.location): f for f in record.faults}
    for code in event.codes or ("",):
        fault = Fault(
            code=code,
            location=event.location,
            status=event.status,
            action=event.action,
            text=event.text,
            reason=reason_for(event.check, code),
            time=event.time,
        )
        older = faults.pop((code, event.location), None)
        faults[code, event.location] = older.seen_again(fault) if older else fault
    return _bounded(list(faults.values()))


def _bounded(faults: list[Fault]) -> tuple[Fault, ...]:
    while len(faults) > MAX_FAULTS:
        older, newer = _alike(faults)
        faults[newer] = faults[older].joined(faults[newer])
        del faults[older]
    return tuple(faults)


def _alike(faults: list[Fault]) -> tuple[int, int]:
    """The two oldest with one code, which lose least by being joined; else the two oldest."""
    last: dict[str, int] = {}
    for i, fault in enumerate(faults):
        if fault.code in last:
            return last[fault.code], i
        last[fault.code] = i
    return 0, 1
