"""The options of the NVML provider: the table ``[providers.nvml]`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from device_api_core.plugins import InvalidOption

_ABOVE_ZERO = (
    "poll_seconds",
    "call_seconds",
    "retry_seconds",
    "notice_seconds",
    "burst_seconds",
    "hold_seconds",
    "relapse_seconds",
    "rare_seconds",
    "pcie_replays_per_minute",
    "nvlink_errors_per_second",
)


@dataclass(frozen=True, slots=True)
class NvmlOptions:
    """Every field has a default that suits a node.

    Raises:
        InvalidOption: a time or rate is not above zero, or a word is not one of those allowed.
    """

    driver_root: str = ""
    """Directory below which the driver's files lie, ``/run/nvidia/driver`` for a driver container.
    Tried first; if it holds no library, or if it is empty, the dynamic linker is asked."""

    health_check: bool = True
    """Watch XID events. Without it GPUs are registered and probed, no more."""

    ignored_xids: tuple[int, ...] = ()
    """XIDs that shall have no effect."""

    informational_xids: tuple[int, ...] = ()
    """XIDs that shall only be a warning in the message."""

    fatal_xids: tuple[int, ...] = ()
    """XIDs that shall make the GPU not ready."""

    poll_seconds: float = 5.0
    """Time between two looks at every GPU: is it there, does it answer, what does the driver
    recommend. XID events do not wait for it."""

    call_seconds: float = 10.0
    """After this time without an answer a GPU, or the driver, counts as unresponsive."""

    retry_seconds: float = 30.0
    """The longest pause between two attempts to reach a missing driver, or to watch events."""

    notice_seconds: float = 3600.0
    """How long the warning of an informational XID stays in the message."""

    burst_seconds: float = 60.0
    """For so long after a fatal XID others belong to its story."""

    hold_seconds: float = 60.0
    """For so long every look has to be good before a fault is over."""

    relapse_seconds: float = 3600.0
    """A fault within this time after a recovery is a relapse: the hold doubles, up to this time."""

    rare_seconds: float = 30.0
    """Time between two looks at what is expensive to read: NVLinks, spare rows, fabric."""

    row_remap_pending: str = "warn"
    """A row remap or repair that waits for a reset: ``warn``, or ``fault`` to be not healthy."""

    thermal_seconds: float = 30.0
    """A hardware slowdown that lasts so long is a fault."""

    thermal_margin_celsius: float = 0.0
    """At this distance to the thermal limit, or below, there is a warning."""

    power_seconds: float = 30.0
    """A power brake that lasts so long is a fault."""

    pcie_seconds: float = 60.0
    """A narrow PCIe link, or too many replays, for so long are a fault."""

    pcie_replays_per_minute: float = 100.0
    """More PCIe replays than this are too many."""

    nvlink_errors_per_second: float = 100.0
    """More errors than this on one NVLink are a fault, a tenth of it is a warning."""

    fabric_seconds: float = 300.0
    """A GPU that has not joined its NVLink fabric after this time has a fault."""

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            if getattr(self, name) <= 0:
                raise InvalidOption(f"option {name!r} must be above zero")
        if self.row_remap_pending not in ("warn", "fault"):
            raise InvalidOption("option 'row_remap_pending' must be 'warn' or 'fault'")
