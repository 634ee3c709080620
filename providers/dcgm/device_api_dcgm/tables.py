"""What codes mean: DCGM's health codes, XIDs and recovery actions, and what to do about each.

``codes.csv`` has DCGM's ``DCGM_FR_`` codes with the action that NVSentinel's chart gives them;
``clears`` says what ends the fault: ``pass`` (the watch passes again) or ``reset`` (a reset of the
GPU that was seen, since an XID or ECC error is behind it). ``xids.csv`` has NVIDIA's XID catalog;
``source`` says whose judgement the effect is. Codes in neither table ask for support.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import resources
from typing import NamedTuple

from device_api_core.actions import COMPONENT_RESET, CONTACT_SUPPORT, RESTART_BM
from device_api_core.plugins import InvalidOption

PREFIX = "DCGM_FR_"
_MAX_REASON = 100


class Recovery(NamedTuple):
    """A value of the driver's recovery action: the condition's reason, what it asks for in words,
    the action that does it."""

    reason: str
    wish: str
    action: str


RECOVERIES = {
    1: Recovery("GpuResetRequired", "a GPU reset", COMPONENT_RESET),
    2: Recovery("NodeRebootRequired", "a reboot of the node", RESTART_BM),
    3: Recovery("DrainRequired", "that peer-to-peer users are drained", COMPONENT_RESET),
    4: Recovery("DrainAndResetRequired", "that the GPU is drained and reset", COMPONENT_RESET),
    5: Recovery("ImexRecoveryRequired", "a recovery of the IMEX domain", CONTACT_SUPPORT),
    6: Recovery("BusResetRequired", "a bus reset", COMPONENT_RESET),
    7: Recovery("SystemRebootRequired", "a reboot of the system", RESTART_BM),
}
"""The recovery action of NVML and of DCGM field 1523, except 0, which is none."""


def recovery(value: int) -> Recovery:
    """What a value other than 0 asks for."""
    unlisted = Recovery(f"RecoveryAction{value}", f"recovery action {value}", CONTACT_SUPPORT)
    return RECOVERIES.get(value, unlisted)


@dataclass(frozen=True, slots=True)
class Code:
    """A ``DCGM_FR_`` code. ``latches``: only a reset that was seen ends it."""

    name: str
    action: str
    latches: bool
    source: str

    @property
    def reason(self) -> str:
        """The condition's reason: ``VolatileDbeDetected``."""
        words = re.findall(r"[A-Za-z0-9]+", self.name)
        return "".join(word.capitalize() for word in words)[:_MAX_REASON] or "NoCode"


class Codes:
    """The table of DCGM's health codes."""

    def __init__(self) -> None:
        self.rows = tuple(
            Code(row["code"], row["action"], row["clears"] == "reset", row["source"])
            for row in _rows("codes.csv")
        )
        self._by_name = {row.name: row for row in self.rows}
        self._by_reason = {row.reason: row for row in self.rows}

    def __getitem__(self, code: str) -> Code:
        name = code.removeprefix(PREFIX)
        return self._by_name.get(name) or Code(name, CONTACT_SUPPORT, False, "default")

    def by_reason(self, reason: str) -> Code:
        """The code that a condition's reason was made of."""
        return self._by_reason.get(reason) or Code(reason, CONTACT_SUPPORT, False, "default")


class Effect(StrEnum):
    """What an XID does to DCGMHealth."""

    IGNORE = "ignore"
    """Nothing: a program's own fault, or a consequence of another XID."""
    INFORM = "inform"
    """It is mentioned in the message."""
    FATAL = "fatal"
    """False, until there is evidence that the cause is gone."""


@dataclass(frozen=True, slots=True)
class Xid:
    """One row of the policy. ``source`` is ``catalog``, ``device-plugin`` (what Kubernetes' NVIDIA
    device plugin ignores), ``device-api`` (our decision), ``default`` (in no table) or
    ``settings``."""

    code: int
    meaning: str
    effect: Effect
    action: str
    source: str

    @property
    def reason(self) -> str:
        """The condition's reason: ``Xid79``."""
        return f"Xid{self.code}"

    @property
    def text(self) -> str:
        """``XID 79: meaning``"""
        return f"XID {self.code}: {self.meaning}"

    @property
    def notice(self) -> str:
        """What to say of it where it is no fault, or not any more."""
        return self.text + (", seen earlier" if self.effect is Effect.FATAL else "")


class Xids:
    """The table of XIDs with an operator's changes."""

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
        self._rows = {
            int(row["xid"]): Xid(
                int(row["xid"]), row["meaning"], Effect(row["effect"]), row["action"], row["source"]
            )
            for row in _rows("xids.csv")
        }
        lists = ((Effect.IGNORE, ignored), (Effect.INFORM, informational), (Effect.FATAL, fatal))
        changed: dict[int, Effect] = {}
        for effect, codes in lists:
            for code in codes:
                if code < 1:
                    raise InvalidOption(f"XID {code} does not exist; codes are positive numbers")
                if changed.setdefault(code, effect) is not effect:
                    raise InvalidOption(f"XID {code} is listed as {changed[code]} and as {effect}")
        for code, effect in changed.items():
            row = self[code]
            action = (row.action or CONTACT_SUPPORT) if effect is Effect.FATAL else ""
            self._rows[code] = replace(row, effect=effect, action=action, source="settings")

    def __getitem__(self, code: int) -> Xid:
        # Not knowing a code is no evidence of health: a wrong False costs somebody a look, a wrong
        # True somebody's results.
        return self._rows.get(code) or Xid(
            code, "not in the XID catalog", Effect.FATAL, CONTACT_SUPPORT, "default"
        )

    @property
    def rows(self) -> tuple[Xid, ...]:
        """All rows by code, then the one for codes that are not in the table (code 0)."""
        return (*sorted(self._rows.values(), key=lambda row: row.code), self[0])


def _rows(file: str) -> Iterator[dict[str, str]]:
    with (resources.files(__package__) / file).open(encoding="utf-8") as opened:
        yield from csv.DictReader(opened)
