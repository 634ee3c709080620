"""The resources of the API as immutable values: Gpu, GpuSpec, GpuStatus, Condition, ObjectMeta.

They mirror the messages of ``proto/nvidia/device/v1alpha1/gpu.proto``. All of them are frozen and
hold only immutable values, so one object may be shared by the cache, every reader and every
thread. Times are integers: nanoseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

READY = "Ready"
"""The condition type that the server computes from all the others."""


class ConditionStatus(StrEnum):
    """Whether a condition holds. ``TRUE`` is good for every type."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of a GPU's health, as one provider sees it.

    ``type`` is CamelCase, optionally with a domain prefix (``MemoryHealthy``,
    ``example.com/FanHealthy``). ``reason`` is a CamelCase word for programs, ``message`` a
    sentence for people. ``last_transition_time`` is in nanoseconds since the Unix epoch and moves
    only when ``status`` changes; ``None`` lets the server choose it. ``provider_id`` names the
    owner and is filled in by the server.
    """

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    last_transition_time: int | None = None
    provider_id: str = ""

    @property
    def last_transition(self) -> datetime | None:
        """``last_transition_time`` as an aware datetime (microsecond precision), or ``None``."""
        if self.last_transition_time is None:
            return None
        # Not through a float, which rounds and cannot express the last microsecond of year 9999.
        return _EPOCH + timedelta(microseconds=self.last_transition_time // 1_000)


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """What a GPU is. Empty strings and ``None`` mean "not said".

    ``uuid`` keeps the driver's spelling (``GPU-`` and 8-4-4-4-12 hex digits). ``index`` is NVML's
    index and ``minor`` the N of ``/dev/nvidiaN``. ``pci_bus_id`` is lower-case
    ``domain:bus:device.function`` with a four-digit domain (``0000:1b:00.0``). ``memory_bytes`` is
    the total frame buffer. ``mig_mode`` is ``enabled``, ``disabled`` or empty where the board has
    no MIG.
    """

    uuid: str = ""
    index: int | None = None
    minor: int | None = None
    pci_bus_id: str = ""
    product_name: str = ""
    architecture: str = ""
    memory_bytes: int | None = None
    serial: str = ""
    mig_mode: str = ""


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """How a GPU is: its conditions, and what an operator should do about it (``""`` = nothing)."""

    conditions: tuple[Condition, ...] = ()
    recommended_action: str = ""


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """Name and version. ``resource_version`` is the server-wide counter's value at the object's
    last change; 0 means "never stored"."""

    name: str
    resource_version: int = 0
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as the API shows it."""

    metadata: ObjectMeta
    spec: GpuSpec = field(default_factory=GpuSpec)
    status: GpuStatus = field(default_factory=GpuStatus)

    @property
    def name(self) -> str:
        """Shorthand for ``metadata.name``."""
        return self.metadata.name

    def condition(self, type: str) -> Condition | None:
        """The condition of that type, or ``None``."""
        return next((c for c in self.status.conditions if c.type == type), None)

    @property
    def ready(self) -> ConditionStatus:
        """Status of the computed Ready condition; Unknown if the GPU carries none."""
        ready = self.condition(READY)
        return ConditionStatus.UNKNOWN if ready is None else ready.status
