"""Pure rules of memory: what must reach the disk before it is acknowledged, and what is still
believed after a restart.

Bad news survives, good news is earned: a fault stays, and nobody vouches any more for what was
well. A boot of the node clears what a reboot cures, which is every fault whose provider has not
declared otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from device_api_core.conditions import CLEARED, Action, Health, assembled
from device_api_core.entries import Entry
from device_api_core.resources import Condition, ConditionStatus

RESTARTED = "ServerRestarted"
REBOOTED = "NodeRebooted"

RebootProof = Callable[[str, str], bool]
"""Whether the fault of that provider and that condition type survives a boot of the node."""

_RANK = {ConditionStatus.TRUE: 0, ConditionStatus.UNKNOWN: 1, ConditionStatus.FALSE: 2}


def restored(health: Health, *, rebooted: bool, reboot_proof: RebootProof, now: int) -> Health:
    """The health of a GPU as the server shows it after a restart.

    ``rebooted`` is whether the node has booted since the health was kept; ``now`` is nanoseconds
    since the Unix epoch.
    """

    def still_believed(c: Condition) -> Condition:
        if c.status is ConditionStatus.TRUE:
            why = f"the server was restarted; {_name(c)} has not reported since"
            return _unknown(c, RESTARTED, why, now)
        if rebooted and c.status is ConditionStatus.FALSE:
            if reboot_proof(c.provider_id, c.type):
                return c
            why = f"the node was booted since {_name(c)} reported {c.reason or 'a fault'}"
            return _unknown(c, REBOOTED, why, now)
        return c

    kept = tuple(still_believed(c) for c in health.conditions)
    return assembled(kept, _advised(health, kept, rebooted), health.ready, now)


def must_be_kept(before: Entry | None, after: Entry | None) -> bool:
    """Whether a change has to be on the disk before it is acknowledged: a new GPU, what makes
    health worse or recommends an action, and what takes something back. ``None`` is a GPU that is
    not there.

    What makes health better may be lost: after a restart it has to be earned again anyway.
    """
    if before is None or after is None:
        return before is not after
    if before.registrants - after.registrants:
        return True
    if before.health is after.health:
        return False
    return _recommends_more(before.health, after.health) or _says_worse(
        before.health.conditions, after.health.conditions
    )


def _says_worse(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> bool:
    same = set(map(id, before)) & set(map(id, after))
    was = {(c.type, c.provider_id): c for c in before if id(c) not in same}
    for c in after:
        if id(c) in same:
            continue
        old = was.pop((c.type, c.provider_id), None)
        if c.reason == CLEARED or _RANK[c.status] > (_RANK[old.status] if old else 0):
            return True
    # What is left was dropped or withdrawn.
    return bool(was)


def _recommends_more(before: Health, after: Health) -> bool:
    return before.actions is not after.actions and bool(set(after.actions) - set(before.actions))


def _advised(health: Health, kept: tuple[Condition, ...], rebooted: bool) -> tuple[Action, ...]:
    """The actions that still follow from something. One that a provider gave for a fault which is
    over must not show again for the doubt of a restart, nor "restart" after the restart."""
    survived = set(map(id, kept))
    causes = {
        c.provider_id
        for c in health.conditions
        if _is_bad(c) and id(c) in survived and (not rebooted or c.status is ConditionStatus.FALSE)
    }
    return tuple(a for a in health.actions if a.provider_id in causes)


def _is_bad(condition: Condition) -> bool:
    return condition.status is not ConditionStatus.TRUE


def _name(condition: Condition) -> str:
    return f"provider {condition.provider_id or '(anonymous)'}"


def _unknown(c: Condition, reason: str, message: str, now: int) -> Condition:
    return Condition(c.type, ConditionStatus.UNKNOWN, reason, message, now, c.provider_id)
