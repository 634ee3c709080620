"""A short storm over real processes, and the judge's eye on what it recorded."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from judge import violations
from plan import SERVER, Act, plan
from records import State, Story, Stream, Write, load

SECONDS = 10
TRANSPORT = os.environ.get("DEVICE_API_TRANSPORT") or "grpcio"
SOAK = Path(__file__).with_name("soak.py")


def longest(story: Story) -> Stream:
    return max(story.streams, key=lambda s: len(s.events))


def lose_an_event(story: Story) -> None:
    events = longest(story).events
    del events[len(events) // 2]


def repeat_an_event(story: Story) -> None:
    events = longest(story).events
    events.insert(1, events[0])


def turn_events_round(story: Story) -> None:
    longest(story).events.reverse()


def show_what_was(story: Story) -> None:
    """The GPU as it was before a fault, right after that was acknowledged."""
    fault, before = next(pairs_of_fault_and_before(story))
    read = story.reads[0]
    story.reads.append(replace(read, start=fault.end + 1, end=fault.end + 2, states=(before,)))


def show_what_was_as_if_it_were_new(story: Story) -> None:
    """The same under a version that was never given out."""
    fault, before = next(pairs_of_fault_and_before(story))
    fresh = replace(before, version=fault.version + 10**9)
    read = story.reads[0]
    story.reads.append(replace(read, start=fault.end + 1, end=fault.end + 2, states=(fresh,)))


def forget_a_fault(story: Story) -> None:
    """The last fault of all is not there in the end."""
    last = max(story.reads, key=lambda r: r.end)
    fault = Write(10**9, last.end + 1, *register(story), "False", "the last", last.end + 2, 10**17)
    story.writes.append(fault)
    story.kills.append(last.end + 3)
    story.reads.append(replace(last, start=last.end + 4, end=last.end + 5))


def forge_a_change(story: Story) -> None:
    told = max(story.told, key=len)
    told[-1] = (told[-1][0] + 1, told[-1][1])


def pairs_of_fault_and_before(story: Story):
    states = {s.version: s for r in story.reads for s in r.states}
    states |= {s.version: s for stream in story.streams for _, s in stream.events}
    ordered: dict[str, list[State]] = {}
    for version in sorted(states):
        ordered.setdefault(states[version].gpu, []).append(states[version])
    faults = {w.version: w for w in story.writes if w.end and w.status == "False"}
    for history in ordered.values():
        for before, after in zip(history, history[1:], strict=False):
            fault = faults.get(after.version)
            if fault is not None and before.values.get(fault.type, ("",))[0] == "True":
                yield fault, before


def register(story: Story) -> tuple[str, str]:
    write = story.writes[-1]
    return write.gpu, write.type


LIES = (
    lose_an_event,
    repeat_an_event,
    turn_events_round,
    show_what_was,
    show_what_was_as_if_it_were_new,
    forget_a_fault,
    forge_a_change,
)


# A broken promise is none that another try mends.
@pytest.mark.flaky(reruns=0)
@pytest.mark.timeout(150)
def test_no_promise_is_broken_in_a_storm_and_no_lie_about_it_believed(tmp_path: Path) -> None:
    flags = ["--seconds", str(SECONDS), "--transport", TRANSPORT, "--records", str(tmp_path)]
    storm = subprocess.run([sys.executable, str(SOAK), *flags], capture_output=True, text=True)
    assert storm.returncode == 0, storm.stdout + storm.stderr
    story = load(tmp_path)
    # A storm in which nothing happened would prove nothing.
    assert story.kills
    assert len([w for w in story.writes if w.end]) > 50, storm.stdout
    assert len(story.reads) > 50, storm.stdout
    assert sum(len(s.events) for s in story.streams) > 50, storm.stdout
    assert violations(story) == []
    for lie in LIES:
        story = load(tmp_path)
        lie(story)
        assert violations(story), lie.__name__


def test_a_seed_gives_one_plan() -> None:
    seed = random.randrange(2**32)
    clients = ("reader-0", "provider-0")
    faults = plan(seed, 300, clients)
    assert faults == plan(seed, 300, clients) != plan(seed + 1, 300, clients)
    kills = [f.target for f in faults if f.act is Act.KILL]
    assert set(kills) == {SERVER, *clients}
    assert kills.count(SERVER) > 100
