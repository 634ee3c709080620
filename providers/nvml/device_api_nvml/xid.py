"""XIDs, the driver's error codes: what each one means and what it does to a GPU's health.

The table is ``xids.csv``: NVIDIA's XID catalog (Ampere and newer), one row per code that is in
use. ``bucket`` is the catalog's immediate action, ``source`` says whose judgement ``effect`` is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import resources

from device_api_core.actions import CONTACT_SUPPORT
from device_api_core.plugins import InvalidOption


class Effect(StrEnum):
    """What an XID does to NVMLReady."""

    IGNORE = "ignore"
    """Nothing. It is a program's own fault or a consequence of another XID."""
    INFORM = "inform"
    """A warning in the message, and the GPU is looked at once more, at once."""
    FATAL = "fatal"
    """False, until there is evidence that the cause is gone."""


@dataclass(frozen=True, slots=True)
class Xid:
    """One row of the policy. ``boards`` has a letter each for A100, H100, B100, GB200 if the code
    applies there. ``source`` is ``catalog``, ``device-plugin`` (what Kubernetes' NVIDIA device
    plugin ignores), ``device-api`` (our decision), ``default`` (not in the table) or
    ``settings``."""

    code: int
    mnemonic: str
    meaning: str
    category: str
    boards: str
    bucket: str
    action: str
    effect: Effect
    source: str

    @property
    def todo(self) -> str:
        """What a person should do about it, from the catalog's bucket."""
        return _TODO.get(self.bucket, _TODO[""])

    @property
    def reason(self) -> str:
        """The condition's reason: ``Xid79``."""
        return f"Xid{self.code}"

    @property
    def text(self) -> str:
        """``XID 79 MNEMONIC: meaning. To do: …``"""
        return f"XID {self.code} {self.mnemonic}: {self.meaning}. To do: {self.todo}."


_RESET = "drain the GPU and reset it"
_TODO = {
    "": "contact support",
    "IGNORE": "nothing",
    "RESTART_APP": "restart the program that failed",
    "RESET_GPU": _RESET,
    "WORKFLOW_XID_48": _RESET,
    "RESTART_BM": "drain the node and reboot it",
    "RESTART_VM": "restart the virtual machine that has the GPU",
    "CHECK_MECHANICALS": "check seating, power and cables",
    "UPDATE_SWFW": "update driver and firmware",
    "CHECK_UVM": "reset the GPU if UVM or vGPU is in use",
    "WORKFLOW_XID_45": "look for the XID before it; without one, restart the fabric manager",
    "WORKFLOW_NVLINK_ERR": "decode the registers in the kernel log's line",
    "WORKFLOW_NVLINK5_ERR": "decode the kernel log's line; do what the driver recommends",
    "XID_154": "do what the driver recommends",
}


class XidPolicy:
    """The table with an operator's changes. A code listed by the operator has that effect; any
    other code that is not in the table is fatal with CONTACT_SUPPORT."""

    def __init__(
        self,
        ignored: Iterable[int] = (),
        informational: Iterable[int] = (),
        fatal: Iterable[int] = (),
    ) -> None:
        """
        Raises:
            InvalidOption: a code is listed twice or is not a positive number.
        """
        self._rows = {row.code: row for row in builtin_table()}
        changed: dict[int, Effect] = {}
        lists = ((Effect.IGNORE, ignored), (Effect.INFORM, informational), (Effect.FATAL, fatal))
        for effect, codes in lists:
            for code in codes:
                if code < 1:
                    raise InvalidOption(f"XID {code} does not exist; codes are positive numbers")
                if changed.setdefault(code, effect) is not effect:
                    raise InvalidOption(f"XID {code} is listed as {changed[code]} and as {effect}")
        for code, effect in changed.items():
            row = replace(self[code], effect=effect, source="settings")
            self._rows[code] = replace(row, action=row.action or CONTACT_SUPPORT)

    def __getitem__(self, code: int) -> Xid:
        return self._rows.get(code) or _unknown(code)

    @property
    def rows(self) -> tuple[Xid, ...]:
        """All rows by code, then the one for codes that are not in the table (code 0)."""
        return (*sorted(self._rows.values(), key=lambda row: row.code), _unknown(0))


def _unknown(code: int) -> Xid:
    # Everything published treats an unlisted code as a fault. Not knowing a code is no evidence of
    # health: a wrong False costs somebody a look, a wrong True somebody's results.
    return Xid(
        code=code,
        mnemonic="UNKNOWN",
        meaning="not in the XID catalog that this version knows",
        category="unknown",
        boards="",
        bucket="",
        action=CONTACT_SUPPORT,
        effect=Effect.FATAL,
        source="default",
    )


def builtin_table() -> tuple[Xid, ...]:
    """The packaged table, in order of code."""
    with (resources.files(__package__) / "xids.csv").open(encoding="utf-8") as file:
        return tuple(
            Xid(
                code=int(row["code"]),
                mnemonic=row["mnemonic"],
                meaning=row["meaning"],
                category=row["category"],
                boards=row["boards"],
                bucket=row["bucket"],
                action=row["action"] or (CONTACT_SUPPORT if row["effect"] == "fatal" else ""),
                effect=Effect(row["effect"]),
                source=row["source"],
            )
            for row in csv.DictReader(file)
        )
