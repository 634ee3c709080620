"""Recommended actions: the names that providers share, and which is the stronger of two.

The names are NVSentinel's. A stronger action includes what a weaker one achieves.
"""

from __future__ import annotations

CONTACT_SUPPORT = "CONTACT_SUPPORT"
COMPONENT_RESET = "COMPONENT_RESET"
RESTART_VM = "RESTART_VM"
RESTART_BM = "RESTART_BM"

_STRENGTH = {
    RESTART_BM: 6,
    "REPLACE_VM": 5,
    RESTART_VM: 4,
    COMPONENT_RESET: 3,
    "RUN_FIELDDIAG": 2,
    "RUN_DCGMEUD": 2,
}


def action_strength(action: str) -> int:
    """Rank of a recommended action: 0 for none, 1 for CONTACT_SUPPORT, CUSTOM and free text, up
    to 6 for RESTART_BM."""
    if action in {"", "NONE"}:
        return 0
    return _STRENGTH.get(action, 1)
