"""Runs one history of changes again and again, hit at another write each time, and judges what the
disk holds afterwards. Started by test_crashes.py with the faulty disk preloaded.

The process is forked for each run, since starting an interpreter for each would take most of the
time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from device_api_core import conditions
from device_api_core.checkpoint import Checkpoint
from device_api_core.database import Database
from device_api_core.entries import Entry, encoded
from device_api_core.events import EventLog
from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.rows import Contents

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from disk import Fault, FaultyDisk

GPUS = 2
STEPS = 4
NOW = 1_700_000_000_000_000_000


def history() -> Iterator[dict[str, Entry]]:
    """The state after each step; every step is one that must be kept."""
    state: dict[str, Entry] = {}
    for step in range(STEPS):
        name = f"gpu-{step % GPUS}"
        if step == STEPS - 1:
            del state[name]
        else:
            fault = Condition(
                f"Step{step}", ConditionStatus.FALSE, "Broken", "x" * 1_500, NOW, "alpha"
            )
            before = state.get(name)
            health = before.health if before else conditions.new_health(NOW)
            health = conditions.set_condition(health, fault, NOW)
            entry = Entry(name, GpuSpec(uuid=f"u{step % GPUS}"), frozenset({"alpha"}), health)
            state[name] = encoded(entry, None, step + 1)
        yield dict(state)


async def write(directory: Path, acknowledged: int) -> None:
    """Go through the history, and say each step that was acknowledged."""
    checkpoint = Checkpoint(
        directory,
        boot_id="boot",
        events=EventLog(wall=time.time_ns, monotonic=time.monotonic),
        monotonic=time.monotonic,
        patience_seconds=5.0,
        retry_seconds=0.005,
    )
    contents = checkpoint.load(NOW)
    before = {entry.name: entry for entry in contents.entries}
    checkpoint.reserve(contents.ceiling + 1)
    await checkpoint.start()
    for name, entry in before.items():
        checkpoint.note(name, entry, None, 1)
    before = {}
    for number, after in enumerate(history()):
        for name in before | after:
            if before.get(name) is not after.get(name):
                checkpoint.note(name, before.get(name), after.get(name), number)
        if (saving := checkpoint.saving()) is not None:
            await saving
        os.write(acknowledged, bytes([number + 1]))
        before = after
    checkpoint.close()


def run(directory: Path) -> int:
    """One child; returns the last step that it acknowledged."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        asyncio.run(write(directory, writing))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as steps:
        last = max(steps.read(), default=0)
    os.waitpid(child, 0)
    return last


def look(directory: Path) -> tuple[Contents, tuple[str, ...]]:
    database = Database(directory)
    contents = database.load(NOW)
    return contents, database.take_notes()


def judge(directory: Path, acknowledged: int, earlier: int) -> None:
    """``earlier`` is the step of the state that was there before the run."""
    contents, notes = look(directory)
    held = [kept(entry) for entry in contents.entries]
    states = [[]] + [sorted(map(kept, state.values())) for state in history()]
    allowed = states[acknowledged:] if acknowledged else [*states, states[earlier]]
    assert sorted(held) in allowed, (acknowledged, held)
    # A file may be empty only before anything was acknowledged.
    assert not notes or (not acknowledged and not earlier), notes


def kept(entry: Entry) -> tuple[str, str, tuple[str, ...]]:
    types = tuple(c.type for c in entry.health.conditions)
    return entry.name, entry.spec.uuid, types


def crash_everywhere(folder: Path, disk: FaultyDisk, *, earlier: bool) -> int:
    """Kill it at every call that writes; returns how many there were."""
    at = 0
    while True:
        at += 1
        state, durable = folder / "state", folder / "durable"
        for directory in (state, durable):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        disk.set(Fault.SOUND)
        if earlier:
            assert run(state) == STEPS
        disk.set(Fault.KILL_AT, at=at)
        last = run(state)
        ended = disk.calls < at
        disk.set(Fault.SOUND)
        before = STEPS if earlier else 0
        if any(durable.iterdir()):
            judge(durable, last, before)
        else:
            assert not last
        judge(state, last, before)
        if ended:
            assert last == STEPS
            return at


def fail_everywhere(folder: Path, disk: FaultyDisk, error: int) -> int:
    """Let every call fail once; returns how many there were."""
    at = 0
    while True:
        at += 1
        state = folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        disk.set(Fault.FAIL_AT, error, at=at)
        assert run(state) == STEPS
        ended = disk.calls < at
        disk.set(Fault.SOUND)
        judge(state, STEPS, 0)
        if ended:
            return at


def main() -> None:
    folder, what = Path(sys.argv[1]), sys.argv[2:]
    disk = FaultyDisk(folder / "control")
    if what[0] == "crash":
        print(crash_everywhere(folder, disk, earlier=what[1] == "earlier"))
    else:
        print(fail_everywhere(folder, disk, int(what[1])))


if __name__ == "__main__":
    main()
