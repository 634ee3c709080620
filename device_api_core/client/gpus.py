"""GPUs: the kind, its values, its calls, its informer and its lister.

This is all that is particular to GPUs; see :mod:`device_api_core.client.kinds` for the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from device_api_core._proto import gpu_pb2 as pb
from device_api_core.client.convert import as_json, gpu_from_proto, gpu_to_proto
from device_api_core.client.endpoint import Caller
from device_api_core.client.indexers import Indexer
from device_api_core.client.informer import SharedInformer
from device_api_core.client.kinds import Kind, ResourceList
from device_api_core.client.lister import Lister
from device_api_core.client.reads import Reads
from device_api_core.client.watch import WatchEvent
from device_api_core.resources import ConditionStatus, Gpu


@dataclass(frozen=True, slots=True)
class GpuList(ResourceList[Gpu]):
    """A snapshot of all GPUs. A watch from ``resource_version`` continues it without a gap."""

    def as_json(self) -> dict[str, Any]:
        """The list in the API's JSON form; ``items`` is there even if it is empty."""
        message = pb.GpuList(
            metadata=pb.ListMeta(resource_version=str(self.resource_version)),
            items=[gpu_to_proto(gpu) for gpu in self.items],
        )
        return {"metadata": {}, "items": [], **as_json(message)}


@dataclass(frozen=True, slots=True)
class GpuEvent(WatchEvent[Gpu]):
    """One event of a GPU."""

    @property
    def gpu(self) -> Gpu:
        """The same as ``object``."""
        return self.object


def normal_pci_bus_id(text: str) -> str:
    """A PCI address as ``spec.pci_bus_id`` spells it: lower case, a domain of four digits. NVML
    writes eight digits and capitals, ``lspci`` leaves out a domain of zero."""
    parts = text.strip().lower().split(":")
    if len(parts) == 2:
        parts.insert(0, "0")
    domain, *rest = parts
    return ":".join((domain.lstrip("0").rjust(4, "0"), *rest))


BY_UUID = "uuid"
BY_PCI_BUS_ID = "pci_bus_id"
BY_READY = "ready"
"""The indexes that every GPU informer has."""

GPUS: Kind[Gpu, GpuList, GpuEvent] = Kind(
    "gpu",
    pb.DESCRIPTOR.services_by_name["GpuService"],
    gpu_from_proto,
    GpuList,
    GpuEvent,
    {
        BY_UUID: Indexer(lambda gpu: [gpu.spec.uuid], str.casefold),
        BY_PCI_BUS_ID: Indexer(
            lambda gpu: [gpu.spec.pci_bus_id] if gpu.spec.pci_bus_id else [], normal_pci_bus_id
        ),
        BY_READY: Indexer(lambda gpu: [gpu.ready.value]),
    },
)


class Gpus(Reads[Gpu, GpuList, GpuEvent]):
    """The calls of ``GpuService``."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, GPUS)

    def list(self, *, provider_id: str = "", timeout_seconds: float | None = None) -> GpuList:
        """All GPUs, sorted by name. A provider that names itself does not wait for an update that
        it holds, nor on the providers' socket for the server to become ready."""
        return self.caller.call(GPUS.list(provider_id=provider_id), timeout_seconds)


class GpuLister(Lister[Gpu]):
    """Reads of a GPU informer's store."""

    def by_uuid(self, uuid: str) -> Gpu | None:
        """The GPU with that uuid, in any case of letters."""
        return next(iter(self.by_index(BY_UUID, uuid)), None)

    def by_pci_bus_id(self, address: str) -> Gpu | None:
        """The GPU at that PCI address, in any usual spelling."""
        return next(iter(self.by_index(BY_PCI_BUS_ID, address)), None)

    def by_ready(self, status: ConditionStatus) -> tuple[Gpu, ...]:
        """The GPUs whose computed Ready is that, sorted by name."""
        return self.by_index(BY_READY, status.value)


class GpuInformer(SharedInformer[Gpu]):
    """A shared informer of GPUs: ``GpuInformer(clients.v1alpha1.gpus)``."""

    @property
    def lister(self) -> GpuLister:
        """Reads of the store."""
        return GpuLister(self.state)
