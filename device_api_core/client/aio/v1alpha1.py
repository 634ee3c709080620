"""The group ``nvidia.device.v1alpha1``, for asyncio."""

from __future__ import annotations

from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.aio.gpus import AsyncGpus
from device_api_core.client.aio.providers import AsyncProviders


class AsyncV1Alpha1:
    """``gpus`` on the consumers' endpoint, ``providers`` on the providers' one."""

    def __init__(self, consumers: AsyncCaller, providers: AsyncCaller) -> None:
        self.gpus = AsyncGpus(consumers)
        self.providers = AsyncProviders(providers)
