"""The group ``nvidia.device.v1alpha1``: reading devices, and reporting on them."""

from __future__ import annotations

from device_api_core.client._generated import GpuList, Gpus
from device_api_core.client._generated.v1alpha1 import V1Alpha1Kinds
from device_api_core.client.endpoint import Caller
from device_api_core.client.providers import Providers, Registration

__all__ = ["GpuList", "Gpus", "Providers", "Registration", "V1Alpha1"]


class V1Alpha1(V1Alpha1Kinds):
    """``gpus`` and every other kind on the consumers' endpoint, ``providers`` on the providers'."""

    def __init__(self, consumers: Caller, providers: Caller) -> None:
        super().__init__(consumers)
        self.providers = Providers(providers)
