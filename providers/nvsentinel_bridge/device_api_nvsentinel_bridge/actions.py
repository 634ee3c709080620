"""What somebody should do: names, and which of several is the strongest."""

from __future__ import annotations

_STRENGTH = {
    "": 0,
    "RESTART_BM": 6,
    "REPLACE_VM": 5,
    "RESTART_VM": 4,
    "COMPONENT_RESET": 3,
    "RUN_FIELDDIAG": 2,
    "RUN_DCGMEUD": 2,
}


def stronger(old: str, new: str) -> str:
    """The stronger of two actions; the newer one if they are equal. Contacting support and free
    text are the weakest that are any."""
    return new if _STRENGTH.get(new, 1) >= _STRENGTH.get(old, 1) else old
