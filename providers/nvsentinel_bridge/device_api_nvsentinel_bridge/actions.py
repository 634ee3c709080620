"""Which of several recommended actions stands."""

from __future__ import annotations

from device_api_core.actions import action_strength


def stronger(old: str, new: str) -> str:
    """The stronger of two actions; the newer one if they are equal. Contacting support and free
    text are the weakest that are any."""
    return new if action_strength(new) >= action_strength(old) else old
