"""The GPUs that the server has during a benchmark, and the requests about them."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Protocol

from benchmarks.processes import LoadClient
from device_api_core._proto import gpu_pb2, provider_pb2

GPUS = 8
MOST_GPUS = 72
ALL_GPUS = 1_024
"""As many as a server takes."""
PROVIDER = "benchmark"
TYPES = ("MemoryHealthy", "NVLinkHealthy", "NVMLReady", "ThermalHealthy")

GET = "/nvidia.device.v1alpha1.GpuService/GetGpu"
REGISTER = "/nvidia.device.v1alpha1.ProviderService/RegisterGpu"
UPDATE = "/nvidia.device.v1alpha1.ProviderService/UpdateGpuCondition"

_NAMES = [f"gpu-{number:08x}-5b1c-4e0f-9a36-7d2f8c4e1b05" for number in range(ALL_GPUS)]


class Writable(Protocol):
    """A server that takes providers' calls."""

    provider_target: str


def populate(load: LoadClient, server: Writable, gpus: int = GPUS, beyond: int = 0) -> None:
    """Register GPUs with four conditions each, ``beyond`` those that are there."""
    for number, name in islice(enumerate(_NAMES), beyond, gpus):
        load.ask("once", target=server.provider_target, method=REGISTER, request=_register(number))
        for type_ in TYPES:
            request = _update(name, type_, "True", "Healthy")
            load.ask("once", target=server.provider_target, method=UPDATE, request=request)


def uuid(number: int) -> str:
    """As the driver tells it."""
    return _NAMES[number].replace("gpu", "GPU")


def get(gpus: int = GPUS) -> list[bytes]:
    """Reads of each GPU in turn."""
    return [gpu_pb2.GetGpuRequest(name=name).SerializeToString() for name in _NAMES[:gpus]]


def toggles() -> list[bytes]:
    """Writes that turn the same condition of each GPU in turn False, then True again: each one
    changes a status, Ready and an object, and is an event."""
    return [
        _update(name, TYPES[0], status, reason)
        for status, reason in (("False", "EccErrors"), ("True", "Healthy"))
        for name in _NAMES[:GPUS]
    ]


def numbered(count: int) -> list[bytes]:
    """Writes to each GPU in turn, of which no two are the same: each is an event, in whatever order
    they arrive."""
    return [
        _update(_NAMES[number % GPUS], TYPES[0], status, f"Number{number}")
        for number, status in zip(range(count), cycle((*["False"] * GPUS, *["True"] * GPUS)))
    ]


def rewordings() -> list[bytes]:
    """Writes that change the reason of the same condition of each GPU in turn."""
    return [
        _update(name, TYPES[0], "True", word) for word in ("Good", "Well") for name in _NAMES[:GPUS]
    ]


def _register(number: int) -> bytes:
    return provider_pb2.RegisterGpuRequest(
        name=_NAMES[number],
        provider_id=PROVIDER,
        spec=gpu_pb2.GpuSpec(
            uuid=uuid(number),
            index=number,
            minor=number,
            pci_bus_id=f"{number // MOST_GPUS:04x}:{0x1B + number % MOST_GPUS:02x}:00.0",
            product_name="NVIDIA H100 80GB HBM3",
            architecture="hopper",
            memory_bytes=85_520_809_984,
            serial=f"165{number:010}",
            mig_mode="disabled",
        ),
    ).SerializeToString()


def _update(name: str, type_: str, status: str, reason: str) -> bytes:
    return provider_pb2.UpdateGpuConditionRequest(
        name=name,
        provider_id=PROVIDER,
        condition=gpu_pb2.Condition(
            type=type_, status=status, reason=reason, message="what the last look at it has shown"
        ),
    ).SerializeToString()
