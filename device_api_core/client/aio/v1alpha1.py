"""The group ``nvidia.device.v1alpha1``, for asyncio."""

from __future__ import annotations

from device_api_core.client.aio._generated.v1alpha1 import AsyncV1Alpha1Kinds
from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.aio.providers import AsyncProviders


class AsyncV1Alpha1(AsyncV1Alpha1Kinds):
    """``gpus`` and every other kind on the consumers' endpoint, ``providers`` on the providers'."""

    def __init__(self, consumers: AsyncCaller, providers: AsyncCaller) -> None:
        super().__init__(consumers)
        self.providers = AsyncProviders(providers)
