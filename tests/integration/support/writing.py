"""What providers do, through the client."""

from __future__ import annotations

from device_api_core.client import Clientset
from device_api_core.resources import Condition, ConditionStatus, GpuStatus


def report(clients: Clientset, provider_id: str, gpu: str) -> None:
    status = GpuStatus((Condition("FanHealthy", ConditionStatus.TRUE),))
    clients.v1alpha1.providers.register(gpu, provider_id=provider_id, initial_status=status)
