"""The state of the bridge: every record of every GPU, and the events that wait for their GPU.

Belongs to one thread. Knows nothing of the daemon or of files: it is told what GPUs there are, and
says afterwards what has to be kept and of which GPUs there is something new to tell.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from device_api_core.resources import Condition, ConditionStatus, Gpu
from device_api_nvsentinel_bridge.counts import Count, Counts
from device_api_nvsentinel_bridge.events import Event, clean, condition_word
from device_api_nvsentinel_bridge.faults import Fault, Record, take
from device_api_nvsentinel_bridge.report import DOMAIN, ROLL_UP, Report, condition_type, report
from device_api_nvsentinel_bridge.resolve import GpuIndex, Reference

NODE = ""
"""Stands for the node in place of a GPU's name: what a GPU that appears later starts with."""
MAX_CHECKS_KEPT = 256
CLEARED_BY_OPERATOR = "ClearedByOperator"
"""The reason that the daemon gives to a condition which an operator has cleared."""

NODE_REBOOTED = "NodeRebooted"
"""The reason that the daemon gives to a False of before the last boot."""

Records = Mapping[str, Mapping[str, Record]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """What the journal has to keep: new states of records (``None``: gone), by GPU and check, and
    the numbers of the events that are settled."""

    records: Mapping[tuple[str, str], Record | None]
    settled: Sequence[int]


class Ledger:
    """See the module. ``pending_limit`` bounds the events that wait."""

    def __init__(self, records: Records, pending_limit: int, counts: Counts) -> None:
        self._records = {gpu: dict(checks) for gpu, checks in records.items()}
        self._records.setdefault(NODE, {})
        self._pending_limit = pending_limit
        self._counts = counts
        self._index = GpuIndex()
        self._seen_gpus: tuple[object, ...] = ()
        self._waiting: dict[int, tuple[Event, tuple[Reference, ...]]] = {}
        self._changed: set[tuple[str, str]] = set()
        self._settled: list[int] = []
        self._news: set[str] = set()

    def __repr__(self) -> str:
        return f"<Ledger {len(self._records) - 1} GPUs, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """How many events wait for a GPU."""
        return len(self._waiting)

    @property
    def faulty(self) -> int:
        """On how many GPUs something is not True."""
        return sum(
            gpu != NODE and any(r.status is not ConditionStatus.TRUE for r in checks.values())
            for gpu, checks in self._records.items()
        )

    def see(self, gpus: Sequence[Gpu], now: int) -> None:
        """Take note of the GPUs that there are. Events that waited for one are applied now."""
        facts = tuple((g.name, g.spec) for g in gpus)
        if facts == self._seen_gpus:
            return
        self._seen_gpus = facts
        self._index = GpuIndex(gpus)
        new = [gpu.name for gpu in gpus if gpu.name not in self._records]
        for gpu in new:
            self._records[gpu] = {}
            for check, record in self._records[NODE].items():
                self._put(gpu, check, record)
        waiting, self._waiting = self._waiting, {}
        for number, (event, references) in waiting.items():
            if references:
                self._apply_to(number, event, references, now)
            else:
                self._apply_to_all(new, event, now)
                self._waiting[number] = (event, ())
        self._fold(now)

    def take(self, number: int, event: Event, now: int) -> None:
        """Apply the event that the journal keeps under this number, or let it wait."""
        if event.references:
            self._apply_to(number, event, event.references, now)
        else:
            self._apply_to_all(self._records.keys() - {NODE}, event, now)
            # What waits for an absent GPU came before this. The GPU must see both in that order.
            self._waiting[number] = (event, ())
            self._fold(now)
        while len(self._waiting) > self._pending_limit:
            self._drop_oldest()
            self._fold(now)

    def adopt(self, gpu: str, said: Iterable[Condition], now: int) -> None:
        """Resume from what the daemon remembers that was said of a GPU, where the journal knows
        nothing of it. Without a journal this is all that is left of the faults."""
        checks = self._records.setdefault(gpu, {})
        known = {condition_type(check) for check in checks}
        for condition in said:
            if condition.reason == CLEARED_BY_OPERATOR:
                self.clear(gpu, condition.type, condition.last_transition_time or now, now)
            if condition.type not in known and condition.type.startswith(DOMAIN):
                self._put(gpu, condition.type.removeprefix(DOMAIN), _remembered(condition, now))
        self._news.add(gpu)

    def clear(self, gpu: str, type_: str, when: int, now: int) -> None:
        """An operator said at that time that the cause is gone. Events from before are late."""
        for check, record in list(self._records.get(gpu, {}).items()):
            if type_ not in (ROLL_UP, condition_type(check)) or when < record.time <= now:
                continue
            since = record.since if record.status is ConditionStatus.TRUE else when
            self._put(gpu, check, Record(check, when, since, remembered=record.remembered))

    def doubt(self, gpu: str, type_: str, when: int) -> None:
        """The node was booted at that time. What was wrong before may be gone: that is Unknown
        until NVSentinel, which looks at everything after a boot, has spoken."""
        for check, record in list(self._records.get(gpu, {}).items()):
            if type_ not in (ROLL_UP, condition_type(check)) or record.time > when:
                continue
            doubtful = tuple(
                replace(f, status=ConditionStatus.UNKNOWN, reason=NODE_REBOOTED, action="")
                if f.status is ConditionStatus.FALSE
                else f
                for f in record.faults
            )
            if doubtful != record.faults:
                self._put(gpu, check, replace(record, faults=doubtful, since=when))

    def report(self, gpu: str) -> Report | None:
        """What there is to say of a GPU; ``None`` if nothing."""
        records = self._records.get(gpu)
        return report(records) if records else None

    def collect(self) -> tuple[Changes, set[str]]:
        """What changed since the last call: for the journal, and the GPUs with news."""
        records = {key: self._records[key[0]].get(key[1]) for key in self._changed}
        changes = Changes(records, self._settled)
        news, self._news = self._news - {NODE}, set()
        self._changed, self._settled = set(), []
        return changes, news

    def _apply_to(
        self, number: int, event: Event, references: tuple[Reference, ...], now: int
    ) -> None:
        unknown = []
        for reference in references:
            names = self._index.resolve(reference)
            for gpu in names:
                self._apply(gpu, event, now)
            if not names:
                unknown.append(reference)
        if unknown:
            self._waiting[number] = (event, tuple(unknown))
        else:
            self._settled.append(number)

    def _apply_to_all(self, gpus: Iterable[str], event: Event, now: int) -> None:
        for gpu in gpus:
            self._apply(gpu, event, now)

    def _fold(self, now: int) -> None:
        """Let what is said of the node, and has nothing of the same check waiting before it, become
        part of what later GPUs start with."""
        held = set()
        for number, (event, references) in list(self._waiting.items()):
            if references:
                held.add(event.check)
            elif event.check not in held:
                self._apply(NODE, event, now)
                del self._waiting[number]
                self._settled.append(number)

    def _drop_oldest(self) -> None:
        # It concerns some GPU: nothing waits before it that could hold what is said of the node.
        oldest = next(iter(self._waiting))
        event, references = self._waiting.pop(oldest)
        self._settled.append(oldest)
        self._counts.add(Count.DROPPED)
        _log.error(
            "dropped an event: too many wait for GPUs that no provider has registered",
            extra={"check": event.check, "gpu": references[0].value, "healthy": event.healthy},
        )

    def _apply(self, gpu: str, event: Event, now: int) -> None:
        checks = self._records.setdefault(gpu, {})
        word = condition_word(event.check)
        if event.check not in checks and word in checks and checks[word].remembered:
            # Adopted under the only name that the daemon keeps. Now the check's own is known.
            self._put(gpu, event.check, replace(checks[word], check=event.check, remembered=False))
            self._drop(gpu, word)
        record = checks.get(event.check)
        if record is not None and record.is_late(event, now):
            self._counts.add(Count.LATE)
        elif record is not None and record.has_taken(event):
            self._counts.add(Count.REPEATED)
        elif record is not None or self._make_room(gpu, event):
            self._put(gpu, event.check, take(record, event))

    def _make_room(self, gpu: str, event: Event) -> bool:
        """Check names are what senders make them: no GPU keeps any number of them."""
        checks = self._records[gpu]
        if len(checks) < MAX_CHECKS_KEPT:
            return True
        idle = [r for r in checks.values() if not r.faults]
        if idle:
            self._drop(gpu, min(idle, key=lambda r: r.time).check)
            return True
        if self._counts.add(Count.OVERFLOW) == 1:
            _log.error("too many checks with faults", extra={"gpu": gpu, "check": event.check})
        return False

    def _put(self, gpu: str, check: str, record: Record) -> None:
        self._records[gpu][check] = record
        self._changed.add((gpu, check))
        self._news.add(gpu)

    def _drop(self, gpu: str, check: str) -> None:
        del self._records[gpu][check]
        self._changed.add((gpu, check))
        self._news.add(gpu)


def _remembered(said: Condition, now: int) -> Record:
    """A record that says what the daemon remembers. What is not True stays so until an event of
    the check, or an operator, clears it."""
    check = said.type.removeprefix(DOMAIN)
    since = said.last_transition_time or now
    if said.status is ConditionStatus.TRUE or said.reason == CLEARED_BY_OPERATOR:
        return Record(check, since, since, remembered=True)
    text = clean(said.message).removeprefix(f"{check}: ")
    fault = Fault("", frozenset(), said.status, "", text, said.reason, since)
    return Record(check, since, since, (fault,), remembered=True)
