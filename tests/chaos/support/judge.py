"""Whether what happened in a storm breaks a promise.

Each condition type of each GPU is a register with one writer at a time, whose every write has a
text of its own. The server may be killed at any moment and then goes on from what it kept: faults
stay, what was well is Unknown, and an improvement that was not kept may have to be said anew. The
same holds for everybody's eyes: reads, watches, and informers as of the moment that they vouch for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from records import SERVER_REASONS, Read, State, Story, Value, Write

_RANK = {"True": 0, "Unknown": 1, "False": 2}
_ABSENT: Value = ("Unknown", "")

Register = tuple[str, str]


def violations(story: Story) -> list[str]:
    """Every broken promise, the worst kinds first."""
    return list(_Judge(story).all())


class _Judge:
    def __init__(self, story: Story) -> None:
        self._story = story
        self._kills = sorted(story.kills)
        self._states: dict[int, State] = {}
        self._twisted: list[str] = []
        self._registers: dict[Register, list[Write]] = defaultdict(list)
        self._number: dict[tuple[str, str, str], int] = {}
        for write in story.writes:
            register = self._registers[write.gpu, write.type]
            self._number[write.gpu, write.type, write.text] = len(register)
            register.append(write)
        self._acknowledged = {
            key: ([w.bound for w in acknowledged], [i for i, w in enumerate(writes) if w.end])
            for key, writes in self._registers.items()
            for acknowledged in [[w for w in writes if w.end]]
        }
        self._effective = {key: [w.end for w in ws] for key, ws in self._registers.items()}
        for at, state in self._seen():
            self._notice(at, state)

    def all(self) -> Iterator[str]:
        for read in self._story.reads:
            for state in read.states:
                yield from self._stale(read, state)
            yield from self._not_listed(read)
        yield from self._twisted
        yield from self._streams()
        yield from self._handlers()
        yield from self._writes_are_in_history()
        yield from self._versions_in_real_time()
        yield from self._lists_are_snapshots()

    # --- one version, one state

    def _seen(self) -> Iterator[tuple[int, State]]:
        for read in self._story.reads:
            yield from ((read.end, state) for state in read.states if state.version)
        for stream in self._story.streams:
            yield from stream.events
            first = stream.events[0][0] if stream.events else None
            yield from ((first, s) for s in stream.initial if first is not None)

    def _notice(self, at: int, state: State) -> None:
        known = self._states.setdefault(state.version, state)
        if known != state:
            self._twisted.append(f"version {state.version} is {known} and {state}")
        if known is state:
            self._twisted += _wrong_ready(state)
        for type_, (status, text) in state.values.items():
            number = self._number.get((state.gpu, type_, text))
            if number is None:
                continue
            write = self._registers[state.gpu, type_][number]
            if status != write.status:
                self._twisted.append(f"{write} was shown as {status}")
            if at < write.start:
                self._twisted.append(f"{write} was shown at {at}, before it was written")
            # Who was killed before the acknowledgement may have written nevertheless.
            effective = self._effective[state.gpu, type_]
            effective[number] = min(effective[number] or at, at)

    # --- nothing stale

    def _stale(self, read: Read, state: State) -> Iterator[str]:
        for gpu, type_ in self._registers:
            if gpu != state.gpu:
                continue
            why = self._why_wrong(read, (gpu, type_), state.values.get(type_, _ABSENT))
            if why:
                yield f"{type_} of {state} in a read from {read.start} to {read.end}: {why}"

    def _not_listed(self, read: Read) -> Iterator[str]:
        """A GPU that a list does not have hides what was said of it."""
        shown = {state.gpu for state in read.states}
        for gpu in sorted({g for g, _ in self._registers} - shown) if read.version else ():
            yield from self._stale(read, State(gpu, 0, {}))

    def _why_wrong(self, read: Read, key: Register, value: Value) -> str:
        newest = self._newest(key, read.start)
        if value[1] in SERVER_REASONS:
            return self._wrong_doubt(read, key, newest)
        number = self._number.get((*key, value[1]), -1)
        if value is not _ABSENT and number < 0:
            return "nobody ever wrote that"
        if value[0] == "True" and self._survived(read, self._registers[key][number]):
            return "nobody has said so since the server was restarted"
        rank = 0 if value is _ABSENT else _RANK[value[0]]
        for later in self._replaced(key, number, newest):
            lost = value[0] != "True" and rank >= _RANK[later.status]
            if not lost or self._is_kept(key, later) or not self._killed(later.start, read.end):
                return f"{later} was acknowledged before"
        return ""

    def _newest(self, key: Register, moment: int) -> int:
        """The number of the last write that was acknowledged before that moment, or -1."""
        bounds, numbers = self._acknowledged[key]
        index = bisect_left(bounds, moment) - 1
        return numbers[index] if index >= 0 else -1

    def _replaced(self, key: Register, number: int, newest: int) -> Iterator[Write]:
        """The acknowledged writes that came after one had taken effect."""
        effective = self._effective[key][number] if number >= 0 else 0
        for later in self._registers[key][number + 1 : newest + 1]:
            if later.end and effective is not None and later.start > effective:
                yield later

    def _is_kept(self, key: Register, write: Write) -> bool:
        """Whether it surely made health worse, so that it was acknowledged when it was kept."""
        number = self._number[(*key, write.text)]
        before = self._registers[key][number - 1] if number else None
        if before is None:
            return write.status != "True"
        worse = _RANK[write.status] > _RANK[before.status]
        return bool(before.end and worse and not self._killed(before.start, write.end or 0))

    def _survived(self, read: Read, write: Write) -> bool:
        return bool(write.end) and self._killed(write.end or 0, read.start)

    def _wrong_doubt(self, read: Read, key: Register, newest: int) -> str:
        """The server doubts only what was True."""
        writes = self._registers[key]
        known = self._surely_not_true(read, writes[: newest + 1])
        if known is None:
            return ""
        last = bisect_right([w.start for w in writes], read.end)
        for number, write in enumerate(writes[:last]):
            effective = self._effective[key][number]
            late = number > newest or effective is None or effective >= known.start
            if write.status == "True" and late:
                return ""
        return f"{known} was acknowledged before, and that is no True"

    def _surely_not_true(self, read: Read, writes: list[Write]) -> Write | None:
        """The last acknowledged write, unless it may be lost: an Unknown in the place of another
        made nothing worse."""
        for write in reversed(writes):
            if write.status == "True":
                return None
            lost = write.status == "Unknown" and self._killed(write.start, read.end)
            if write.end and not lost:
                return write
        return None

    def _killed(self, since: int, until: int) -> bool:
        index = bisect_left(self._kills, since)
        return index < len(self._kills) and self._kills[index] <= until

    # --- nothing lost, nothing out of order

    def _streams(self) -> Iterator[str]:
        for stream in self._story.streams:
            last = stream.since
            newest = max((s.version for s in stream.initial), default=0)
            if newest > last:
                yield f"a watch began at {last} with version {newest}"
            for _, state in stream.events:
                if state.version != last + 1:
                    yield f"in a watch from {stream.since}, {last} is followed by {state.version}"
                last = state.version

    def _handlers(self) -> Iterator[str]:
        for told in self._story.told:
            known: dict[str, int] = {}
            for before, state in told:
                if before != known.get(state.gpu, 0):
                    yield f"a handler knew {known.get(state.gpu, 0)} and was told of {before}"
                if state.version <= before:
                    yield f"a handler was told of {state} after {before}"
                known[state.gpu] = state.version

    def _writes_are_in_history(self) -> Iterator[str]:
        for write in self._story.writes:
            state = self._states.get(write.version) if write.end else None
            if state is not None and (
                state.gpu != write.gpu or state.values.get(write.type) != (write.status, write.text)
            ):
                yield f"{write} is not in {state}"

    def _versions_in_real_time(self) -> Iterator[str]:
        """Nobody is shown an older version than what was known when he asked."""
        known = [(w.end, w.gpu, w.version) for w in self._story.writes if w.end]
        asked = [(w.start, w.gpu, w.version) for w in self._story.writes if w.end]
        for read in self._story.reads:
            for gpu, version in [("", read.version), *((s.gpu, s.version) for s in read.states)]:
                known.append((read.end, gpu, version))
                asked.append((read.start, gpu, version))
        for stream in self._story.streams:
            known += [(at, s.gpu, s.version) for at, s in stream.events]
        known.sort()
        floor: dict[str, int] = {}
        index = 0
        for start, gpu, version in sorted(asked):
            while index < len(known) and known[index][0] < start:
                _, other, least = known[index]
                floor[other] = max(floor.get(other, 0), least)
                index += 1
            if version and version < floor.get(gpu, 0):
                yield f"version {version} of {gpu or 'a list'} was shown after {floor[gpu]}"

    def _lists_are_snapshots(self) -> Iterator[str]:
        history = {
            gpu: [s.version for s in states]
            for gpu, states in groupby(
                sorted(self._states.values(), key=lambda s: (s.gpu, s.version)), lambda s: s.gpu
            )
        }
        for read in self._story.reads:
            for state in read.states if read.version else ():
                versions = history[state.gpu]
                newest = versions[bisect_right(versions, read.version) - 1]
                if newest > state.version:
                    yield f"a list at {read.version} has {state} though {newest} was there"


def _wrong_ready(state: State) -> list[str]:
    said = [status for type_, (status, _) in state.values.items() if type_ != "Ready"]
    worst = max(said, key=_RANK.__getitem__, default="Unknown")
    shown = state.values.get("Ready", _ABSENT)[0]
    return [] if shown == worst else [f"{state} is Ready {shown} and should be {worst}"]
