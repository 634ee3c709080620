"""The operator's calls, for asyncio; see :mod:`device_api_core.client.admin`."""

from __future__ import annotations

from device_api_core.client import admin
from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.operations import Event, Forgotten, ProviderList


class AsyncAdmin:
    """What an operator may ask and do. Served on the providers' socket only."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def list_providers(self) -> ProviderList:
        """Every provider that is installed, runs or has reported, and the server's own state."""
        return await self._caller.call(admin.list_providers())

    async def clear_condition(self, gpu_name: str, type: str) -> int:
        """Take back a condition that is False or Unknown. Returns the GPU's version."""
        return await self._caller.call(admin.clear_condition(gpu_name, type))

    async def forget_provider(self, provider_id: str) -> Forgotten:
        """Remove all that a provider left behind."""
        return await self._caller.call(admin.forget_provider(provider_id))

    async def forget_gpu(self, name: str) -> bool:
        """Remove a GPU with all that was said of it. Returns whether it existed."""
        return await self._caller.call(admin.forget_gpu(name))

    async def list_events(
        self, *, gpu_name: str = "", provider_id: str = "", limit: int = 0
    ) -> tuple[Event, ...]:
        """The events that the server keeps, oldest first; at most the ``limit`` newest ones."""
        return await self._caller.call(admin.list_events(gpu_name, provider_id, limit))
