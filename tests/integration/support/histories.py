"""Histories of what clients did and saw, and the judgement whether one server can have been so.

Every GPU is a register whose value has a version. The watch that was open from the start gives the
one order of all changes; everything else must agree with it in real time: nobody sees what is older
than what was acknowledged or seen before, nor what had not been written yet.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, str]
"""What a GPU's conditions say: text by type."""


@dataclass(frozen=True)
class State:
    """One GPU at one version."""

    gpu: str
    version: int
    values: Values


@dataclass(frozen=True)
class Write:
    """One acknowledged change. ``version`` is 0 if its writer was not told."""

    start: int
    end: int
    gpu: str
    type: str
    text: str
    version: int = 0


@dataclass(frozen=True)
class Read:
    """One answer; ``version`` is the snapshot's, 0 for a read of one GPU."""

    start: int
    end: int
    states: tuple[State, ...]
    version: int = 0


@dataclass(frozen=True)
class Held:
    """One held update: readers waited from ``start``, its end was begun at ``end`` and over at
    ``done``. ``texts`` are what it wrote, by GPU."""

    start: int
    end: int
    done: int
    type: str
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Watched:
    """What one watch that began after version ``since`` was sent."""

    since: int
    events: tuple[State, ...]


@dataclass
class History:
    """What was recorded. ``initial`` and ``truth`` are of the watch open from the start."""

    initial: tuple[State, ...] = ()
    truth: tuple[State, ...] = ()
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    watches: list[Watched] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """How many calls it is made of, events not counted."""
        return len(self.writes) + len(self.reads) + len(self.held)


def violations(history: History) -> list[str]:
    """Everything in the history that one linearizable server cannot have done."""
    return list(_Judge(history).all())


class _Judge:
    def __init__(self, history: History) -> None:
        self._history = history
        self._states: dict[str, list[State]] = {}
        self._written: dict[tuple[str, str, str], int] = {}
        for state in (*history.initial, *history.truth):
            self._states.setdefault(state.gpu, []).append(state)
            for type_, text in state.values.items():
                self._written.setdefault((state.gpu, type_, text), state.version)
        self._versions = {g: [s.version for s in states] for g, states in self._states.items()}
        self._begun = self._times_of_writing()

    def all(self) -> Iterator[str]:
        yield from self._order_of_truth()
        yield from self._watches_agree()
        yield from self._writes_agree()
        yield from self._writes_in_real_time()
        yield from self._reads_agree()
        yield from self._reads_in_real_time()
        yield from self._lists_are_snapshots()
        yield from self._held_updates_are_waited_for()

    def _times_of_writing(self) -> dict[int, int]:
        begun = {self._version(w.gpu, w.type, w.text): w.start for w in self._history.writes}
        for held in self._history.held:
            for gpu, text in held.texts.items():
                begun[self._version(gpu, held.type, text)] = held.end
        return begun

    def _version(self, gpu: str, type_: str, text: str) -> int:
        return self._written.get((gpu, type_, text), 0)

    def _at(self, gpu: str, version: int) -> State | None:
        """The GPU as it was when the counter stood at that version."""
        index = bisect_right(self._versions.get(gpu, []), version) - 1
        return self._states[gpu][index] if index >= 0 else None

    def _order_of_truth(self) -> Iterator[str]:
        truth = self._history.truth
        for before, after in zip(truth, truth[1:], strict=False):
            if after.version != before.version + 1:
                yield f"event {before.version} is followed by {after.version}"

    def _watches_agree(self) -> Iterator[str]:
        for watch in self._history.watches:
            until = watch.events[-1].version if watch.events else watch.since
            expected = [s for s in self._history.truth if watch.since < s.version <= until]
            # What came after the truth ended cannot be judged.
            sent = [s for s in watch.events if s.version <= self._history.truth[-1].version]
            if sent != expected:
                yield (
                    f"a watch from {watch.since} was sent {len(watch.events)} events that are not "
                    f"the {len(expected)} up to {until}"
                )

    def _writes_agree(self) -> Iterator[str]:
        for write in self._history.writes:
            version = self._version(write.gpu, write.type, write.text)
            if not version:
                yield f"{write} was acknowledged and never seen"
            elif write.version not in (0, version):
                yield f"{write} was seen as version {version}"

    def _writes_in_real_time(self) -> Iterator[str]:
        ended = sorted(self._history.writes, key=lambda w: w.end)
        newest, index = 0, 0
        for write in sorted(self._history.writes, key=lambda w: w.start):
            while index < len(ended) and ended[index].end < write.start:
                newest = max(newest, ended[index].version)
                index += 1
            if write.version and write.version < newest:
                yield f"{write} is older than {newest}, which was acknowledged before it began"

    def _reads_agree(self) -> Iterator[str]:
        for read in self._history.reads:
            for state in read.states:
                true = self._at(state.gpu, state.version)
                if true != state:
                    yield f"{state} was read, {true} was true"
                elif self._begun.get(state.version, read.start) > read.end:
                    yield f"{state} was read before it was written"

    def _reads_in_real_time(self) -> Iterator[str]:
        known = sorted(self._acknowledged())
        floor: dict[str, int] = {}
        index = 0
        for read in sorted(self._history.reads, key=lambda r: r.start):
            while index < len(known) and known[index][0] < read.start:
                _, gpu, version = known[index]
                floor[gpu] = max(floor.get(gpu, 0), version)
                index += 1
            for state in read.states:
                if state.version < floor.get(state.gpu, 0):
                    yield f"{state} was read after {floor[state.gpu]} was known"
            if read.version and read.version < floor.get("", 0):
                yield f"snapshot {read.version} was read after {floor['']} was known"

    def _acknowledged(self) -> Iterator[tuple[int, str, int]]:
        """When which version of which GPU was known to somebody; "" stands for the counter."""
        for write in self._history.writes:
            version = self._version(write.gpu, write.type, write.text)
            yield write.end, write.gpu, version
            yield write.end, "", version
        for held in self._history.held:
            for gpu, text in held.texts.items():
                version = self._version(gpu, held.type, text)
                yield held.done, gpu, version
                yield held.done, "", version
        for read in self._history.reads:
            for state in read.states:
                yield read.end, state.gpu, state.version
                yield read.end, "", max(state.version, read.version)

    def _lists_are_snapshots(self) -> Iterator[str]:
        together = [
            sorted(self._version(gpu, held.type, text) for gpu, text in held.texts.items())
            for held in self._history.held
        ]
        torn = {v for group in together for v in range(group[0], group[-1])}
        for read in self._history.reads:
            if not read.version:
                continue
            if read.version in torn:
                yield f"snapshot {read.version} has a part of a held update"
            expected = {gpu: self._at(gpu, read.version) for gpu in self._states}
            if {s.gpu: s for s in read.states} != expected:
                yield f"snapshot {read.version} is not what was true at that version"

    def _held_updates_are_waited_for(self) -> Iterator[str]:
        for held in self._history.held:
            if not all(self._version(g, held.type, t) for g, t in held.texts.items()):
                yield f"{held} ended and was never seen"
        reads = sorted(self._history.reads, key=lambda r: r.start)
        starts = [read.start for read in reads]
        for held in self._history.held:
            during = reads[bisect_right(starts, held.start) : bisect_right(starts, held.end - 1)]
            yield from self._waited(held, during)

    def _waited(self, held: Held, reads: Iterable[Read]) -> Iterator[str]:
        for read in reads:
            if read.end < held.end:
                yield f"a read from {read.start} to {read.end} did not wait for {held}"
            for state in read.states:
                text = held.texts.get(state.gpu)
                if text and state.version < self._version(state.gpu, held.type, text):
                    yield f"{state} was read while {held} had it in doubt"
