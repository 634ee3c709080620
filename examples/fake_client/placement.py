"""A small consumer, as the code under test: chooses the GPUs of a job."""

from __future__ import annotations

from device_api_core.client import GpuInformer, is_healthy


class NotEnoughGpus(Exception):
    """Fewer GPUs are proven healthy than the job needs."""


def place(informer: GpuInformer, count: int, *, max_age_seconds: float = 30.0) -> list[str]:
    """The names of so many healthy GPUs. Raises ``NotEnoughGpus``, also if what is known is old."""
    if informer.is_stale(max_age_seconds):
        raise NotEnoughGpus("nothing was heard from the Device API for too long")
    healthy = [gpu.name for gpu in informer.lister.list() if is_healthy(gpu)]
    if len(healthy) < count:
        raise NotEnoughGpus(f"{len(healthy)} GPUs are healthy, {count} are needed")
    return healthy[:count]
