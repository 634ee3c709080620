"""What providers write, for asyncio; what it means, and what is repeated, is told in
:mod:`device_api_core.client.providers`."""

from __future__ import annotations

from collections.abc import Iterable

from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.providers import (
    Life,
    Registration,
    heartbeat,
    register,
    unregister,
    update_condition,
    update_status,
)
from device_api_core.resources import Condition, GpuSpec, GpuStatus
from device_api_core.series import Numbers


class AsyncProviders:
    """Writes, as one provider or several. ``provider_id`` ``""`` is the anonymous one."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def register(
        self,
        name: str,
        spec: GpuSpec | None = None,
        *,
        provider_id: str = "",
        initial_status: GpuStatus | None = None,
        timeout_seconds: float | None = None,
    ) -> Registration:
        """Make a GPU known, or merge the set fields of ``spec`` into a known one."""
        call = register(name, spec, provider_id, initial_status)
        return await self._caller.call(call, timeout_seconds)

    async def unregister(
        self, name: str, *, provider_id: str = "", timeout_seconds: float | None = None
    ) -> bool:
        """Withdraw this provider from a GPU; without a provider id, remove the GPU whole. Returns
        whether the GPU is gone by this call."""
        return await self._caller.call(unregister(name, provider_id), timeout_seconds)

    async def update_status(
        self,
        name: str,
        status: GpuStatus,
        *,
        provider_id: str = "",
        timeout_seconds: float | None = None,
    ) -> int:
        """Replace all conditions and the action of this provider. Returns the GPU's version."""
        return await self._caller.call(update_status(name, status, provider_id), timeout_seconds)

    async def update_condition(
        self,
        name: str,
        condition: Condition,
        *,
        provider_id: str = "",
        recommended_action: str | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """Set one condition, and unless it is ``None`` the action. Returns the GPU's version."""
        call = update_condition(name, condition, provider_id, recommended_action)
        return await self._caller.call(call, timeout_seconds)

    async def heartbeat(
        self,
        provider_id: str,
        gpu_names: Iterable[str] = (),
        *,
        synced: bool | None = None,
        summary: str = "",
        interval_seconds: float | None = None,
        numbers: Numbers | None = None,
        timeout_seconds: float | None = None,
    ) -> bool:
        """Say that the provider lives. ``False`` means: register and report again."""
        life = Life(synced, summary, interval_seconds, numbers)
        call = heartbeat(provider_id, gpu_names, life)
        return await self._caller.call(call, timeout_seconds)
