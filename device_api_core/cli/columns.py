"""What a table says of a GPU, and which GPU comes first in it."""

from __future__ import annotations

from collections.abc import Callable

from device_api_core.actions import action_strength
from device_api_core.cli.ages import age_of
from device_api_core.resources import READY, ConditionStatus, Gpu

Show = Callable[[Gpu], str]

ANONYMOUS = "(anonymous)"
"""What the provider without an id is called on the screen."""

_WORST_FIRST = (ConditionStatus.FALSE, ConditionStatus.UNKNOWN, ConditionStatus.TRUE)


def ready_reason(gpu: Gpu) -> str:
    """Why Ready is what it is, if there is anything to say."""
    ready = gpu.condition(READY)
    return ready.reason if ready is not None else ""


def ready_message(gpu: Gpu) -> str:
    """The same as a sentence."""
    ready = gpu.condition(READY)
    return ready.message if ready is not None else ""


def ready_age(gpu: Gpu) -> str:
    """How long Ready has been what it is."""
    ready = gpu.condition(READY)
    return age_of(ready.last_transition_time if ready is not None else None)


def said_by(gpu: Gpu) -> str:
    """The provider whose condition Ready repeats. All agree where it is True, so then all of them;
    nobody where no provider has said anything."""
    ready = gpu.condition(READY)
    if ready is None:
        return ""
    others = [c for c in gpu.status.conditions if c.type != READY]
    said = [c for c in others if c.status is ready.status]
    if ready.status is not ConditionStatus.TRUE:
        # The server shows the newest; of equals the first, which is how they are sorted.
        said = sorted(said, key=lambda c: c.last_transition_time or 0, reverse=True)
        said = [c for c in said if (c.reason, c.message) == (ready.reason, ready.message)][:1]
    return ",".join(dict.fromkeys(c.provider_id or ANONYMOUS for c in said))


def place(gpu: Gpu) -> tuple[bool, int, str]:
    """Sorts in the driver's order; GPUs that have no index come last."""
    return gpu.spec.index is None, gpu.spec.index or 0, gpu.name


def badness(gpu: Gpu) -> tuple[int, int, tuple[bool, int, str]]:
    """Sorts the worst first: by Ready, then by how much there is to do, then by place."""
    rank = _WORST_FIRST.index(gpu.ready)
    return rank, -action_strength(gpu.status.recommended_action), place(gpu)


def _bad_conditions(gpu: Gpu) -> str:
    return ",".join(
        f"{c.type}={c.status}" + (f"({c.reason})" if c.reason else "")
        for c in gpu.status.conditions
        if c.status is not ConditionStatus.TRUE and c.type != READY
    )


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


NARROW: dict[str, Show] = {
    "NAME": lambda gpu: gpu.name,
    "READY": lambda gpu: gpu.ready,
    "REASON": ready_reason,
    "ACTION": lambda gpu: gpu.status.recommended_action,
    "AGE": ready_age,
}
"""The columns that fit a terminal."""

WIDE: dict[str, Show] = NARROW | {
    "UUID": lambda gpu: gpu.spec.uuid,
    "INDEX": lambda gpu: _number(gpu.spec.index),
    "PCI": lambda gpu: gpu.spec.pci_bus_id,
    "PRODUCT": lambda gpu: gpu.spec.product_name,
    "CONDITIONS": _bad_conditions,
    "VERSION": lambda gpu: str(gpu.metadata.resource_version),
}
"""All that there are."""
