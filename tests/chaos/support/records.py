"""What the actors of a storm write down, each into a file of its own, line by line: a process that
is killed loses nothing of what it had seen. All times are nanoseconds of the system's monotonic
clock, which is one for all processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_api_core.resources import Gpu

Value = tuple[str, str]
"""A condition's status and its text: what a provider wrote, or the reason that the server gave."""

SERVER_REASONS = frozenset({"ServerRestarted", "ProviderLost", "UpdateAborted"})


@dataclass(frozen=True)
class State:
    """One GPU at one version; ``values`` by condition type, the computed Ready among them. A GPU
    that was not found has version 0."""

    gpu: str
    version: int
    values: Mapping[str, Value]


@dataclass
class Write:
    """One attempt to write; ``number`` gives the order of its provider's. ``end`` is when it was
    acknowledged, and ``bound`` from when reads have to show it: that is earlier for a held update.
    """

    number: int
    start: int
    gpu: str
    type: str
    status: str
    text: str
    end: int | None = None
    version: int = 0
    held: int | None = None

    @property
    def bound(self) -> int | None:
        return self.end if self.held is None or self.end is None else self.held


@dataclass(frozen=True)
class Read:
    """What was shown to be true at some moment between ``start`` and ``end``. ``version`` is a
    list's. An informer's read starts when its store was proven last."""

    start: int
    end: int
    version: int
    states: tuple[State, ...]


@dataclass
class Stream:
    """One watch: the version that it went on from, or its first list with its version; and what
    came after."""

    since: int = 0
    initial: list[State] = field(default_factory=list)
    events: list[tuple[int, State]] = field(default_factory=list)


@dataclass
class Story:
    """All that was recorded in one storm. ``kills`` are when the server was killed; ``told`` what
    each informer's handler was told, the version before and the state."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    told: list[list[tuple[int, State]]] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)


class Recorder:
    """Appends lines to a file; each is written whole before it returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *facts: Any) -> None:
        os.write(self._file, json.dumps(facts, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def now() -> int:
    return time.monotonic_ns()


def packed(gpu: Gpu) -> tuple[Any, ...]:
    """A GPU as a record holds it."""
    values = {
        c.type: (c.status.value, c.reason if c.reason in SERVER_REASONS else c.message)
        for c in gpu.status.conditions
    }
    return gpu.name, gpu.metadata.resource_version, values


def lines(path: Path) -> Iterator[list[Any]]:
    """The records of a file, without the one in whose midst its writer was killed."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


def load(folder: Path) -> Story:
    """Everything that was recorded in a folder."""
    story = Story()
    for path in sorted(folder.glob("*.jsonl")):
        _Collector(story).take(path)
    return story


class _Collector:
    def __init__(self, story: Story) -> None:
        self._story = story
        self._open: dict[int, Write] = {}
        self._stream = Stream()
        self._told: list[tuple[int, State]] = []

    def take(self, path: Path) -> None:
        for kind, *facts in lines(path):
            getattr(self, f"_{kind}")(*facts)

    def _write(self, *facts: Any) -> None:
        write = Write(*facts)
        self._open[write.number] = write
        self._story.writes.append(write)

    def _acknowledged(self, number: int, end: int, version: int, held: int | None = None) -> None:
        write = self._open.pop(number)
        write.end, write.version, write.held = end, version, held

    def _read(self, start: int, end: int, version: int, states: list[Any]) -> None:
        self._story.reads.append(Read(start, end, version, tuple(map(_state, states))))

    def _stream_from(self, since: int, states: list[Any]) -> None:
        self._stream = Stream(since, [_state(s) for s in states])
        self._story.streams.append(self._stream)

    def _event(self, at: int, state: Any) -> None:
        self._stream.events.append((at, _state(state)))

    def _kill(self, at: int) -> None:
        self._story.kills.append(at)

    def _informer(self) -> None:
        self._told = []
        self._story.told.append(self._told)

    def _change(self, before: int, state: Any) -> None:
        self._told.append((before, _state(state)))


def _state(packed: Any) -> State:
    gpu, version, values = packed
    return State(gpu, version, {t: (s, text) for t, (s, text) in values.items()})
