"""Events of the Node: which are due, how many there may be, and what they look like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from device_api_core.resources import READY, ConditionStatus, Gpu
from device_api_kubernetes.api import NAMESPACE
from device_api_kubernetes.condition import stamp, worst_first
from device_api_kubernetes.texts import plain, trouble, which, why

MESSAGE_BYTES = 1_024
"""The most that the newer Events API takes."""

COMPONENT = "device-api"
_NAME_CHARS = 253
_DIGEST_CHARS = 16


class Told:
    """What was told of each GPU that was bad, and so what is news.

    A GPU of which nothing is known is no news, whatever was told before.
    """

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}
        self._recalled = False

    def __repr__(self) -> str:
        return f"<Told {sorted(self._troubles)}>"

    def recall(self, gpus: Iterable[Gpu], shown: Mapping[str, Any]) -> None:
        """Once, at the start: what a process before this one told is what the Node's condition
        says of its GPUs. Of those that it only counts, nothing is known: they are told again."""
        if self._recalled:
            return
        self._recalled = True
        message = str(shown.get("message", ""))
        if shown.get("status") != ConditionStatus.FALSE:
            return
        listed = f"{message}; "
        for gpu in gpus:
            if f" {which(gpu)}: " in listed:
                same = f" {trouble(gpu)}; " in listed
                self._troubles[gpu.name] = why(gpu) if same else ""

    def news(self, gpus: Iterable[Gpu]) -> list[Gpu]:
        """The GPUs to tell of: those that are bad, or bad for another reason, the worst first; then
        those that are healthy again."""
        known = {gpu.name: gpu for gpu in gpus}
        for name in set(self._troubles) - set(known):
            # It was withdrawn, which says nothing of its health.
            del self._troubles[name]
        bad = [
            gpu
            for gpu in known.values()
            if gpu.ready is ConditionStatus.FALSE and self._troubles.get(gpu.name) != why(gpu)
        ]
        good = [
            gpu
            for gpu in known.values()
            if gpu.ready is ConditionStatus.TRUE and gpu.name in self._troubles
        ]
        return [*worst_first(bad), *good]

    def tell(self, gpu: Gpu) -> None:
        """It was told, or suppressed: either way it is not news any more."""
        if gpu.ready is ConditionStatus.TRUE:
            del self._troubles[gpu.name]
        else:
            self._troubles[gpu.name] = why(gpu)


class Allowance:
    """So many a minute, as many at once after a quiet time. Times are monotonic seconds."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._most = float(per_minute)
        self._left = self._most
        self._at = now

    def __repr__(self) -> str:
        return f"<Allowance {self._left:.1f} of {self._most:g}>"

    def has_room(self, now: float) -> bool:
        """Whether there may be one more."""
        self._left = min(self._most, self._left + (now - self._at) * self._most / 60)
        self._at = now
        return self._left >= 1

    def take(self) -> None:
        """There was one."""
        self._left -= 1


def event_of(gpu: Gpu, node: str, uid: str, *, now: datetime, suppressed: int) -> dict[str, Any]:
    """The Event that tells how a GPU is. An attempt that is repeated has the same name.

    ``uid`` is the Node's, ``suppressed`` how many were left out before it.
    """
    good = gpu.ready is ConditionStatus.TRUE
    facts = f"{uid}/{gpu.name}/{gpu.metadata.resource_version}/{gpu.ready}"
    digest = hashlib.sha256(facts.encode(errors="replace")).hexdigest()[:_DIGEST_CHARS]
    left_out = f" ({suppressed} Events before this one were suppressed)" if suppressed else ""
    room = MESSAGE_BYTES - len(left_out)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{node[: _NAME_CHARS - _DIGEST_CHARS - 1].rstrip('-.')}.{digest}",
            "namespace": NAMESPACE,
        },
        # Its name for its uid, as the kubelet has it: `kubectl describe node` looks for that, and
        # older ones look for nothing else.
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "type": "Normal" if good else "Warning",
        "reason": "GPUHealthy" if good else "GPUUnhealthy",
        "message": plain(_sentence(gpu), room) + left_out,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node[:128],
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    }


def _sentence(gpu: Gpu) -> str:
    if gpu.ready is ConditionStatus.TRUE:
        return f"{which(gpu)} is healthy again"
    ready = gpu.condition(READY)
    said = ready.message if ready is not None else ""
    return f"{trouble(gpu)}: {said}" if said else trouble(gpu)
