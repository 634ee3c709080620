"""GPUs, for asyncio. This is all that is particular to GPUs here."""

from __future__ import annotations

from device_api_core.client.aio.endpoint import AsyncCaller
from device_api_core.client.aio.informer import AsyncSharedInformer
from device_api_core.client.aio.reads import AsyncReads
from device_api_core.client.gpus import GPUS, GpuEvent, GpuList, GpuLister
from device_api_core.resources import Gpu


class AsyncGpus(AsyncReads[Gpu, GpuList, GpuEvent]):
    """The calls of ``GpuService``."""

    def __init__(self, caller: AsyncCaller) -> None:
        super().__init__(caller, GPUS)


class AsyncGpuInformer(AsyncSharedInformer[Gpu]):
    """A shared informer of GPUs: ``AsyncGpuInformer(clients.v1alpha1.gpus)``."""

    @property
    def lister(self) -> GpuLister:
        """Reads of the store."""
        return GpuLister(self.state)
