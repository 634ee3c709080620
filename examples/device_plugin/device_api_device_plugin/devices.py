"""What is advertised: the GPUs of the Device API, as a kubelet sees devices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from device_api_core.client import AsyncGpuInformer, is_healthy
from device_api_core.resources import READY, Gpu

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often the age of what is known is looked at; nothing announces that it grew too old."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that can be handed out. ``id`` is its UUID, ``reason`` why it is not healthy."""

    id: str
    healthy: bool
    reason: str = ""


def device_of(gpu: Gpu) -> Device:
    """The GPU as a device. Only a Ready that is True is healthy: Unknown is nobody's word."""
    if is_healthy(gpu):
        return Device(gpu.spec.uuid, healthy=True)
    ready = gpu.condition(READY)
    said = f"{ready.reason}: {ready.message}".strip(": ") if ready else ""
    return Device(gpu.spec.uuid, healthy=False, reason=said or f"Ready is {gpu.ready}")


def devices_of(gpus: Iterable[Gpu]) -> tuple[Device, ...]:
    """The devices among the GPUs. One without a UUID is none: no runtime could be told of it."""
    return tuple(device_of(gpu) for gpu in gpus if gpu.spec.uuid)


class Inventory:
    """The devices as they are to be advertised, kept up to date by the informer.

    ``max_age_seconds`` is how old the informer's store may be for a device to be healthy.
    """

    def __init__(self, informer: AsyncGpuInformer, max_age_seconds: float) -> None:
        self._informer = informer
        self._max_age_seconds = max_age_seconds
        self._changed = asyncio.Event()
        self._closed = False
        self.devices: tuple[Device, ...] = ()

    async def follow(self) -> None:
        """Look again whenever a GPU changes or time passes, until cancelled. The informer has to be
        synced: an empty node would be advertised otherwise."""
        self._informer.add_handler(
            on_add=lambda gpu: self.look(),
            on_update=lambda old, new: self.look(),
            on_delete=lambda gpu: self.look(),
        )
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take over what the informer knows, and tell every stream if that is a change."""
        devices = self._known()
        if devices == self.devices:
            return
        before = {device.id: device for device in self.devices}
        for device in devices:
            _log(before.pop(device.id, None), device)
        for device in before.values():
            logger.warning("device gone", extra={"device": device.id})
        self.devices = devices
        self._wake()

    async def changes(self) -> AsyncIterator[tuple[Device, ...]]:
        """The devices now and after every change, until :meth:`close`."""
        seen: tuple[Device, ...] | None = None
        while not self._closed:
            changed = self._changed
            if self.devices is not seen:
                seen = self.devices
                yield seen
            else:
                await changed.wait()

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._wake()

    def _known(self) -> tuple[Device, ...]:
        devices = devices_of(self._informer.lister.list())
        if not self._informer.is_stale(self._max_age_seconds):
            return devices
        reason = f"nothing heard from the Device API for {self._max_age_seconds:g} s"
        return tuple(
            Device(d.id, healthy=False, reason=reason) if d.healthy else d for d in devices
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _log(before: Device | None, now: Device) -> None:
    if before is not None and before.healthy == now.healthy:
        return
    if now.healthy:
        logger.info("device healthy", extra={"device": now.id})
    else:
        logger.warning("device unhealthy", extra={"device": now.id, "reason": now.reason})
