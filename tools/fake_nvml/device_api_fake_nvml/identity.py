"""What names a GPU. The same seed gives the same names."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("8d6f2f54-6f2a-5c0e-9a53-6e6f64650001")
# Where an eight-GPU board puts its GPUs, then further buses for larger nodes.
_BUSES = (0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF)
_MORE_BUSES = (0x24, 0x3A, 0x4B, 0x6A, 0xA6, 0xB2, 0xCA, 0xE8)


@dataclass(frozen=True)
class Identity:
    uuid: str
    serial: str
    bus_id: str


@dataclass(frozen=True)
class Gpu:
    """`number` is the GPU's place in the node, for life; `index` is what NVML calls it now."""

    number: int
    index: int | None
    uuid: str
    name: str
    serial: str
    bus_id: str
    lost: int

    @property
    def enumerated(self) -> bool:
        return self.index is not None


def gpu_identity(seed: str, gpu: int, board: int = 0) -> Identity:
    """`board` counts the replacements of the GPU in this place."""
    unique = uuid.uuid5(_NAMESPACE, f"{seed}/gpu/{gpu}/{board}")
    return Identity(
        uuid=f"GPU-{unique}",
        serial=f"16{unique.int % 10**11:011d}",
        bus_id=f"00000000:{(_BUSES + _MORE_BUSES)[gpu]:02X}:00.0",
    )


def mig_uuid(gpu_uuid: str, gpu_instance: int, compute_instance: int) -> str:
    return f"MIG-{uuid.uuid5(_NAMESPACE, f'{gpu_uuid}/{gpu_instance}/{compute_instance}')}"


def cluster_uuid(seed: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, f"{seed}/cluster")
