"""The Node's condition, from what is known of its GPUs. Pure: given the same, it says the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from device_api_core.actions import action_strength
from device_api_core.resources import ConditionStatus, Gpu
from device_api_kubernetes.texts import counted, plain, trouble

MESSAGE_BYTES = 1_024
"""A Node is read by many; what does not fit is counted."""

HEARTBEAT = timedelta(minutes=4)
"""An older ``lastHeartbeatTime`` is renewed although nothing changed."""

HEALTHY = "AllGPUsHealthy"
UNHEALTHY = "GPUUnhealthy"
UNKNOWN = "GPUHealthUnknown"
STALE = "GPUHealthStale"
NO_GPUS = "NoGPUs"

_AND_MORE_BYTES = len("; and 1024 more")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of the node's GPUs."""

    status: ConditionStatus
    reason: str
    message: str


def judge(gpus: Sequence[Gpu], stale: str) -> Verdict:
    """The verdict on all GPUs of a node. ``stale`` says why they are not as they are now.

    Bad news survives: a GPU that was bad is bad until the server says otherwise. Good news is
    earned: without proof, and without any GPU, nothing is True.
    """
    bad = [gpu for gpu in gpus if gpu.ready is ConditionStatus.FALSE]
    doubtful = [gpu for gpu in gpus if gpu.ready is ConditionStatus.UNKNOWN]
    if bad:
        head = f"{counted(len(bad), of=len(gpus))} unhealthy"
        head += f", {len(doubtful)} unknown" if doubtful else ""
        head = _as_of(head, stale)
        return Verdict(ConditionStatus.FALSE, UNHEALTHY, _listing(head, bad))
    if stale:
        return Verdict(ConditionStatus.UNKNOWN, STALE, plain(stale, MESSAGE_BYTES))
    if doubtful:
        head = f"the health of {counted(len(doubtful), of=len(gpus))} unknown"
        return Verdict(ConditionStatus.UNKNOWN, UNKNOWN, _listing(head, doubtful))
    if not gpus:
        message = "no provider reports a GPU of this node"
        return Verdict(ConditionStatus.UNKNOWN, NO_GPUS, message)
    return Verdict(ConditionStatus.TRUE, HEALTHY, f"{counted(len(gpus))} healthy")


def condition_to_send(
    verdict: Verdict, type_: str, shown: Mapping[str, Any], now: datetime
) -> dict[str, str] | None:
    """The condition that the Node lacks, or ``None`` if what it shows will do.

    ``shown`` is its present one of that type, empty if there is none. ``lastTransitionTime`` moves
    only with the status, whoever wrote it before; ``lastHeartbeatTime`` says when this was last
    known to be so.
    """
    status = verdict.status.value
    same_status = shown.get("status") == status
    told = (shown.get("status"), shown.get("reason"), shown.get("message"))
    if told == (status, verdict.reason, verdict.message):
        heartbeat = _time(shown.get("lastHeartbeatTime"))
        if heartbeat is not None and abs(now - heartbeat) < HEARTBEAT:
            return None
    since = _time(shown.get("lastTransitionTime")) if same_status else None
    return {
        "type": type_,
        "status": status,
        "reason": verdict.reason,
        "message": verdict.message,
        "lastHeartbeatTime": stamp(now),
        "lastTransitionTime": stamp(since or now),
    }


def stamp(time: datetime) -> str:
    """A moment as Kubernetes writes it, in whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def worst_first(gpus: Iterable[Gpu]) -> list[Gpu]:
    """Those with the strongest recommended action first."""
    return sorted(gpus, key=lambda g: (-action_strength(g.status.recommended_action), g.name))


def _as_of(head: str, stale: str) -> str:
    # Half of the room at most: which GPU it is matters more than since when nobody answers.
    return f"{head} ({plain(stale, MESSAGE_BYTES // 4)})" if stale else head


def _listing(head: str, gpus: Sequence[Gpu]) -> str:
    """The head, then as many GPUs as there is room for, then how many more there are."""
    text = head
    for number, gpu in enumerate(worst_first(gpus)):
        entry = f"{'; ' if number else ': '}{trouble(gpu)}"
        last = number + 1 == len(gpus)
        room = MESSAGE_BYTES - (0 if last else _AND_MORE_BYTES)
        if len(f"{text}{entry}".encode()) > room:
            return f"{text}{'; and' if number else ':'} {len(gpus) - number} more"
        text += entry
    return text


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
