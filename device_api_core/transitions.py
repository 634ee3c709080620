"""What a change of a GPU is worth telling: one event for each condition whose status changed."""

from __future__ import annotations

from device_api_core.conditions import Health
from device_api_core.entries import Entry
from device_api_core.errors import Conflict
from device_api_core.events import EventLog, Kind
from device_api_core.resources import Condition, ConditionStatus


def record_transitions(events: EventLog, entry: Entry, known: Entry | None) -> None:
    """Tell what became of each condition."""
    for was, c in status_changes(known.health if known else None, entry.health):
        events.record(
            Kind.HEALTH,
            c.reason or c.status.value,
            f"{c.type} {was or 'new'} -> {c.status} ({c.reason}) {c.message}",
            gpu=entry.name,
            provider_id=c.provider_id,
            warning=c.status is not ConditionStatus.TRUE,
        )


def record_restored(events: EventLog, entry: Entry) -> None:
    """Tell in one line what is known of a GPU after a restart."""
    faults = sum(c.status is ConditionStatus.FALSE for c in entry.health.conditions)
    events.record(
        Kind.HEALTH,
        "ServerRestarted",
        f"known from before the restart; faults: {faults}, conditions in doubt until they are "
        f"reported again: {len(entry.health.conditions) - faults}",
        gpu=entry.name,
        warning=faults > 0,
    )


def record_refusal(events: EventLog, provider_id: str, gpu: str, conflict: Conflict) -> None:
    """Tell that a provider's False was refused."""
    events.record(
        Kind.PROVIDER,
        "FalseRefused",
        f"a False was refused: {conflict.message}",
        gpu=gpu,
        provider_id=provider_id,
        warning=True,
    )


def status_changes(before: Health | None, after: Health) -> list[tuple[str, Condition]]:
    """The conditions whose status changed, each with the status it had (``""`` if it is new). A
    new True is no news."""
    known = before.conditions if before else ()
    same = set(map(id, known))
    new = [c for c in after.conditions if id(c) not in same]
    was = {(c.type, c.provider_id): c for c in known} if new else {}
    changed: list[tuple[str, Condition]] = []
    for c in new:
        old = was.get((c.type, c.provider_id))
        if old is None and c.status is not ConditionStatus.TRUE:
            changed.append(("", c))
        elif old is not None and old.status is not c.status:
            changed.append((old.status.value, c))
    return changed
