"""Health, asked as people ask it.

They work on everything that carries conditions in its status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from device_api_core.resources import READY, Condition, ConditionStatus, HasConditions


def conditions(resource: HasConditions) -> Mapping[str, Condition]:
    """The conditions by type: ``conditions(gpu)["Ready"].status``."""
    return MappingProxyType({c.type: c for c in resource.status.conditions})


def is_healthy(resource: HasConditions) -> bool:
    """Whether the computed Ready is True. Unknown is not healthy: nobody vouches for the device."""
    return condition_is(READY)(resource)


def unhealthy_conditions(resource: HasConditions) -> tuple[Condition, ...]:
    """The conditions that are not True, without the computed Ready."""
    return tuple(
        c
        for c in resource.status.conditions
        if c.type != READY and c.status is not ConditionStatus.TRUE
    )


def condition_is(
    type: str, status: ConditionStatus = ConditionStatus.TRUE, *, reason: str | None = None
) -> Callable[[HasConditions], bool]:
    """A predicate for ``wait_for`` and the like: whether the condition of that type has that
    status, and that reason if one is given. One that is absent has none."""

    def holds(resource: HasConditions) -> bool:
        found = conditions(resource).get(type)
        if found is None or found.status is not status:
            return False
        return reason is None or found.reason == reason

    return holds
