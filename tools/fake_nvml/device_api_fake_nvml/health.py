"""Hardware conditions, each as the set of signals that a real one moves together."""

from __future__ import annotations

from enum import IntEnum

from device_api_fake_nvml.errors import Refused
from device_api_fake_nvml.signals import Signals

HARDWARE_SLOWDOWN = 0x8
SOFTWARE_THERMAL = 0x20
HARDWARE_THERMAL = 0x40


class Location(IntEnum):
    """Where a memory error was, in NVML's order."""

    L1 = 0
    L2 = 1
    DRAM = 2
    REGISTER_FILE = 3
    TEXTURE = 4
    SHARED_TEXTURE = 5
    CBU = 6
    SRAM = 7


class RecoveryAction(IntEnum):
    """What field 230 asks for."""

    NONE = 0
    GPU_RESET = 1
    NODE_REBOOT = 2
    DRAIN_P2P = 3
    DRAIN_AND_RESET = 4
    RECOVER_IMEX_DOMAIN = 5
    BUS_RESET = 6
    SYSTEM_REBOOT = 7


class Bank(IntEnum):
    """Classes of memory banks by the spare rows they have left."""

    MAX = 0
    HIGH = 1
    PARTIAL = 2
    LOW = 3
    NONE = 4


class Health:
    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def count_ecc_errors(
        self,
        gpu: int,
        count: int = 1,
        *,
        corrected: bool = False,
        location: Location = Location.DRAM,
    ) -> None:
        """Counts memory errors, both since the last reset and for life."""
        kind = "corrected" if corrected else "uncorrected"
        for period in ("volatile", "aggregate"):
            self._signals.increase(gpu, f"ecc-{period}-{kind}", count, location)
        if location is Location.SRAM and self._signals.get(gpu, "sram-volatile") is not None:
            element = 2 if corrected else 0
            self._signals.increase(gpu, "sram-volatile", count, element)
            self._signals.increase(gpu, "sram-aggregate", count, element)

    def set_ecc_mode(self, gpu: int, on: bool, *, pending_only: bool = False) -> None:
        self._require(gpu, "ecc-mode")
        self._signals.set(gpu, "ecc-mode", int(on), 1)
        if not pending_only:
            self._signals.set(gpu, "ecc-mode", int(on), 0)

    def exceed_sram_threshold(self, gpu: int) -> None:
        self._require(gpu, "sram-threshold-exceeded")
        self._signals.set(gpu, "sram-threshold-exceeded", 1)

    def remap_row(
        self, gpu: int, *, corrected: bool = False, bank: Bank = Bank.MAX, pending: bool = True
    ) -> None:
        """A row was replaced by a spare; the GPU uses it after a reset. `bank` is the class of the
        bank before: it falls by one."""
        self._require(gpu, "remap-pending")
        if bank is Bank.NONE:
            raise Refused("a bank without spares cannot be remapped; use fail_remap")
        if not self._signals.get(gpu, "remap-banks", bank):
            raise Refused(f"GPU {gpu} has no bank of class {bank.name.lower()}")
        self._signals.increase(gpu, "remap-banks", -1, bank)
        self._signals.increase(gpu, "remap-banks", 1, bank + 1)
        self._signals.increase(gpu, "remapped-rows", 1, 0 if corrected else 1)
        if pending:
            self._signals.set(gpu, "remap-pending", 1)

    def fail_remap(self, gpu: int) -> None:
        """A row could not be replaced: the GPU has to be."""
        self._require(gpu, "remap-failure")
        self._signals.set(gpu, "remap-failure", 1)

    def retire_pages(self, gpu: int, count: int = 1, *, double_bit: bool = True) -> None:
        self._require(gpu, "retired-pages-pending")
        self._signals.increase(gpu, "retired-pages", count, int(double_bit))
        self._signals.set(gpu, "retired-pages-pending", 1)

    def need_repair(self, gpu: int, *, channel: bool = False, tpc: bool = False) -> None:
        self._require(gpu, "repair-pending")
        self._signals.set(gpu, "repair-pending", int(channel), 0)
        self._signals.set(gpu, "repair-pending", int(tpc), 1)

    def set_temperature(self, gpu: int, celsius: int) -> None:
        """Moves the margin along, and has the hardware slow down below its slowdown limit."""
        before = self._signals.get(gpu, "temperature")
        margin = self._signals.get(gpu, "temperature-margin")
        self._signals.set(gpu, "temperature", celsius)
        if margin is not None and before is not None:
            self._signals.set(gpu, "temperature-margin", margin + before - celsius)
        reasons = self._signals.get(gpu, "clock-reasons") or 0
        slowed = HARDWARE_SLOWDOWN | HARDWARE_THERMAL
        too_hot = self._is_too_hot(gpu, celsius)
        self._signals.set(gpu, "clock-reasons", reasons | slowed if too_hot else reasons & ~slowed)

    def _is_too_hot(self, gpu: int, celsius: int) -> bool:
        margin = self._signals.get(gpu, "temperature-margin")
        limit = self._signals.get(gpu, "t-limit", 1)
        if margin is not None and limit is not None:
            return margin <= limit
        slowdown = self._signals.get(gpu, "temperature-threshold", 1)
        return slowdown is not None and celsius >= slowdown

    def set_nvlink(self, gpu: int, link: int, up: bool) -> None:
        self._require(gpu, "nvlink-state", link)
        self._signals.set(gpu, "nvlink-state", int(up), link)

    def count_nvlink_errors(self, gpu: int, link: int, counter: str, count: int = 1) -> None:
        """`counter` is the signal's name without its `nvlink-`."""
        self._signals.increase(gpu, f"nvlink-{counter}", count, link)

    def ask_for(self, gpu: int, action: RecoveryAction) -> None:
        """Sets the recovery action that field 230 reports."""
        self._require(gpu, "recovery-action")
        self._signals.set(gpu, "recovery-action", action)

    def _require(self, gpu: int, signal: str, element: int = 0) -> None:
        if self._signals.get(gpu, signal, element) is None:
            raise Refused(f"GPU {gpu} does not support {signal} {element}")
