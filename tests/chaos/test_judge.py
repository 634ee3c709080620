"""The judge of storms accepts what a server may do, and finds every lie."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
from judge import violations
from records import Read, State, Story, Stream, Write

Value = tuple[str, str]
Lie = Callable[[Story], None]
DOUBT = ("Unknown", "ServerRestarted")
DEVICE = "gpu"


def state(version: int, fan: Value | None, link: Value | None = None, ready: str = "") -> State:
    values = {t: v for t, v in (("Fan", fan), ("Link", link)) if v is not None}
    worst = max((v[0] for v in values.values()), key=("True", "Unknown", "False").index)
    return State(DEVICE, version, {**values, "Ready": (ready or worst, "")})


def said(text: str) -> Value:
    """``t1`` is a True, ``f1`` a False, ``u1`` an Unknown."""
    return {"t": "True", "f": "False", "u": "Unknown"}[text[0]], text


def write(number: int, start: int, text: str, end: int | None, version: int = 0) -> Write:
    return Write(number, start, DEVICE, "Fan", said(text)[0], text, end, version)


T1, F2, T3 = state(11, said("t1")), state(12, said("f2")), state(13, said("t3"))
RESTORED_FAULT = state(101, said("f2"))
F4, U5, T6 = state(102, said("f4")), state(103, said("u5")), state(104, said("t6"))
DOUBTED = state(201, DOUBT)
KILLS = (100, 200)


def good_story() -> Story:
    """One GPU, one provider, two kills: True, False, True; f2 comes back; f4, u5, t6, doubt."""
    return Story(
        writes=[
            write(1, 10, "t1", 15, 11),
            write(2, 20, "f2", 25, 12),
            write(3, 30, "t3", 35, 13),
            write(4, 110, "f4", 115, 102),
            write(5, 120, "u5", 125, 103),
            write(6, 130, "t6", 135, 104),
            # Killed before it was acknowledged; it may have been heard.
            write(7, 140, "f7", None),
        ],
        reads=[
            Read(12, 14, 0, (T1,)),
            Read(22, 24, 12, (F2,)),
            Read(36, 37, 13, (T3,)),
            Read(105, 106, 101, (RESTORED_FAULT,)),
            Read(121, 123, 102, (F4,)),
            Read(137, 138, 0, (T6,)),
            Read(210, 220, 201, (DOUBTED,)),
        ],
        streams=[
            Stream(11, [T1], [(24, F2), (36, T3)]),
            Stream(12, [], [(36, T3)]),
            Stream(101, [RESTORED_FAULT], [(116, F4), (126, U5), (136, T6)]),
        ],
        told=[[(0, T1), (11, T3), (13, F4), (102, T6), (104, DOUBTED)]],
        kills=list(KILLS),
    )


def reading(start: int, end: int, shown: State, version: int = 0) -> Lie:
    return lambda story: story.reads.append(Read(start, end, version, (shown,)))


def changed(number: int, **facts: object) -> Lie:
    def change(story: Story) -> None:
        story.writes[number - 1] = replace(story.writes[number - 1], **facts)

    return change


def streamed(index: int, *events: tuple[int, State]) -> Lie:
    return lambda story: setattr(story.streams[index], "events", list(events))


def told(*changes: tuple[int, State]) -> Lie:
    return lambda story: story.told.append(list(changes))


LIES: dict[str, Lie] = {
    "well after an acknowledged fault": reading(26, 27, T1),
    "well after an acknowledged fault, as a new version": reading(116, 117, state(109, said("t3"))),
    "well after a fault that a read had to wait for": lambda s: (
        setattr(s.writes[1], "held", 21),
        s.reads.append(Read(22, 24, 0, (T1,))),
    ),
    "well though nobody said so after a kill": reading(211, 212, state(202, said("t6"))),
    "another status than what was written": reading(40, 41, state(14, ("Unknown", "t3"))),
    "doubt in the place of a fault": reading(118, 119, state(105, DOUBT)),
    "doubt in the place of a fault, after a kill": lambda s: (
        s.writes.append(write(8, 150, "f8", 155)),
        s.reads.append(Read(210, 211, 0, (state(202, DOUBT),))),
    ),
    "a fault that is gone after a kill": lambda s: (
        s.writes.append(write(8, 150, "f8", 155)),
        s.reads.append(Read(210, 211, 0, (State(DEVICE, 202, {"Ready": ("Unknown", "")}),))),
    ),
    "a list without a GPU that has a fault": lambda s: s.reads.append(Read(116, 117, 102, ())),
    "a GPU that is not found though it has a fault": reading(116, 117, State(DEVICE, 0, {})),
    "a GPU that is forgotten with its fault after a kill": lambda s: (
        s.writes.append(write(8, 150, "f8", 155)),
        s.reads.append(Read(210, 211, 202, ())),
    ),
    "an older fault in the place of a newer one": lambda s: (
        s.writes.append(write(8, 150, "f8", 155)),
        s.reads.append(Read(160, 161, 0, (state(106, said("f4")),))),
    ),
    "an improvement that is lost without a kill": reading(40, 41, state(14, said("f2"))),
    "a text that nobody wrote": reading(40, 41, state(14, ("False", "f99"))),
    "a text before it was written": reading(16, 17, F2),
    "an attempt before it was made": reading(137, 139, state(105, said("f7"))),
    "one version with two meanings": reading(40, 41, state(13, said("t3"), ("True", "t3"))),
    "Ready that hides a fault": reading(
        137, 138, state(105, said("t6"), ("False", "broken"), ready="True")
    ),
    "a kept fault that is lost by a kill": lambda s: (
        s.writes.pop(),
        s.reads.pop(),
        s.writes.append(write(8, 150, "f8", 155)),
        s.reads.append(Read(210, 211, 0, (state(202, said("f4")),))),
    ),
    "an attempt that was heard, replaced, and is back": lambda s: (
        s.writes.append(write(8, 150, "t8", 155, 106)),
        s.reads.append(Read(144, 145, 0, (state(105, said("f7")),))),
        s.reads.append(Read(160, 161, 0, (state(107, said("f7")),))),
    ),
    "an attempt to say well that is back after a kill": lambda s: (
        s.writes.append(write(8, 141, "t8", None)),
        s.writes.append(write(9, 150, "t9", 155, 106)),
        s.reads.append(Read(144, 145, 0, (state(105, said("t8")),))),
        s.reads.append(Read(210, 211, 0, (state(202, said("t8")),))),
    ),
    "a GPU that grows older": reading(38, 39, F2),
    "a list that grows older": lambda s: (
        s.reads.append(Read(38, 39, 50, (T3,))),
        s.reads.append(Read(40, 41, 49, (T3,))),
    ),
    "a list without the newest part": reading(31, 32, F2, 13),
    "an acknowledgement of another text": changed(2, version=13),
    "an acknowledgement of an old version": changed(3, version=1),
    "an event that is missing": streamed(0, (36, T3)),
    "an event that came twice": streamed(1, (36, T3), (37, T3)),
    "events out of order": streamed(0, (24, T3), (36, F2)),
    "an event of another watch's past": streamed(2, (116, F2)),
    "a watch whose list is newer than its version": lambda s: s.streams.append(Stream(11, [F2])),
    "a handler that was told of the past": told((0, F2), (12, T1)),
    "a handler that missed a change": told((0, T1), (12, T3)),
}

TRUTHS: dict[str, Lie] = {
    "an attempt that was heard": reading(150, 151, state(105, said("f7"))),
    "an attempt that was heard late, over a newer word": lambda s: (
        s.writes.append(write(8, 150, "t8", 155, 105)),
        s.reads.append(Read(160, 161, 0, (state(106, said("f7")),))),
    ),
    "a read that began before the fault was acknowledged": reading(23, 40, T1),
    "an improvement that was kept": reading(210, 220, state(202, DOUBT)),
    "a GPU that is forgotten after a kill, of which nobody had said anything bad": lambda s: (
        s.writes.clear(),
        s.reads.clear(),
        s.streams.clear(),
        s.told.clear(),
        s.writes.append(write(1, 110, "t1", 115, 102)),
        s.reads.append(Read(210, 211, 202, ())),
    ),
    "a GPU that was not yet there": lambda s: s.reads.append(
        Read(1, 9, 0, (State(DEVICE, 0, {}),))
    ),
    "doubt that comes back": lambda s: (
        s.writes.append(write(8, 220, "u8", 221, 203)),
        s.kills.append(230),
        s.reads.append(Read(240, 241, 0, (state(301, DOUBT),))),
    ),
}


def test_the_judge_accepts_a_good_story() -> None:
    assert violations(good_story()) == []


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_judge_accepts(truth: str) -> None:
    story = deepcopy(good_story())
    TRUTHS[truth](story)
    assert violations(story) == []


@pytest.mark.parametrize("lie", LIES)
def test_the_judge_finds(lie: str) -> None:
    story = deepcopy(good_story())
    LIES[lie](story)
    assert violations(story)
