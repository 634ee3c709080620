"""The group ``nvidia.device.v1alpha1``: reading GPUs, and reporting on them."""

from __future__ import annotations

from device_api_core.client.endpoint import Caller
from device_api_core.client.gpus import GpuList, Gpus
from device_api_core.client.providers import Providers, Registration

__all__ = ["GpuList", "Gpus", "Providers", "Registration", "V1Alpha1"]


class V1Alpha1:
    """``gpus`` on the consumers' endpoint, ``providers`` on the providers' one."""

    def __init__(self, consumers: Caller, providers: Caller) -> None:
        self.gpus = Gpus(consumers)
        self.providers = Providers(providers)
