"""The driver's recovery action (field 230) in the names of recommended actions."""

from __future__ import annotations

from typing import NamedTuple

from device_api_core.actions import COMPONENT_RESET, CONTACT_SUPPORT, RESTART_BM


class Recovery(NamedTuple):
    """A value of field 230: the driver's wish in words, and the action that fulfils it."""

    wish: str
    action: str


NOTHING_TO_DO = 0

ACTIONS = {
    1: Recovery("a GPU reset", COMPONENT_RESET),
    2: Recovery("a reboot of the node", RESTART_BM),
    3: Recovery("that peer-to-peer users are drained", COMPONENT_RESET),
    4: Recovery("that the GPU is drained and reset", COMPONENT_RESET),
    5: Recovery("a recovery of the IMEX domain", CONTACT_SUPPORT),
    6: Recovery("a bus reset", COMPONENT_RESET),
    7: Recovery("a reboot of the system", RESTART_BM),
}
"""Field 230 except 0. Values 6 and 7 are newer than the header of CUDA 13.3."""


def recovery(value: int) -> Recovery:
    """What a value of field 230 other than 0 asks for; an unlisted one asks for support."""
    return ACTIONS.get(value) or Recovery(f"recovery action {value}", CONTACT_SUPPORT)
