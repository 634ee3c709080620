"""By what GPUs are looked up besides their name and their health."""

from __future__ import annotations

from collections.abc import Mapping

from device_api_core.client.indexers import Indexer
from device_api_core.client.lister import DeviceLister
from device_api_core.resources import Gpu

BY_UUID = "uuid"
BY_PCI_BUS_ID = "pci_bus_id"


def normal_pci_bus_id(text: str) -> str:
    """A PCI address as ``spec.pci_bus_id`` spells it: lower case, a domain of four digits. NVML
    writes eight digits and capitals, ``lspci`` leaves out a domain of zero."""
    parts = text.strip().lower().split(":")
    if len(parts) == 2:
        parts.insert(0, "0")
    domain, *rest = parts
    return ":".join((domain.lstrip("0").rjust(4, "0"), *rest))


INDEXERS: Mapping[str, Indexer[Gpu]] = {
    BY_UUID: Indexer(lambda gpu: [gpu.spec.uuid], str.casefold),
    BY_PCI_BUS_ID: Indexer(
        lambda gpu: [gpu.spec.pci_bus_id] if gpu.spec.pci_bus_id else [], normal_pci_bus_id
    ),
}


class GpuListerExpansion(DeviceLister[Gpu]):
    """Lookups by the indexes above."""

    def by_uuid(self, uuid: str) -> Gpu | None:
        """The GPU with that uuid, in any case of letters."""
        return next(iter(self.by_index(BY_UUID, uuid)), None)

    def by_pci_bus_id(self, address: str) -> Gpu | None:
        """The GPU at that PCI address, in any usual spelling."""
        return next(iter(self.by_index(BY_PCI_BUS_ID, address)), None)
