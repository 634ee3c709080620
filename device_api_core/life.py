"""What a provider's heartbeat says."""

from __future__ import annotations

from typing import NamedTuple

from device_api_core.series import Numbers


class Life(NamedTuple):
    """What a heartbeat says besides being one. ``synced`` is ``None`` if it does not say;
    ``interval_seconds`` is the longest time the provider means to be silent; ``numbers`` are
    unchanged if ``None``."""

    synced: bool | None = None
    summary: str = ""
    interval_seconds: float | None = None
    numbers: Numbers | None = None
