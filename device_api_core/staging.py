"""Preparing changed GPUs for the cache: versions, bytes and limits, all before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from device_api_core import conditions
from device_api_core.conditions import Health
from device_api_core.entries import Entry, encoded
from device_api_core.errors import LimitExceeded
from device_api_core.resources import Condition, ConditionStatus
from device_api_core.validation import MAX_CONDITIONS, MAX_LIST_BYTES, MAX_OBJECT_BYTES

_CUT_MESSAGE_BYTES = 256
_CUT_REASON_CHARS = 64
_CUT_MARK = " [cut: no room]"


@dataclass(frozen=True, slots=True)
class Step:
    """GPUs to be installed together, each with what it replaces (``None`` if it is new).

    ``list_bytes`` is the encoded size of all GPUs afterwards; ``cut`` counts the GPUs whose new
    fault had its text cut for want of room.
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
    ``refusable`` changes must stay within the limits; the server's own (a lapse, say) are small
    and must not fail.

    Raises:
        LimitExceeded: too many conditions, or too many bytes and no new fault among them.
    """
    installs: list[tuple[Entry, Entry | None]] = []
    cut = 0
    for entry in entries:
        known = stored.get(entry.name)
        if known is not None and entry.looks_like(known):
            installs.append((entry, known))
            continue
        version += 1
        new = encoded(entry, known, version)
        room = MAX_LIST_BYTES - list_bytes + (len(known.item) if known else 0)
        if refusable and (problem := _over_limit(new, known, room)) is not None:
            new = _cut_or_refuse(new, known, problem)
            cut += 1
        list_bytes += len(new.item) - (len(known.item) if known else 0)
        installs.append((new, known))
    return Step(tuple(installs), list_bytes, cut)


def status_changes(before: Health | None, after: Health) -> list[tuple[str, Condition]]:
    """The conditions whose status changed, each with the status it had (``""`` if it is new). A
    new True is no news."""
    was = {(c.type, c.provider_id): c for c in before.conditions} if before else {}
    changed: list[tuple[str, Condition]] = []
    for c in after.conditions:
        old = was.get((c.type, c.provider_id))
        if old is None and c.status is not ConditionStatus.TRUE:
            changed.append(("", c))
        elif old is not None and old.status is not c.status:
            changed.append((old.status.value, c))
    return changed


def _over_limit(entry: Entry, known: Entry | None, room: int) -> LimitExceeded | None:
    if len(entry.health.conditions) > MAX_CONDITIONS:
        raise LimitExceeded(
            f'gpu "{entry.name}" would have {len(entry.health.conditions)} conditions; the limit '
            f"is {MAX_CONDITIONS}"
        )
    # The computed Ready repeats what a provider said, so it does not count.
    if (size := len(entry.item) - len(entry.parts[0])) > MAX_OBJECT_BYTES:
        return LimitExceeded(
            f'gpu "{entry.name}" would take {size} bytes; the limit is {MAX_OBJECT_BYTES}',
            reason="size",
        )
    grows = known is None or len(entry.item) > len(known.item)
    if grows and len(entry.item) > room:
        return LimitExceeded(
            f'gpu "{entry.name}" would take {len(entry.item)} bytes and all GPUs together more '
            f"than {MAX_LIST_BYTES}, which is the limit so that a list fits one message",
            reason="size",
        )
    return None


def _cut_or_refuse(entry: Entry, known: Entry | None, problem: LimitExceeded) -> Entry:
    """Bad news is never refused for want of room: the text of the new faults is cut instead."""
    before = known.health if known else conditions.new_health(0)
    bad_news = conditions.turned_false(before, entry.health)
    if not bad_news:
        raise problem
    health = entry.health
    for condition in bad_news:
        message = condition.message.encode()
        if len(message) > _CUT_MESSAGE_BYTES:
            kept = message[:_CUT_MESSAGE_BYTES].decode(errors="ignore")
            condition_text = kept + _CUT_MARK
        else:
            condition_text = condition.message
        shorter = replace(
            condition, message=condition_text, reason=condition.reason[:_CUT_REASON_CHARS]
        )
        health = conditions.set_condition(health, shorter, shorter.last_transition_time or 0)
    shortened = encoded(replace(entry, health=health), known, entry.version)
    if len(shortened.item) - len(shortened.parts[0]) > MAX_OBJECT_BYTES:
        raise problem
    return shortened
