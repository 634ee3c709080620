"""The options of the NVML provider: the table ``[providers.nvml]`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from device_api_core.plugins import InvalidOption


@dataclass(frozen=True, slots=True)
class NvmlOptions:
    """Every field has a default that suits a node.

    Raises:
        InvalidOption: a time is not above zero.
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

    def __post_init__(self) -> None:
        for name in ("poll_seconds", "call_seconds", "retry_seconds", "notice_seconds"):
            if getattr(self, name) <= 0:
                raise InvalidOption(f"option {name!r} must be above zero")
