"""Preparing changed GPUs for the cache: versions, bytes and limits, all before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from device_api_core import conditions
from device_api_core.entries import Entry, encoded
from device_api_core.errors import LimitExceeded
from device_api_core.resources import Condition, ConditionStatus
from device_api_core.validation import (
    LIST_RESERVE_BYTES,
    MAX_CONDITIONS,
    MAX_LIST_BYTES,
    MAX_OBJECT_BYTES,
    shortened,
)

_CUT_MESSAGE_BYTES = 256
_CUT_REASON_CHARS = 64
_CUT_MARK = " [cut: no room]"
_LIST_FRAME_BYTES = 64
"""More than a list takes besides its items: two lengths and its version."""


class Step(NamedTuple):
    """GPUs to be installed together, each with what it replaces (``None`` if it is new).

    ``list_bytes`` is the encoded size of all GPUs afterwards; ``cut`` counts the GPUs on which
    text was cut for want of room.
    """

    installs: tuple[tuple[Entry, Entry | None], ...]
    list_bytes: int
    cut: int


def prepare(
    entries: Iterable[Entry],
    *,
    stored: Mapping[str, Entry],
    version: int,
    list_bytes: int,
    refusable: bool,
) -> Step:
    """Give each changed entry its version, counting up from ``version``, and its bytes.

    An entry that readers could not tell from the stored one keeps the stored version and bytes.
    ``refusable`` changes must stay within the limits; the server's own (a lapse, say) must not
    fail and lose their text if there is no room for it.

    Raises:
        LimitExceeded: too many conditions, or too many bytes and no fault among what is new.
    """
    installs: list[tuple[Entry, Entry | None]] = []
    cut = 0
    for entry in entries:
        known = stored.get(entry.name)
        if known is not None and entry.looks_like(known):
            installs.append((entry, known))
            continue
        known_bytes = len(known.item) if known else 0
        room = MAX_LIST_BYTES - _LIST_FRAME_BYTES - list_bytes + known_bytes
        new = encoded(entry, known, version + 1)
        if refusable:
            fitting = _within_limits(new, known, room)
        else:
            fitting = _within_room(new, known, room - LIST_RESERVE_BYTES)
        if fitting is not new and known is not None and fitting.looks_like(known):
            # It was cut before, and to the same text.
            installs.append((_keeping(known, fitting), known))
            continue
        cut += fitting is not new
        version += 1
        list_bytes += len(fitting.item) - known_bytes
        installs.append((fitting, known))
    return Step(tuple(installs), list_bytes, cut)


def _keeping(known: Entry, changed: Entry) -> Entry:
    """What is new and cannot be seen, with the version and bytes that readers have."""
    return replace(known, registrants=changed.registrants, health=changed.health)


def _within_limits(entry: Entry, known: Entry | None, room: int) -> Entry:
    """A provider's change as it may be stored. One that holds a fault is never refused for want
    of room: the text of what it changes is cut instead."""
    problem = _over_limit(entry, known, room - LIST_RESERVE_BYTES)
    if problem is None:
        return entry
    if all(c.status is not ConditionStatus.FALSE for c in _changed(entry, known)):
        raise problem
    # Half of the reserve is for faults with some text, the rest for those with none.
    return _within_room(
        _cut(entry, known, _CUT_MESSAGE_BYTES), known, room - LIST_RESERVE_BYTES // 2
    )


def _within_room(entry: Entry, known: Entry | None, room: int) -> Entry:
    return entry if len(entry.item) <= room else _cut(entry, known, 0)


def _over_limit(entry: Entry, known: Entry | None, room: int) -> LimitExceeded | None:
    if len(entry.health.conditions) > MAX_CONDITIONS:
        raise LimitExceeded(
            f'gpu "{entry.name}" would have {len(entry.health.conditions)} conditions; the limit '
            f"is {MAX_CONDITIONS}"
        )
    # What makes a GPU smaller is welcome, also while it is above a limit.
    if known is not None and len(entry.item) <= len(known.item):
        return None
    # The computed Ready repeats what a provider said, so it does not count.
    if (size := len(entry.item) - len(entry.parts[0])) > MAX_OBJECT_BYTES:
        return LimitExceeded(
            f'gpu "{entry.name}" would take {size} bytes; the limit is {MAX_OBJECT_BYTES}',
            reason="size",
        )
    if len(entry.item) > room:
        return LimitExceeded(
            f'gpu "{entry.name}" would take {len(entry.item)} bytes and all GPUs together more '
            f"than {MAX_LIST_BYTES - LIST_RESERVE_BYTES}, which is the limit so that a list fits "
            "one message and leaves room for faults",
            reason="size",
        )
    return None


def _changed(entry: Entry, known: Entry | None) -> tuple[Condition, ...]:
    before = set(known.health.conditions) if known else set()
    return tuple(c for c in entry.health.conditions if c not in before)


def _cut(entry: Entry, known: Entry | None, message_bytes: int) -> Entry:
    """The entry with shorter text in every condition that is not as it was."""
    health = entry.health
    for condition in _changed(entry, known):
        message = condition.message
        if len(message.encode()) > message_bytes:
            message = shortened(message, message_bytes) + (_CUT_MARK if message_bytes else "")
        reason = condition.reason[:_CUT_REASON_CHARS]
        shorter = replace(condition, message=message, reason=reason)
        health = conditions.set_condition(health, shorter, shorter.last_transition_time or 0)
    return encoded(replace(entry, health=health), known, entry.version)
