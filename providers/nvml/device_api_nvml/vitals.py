"""What one GPU's readings have shown: all its conditions except NVMLReady."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from device_api_core.resources import Condition
from device_api_nvml.areas import AREAS, RECOVERY
from device_api_nvml.healing import Terms, Trial
from device_api_nvml.health import Doubt, Fault
from device_api_nvml.library import NvmlError
from device_api_nvml.links import AREA as LINKS
from device_api_nvml.memory import AREA as MEMORY
from device_api_nvml.memory import Memory, reset_seen
from device_api_nvml.options import NvmlOptions
from device_api_nvml.signals import Area, Signal

Recovered = Callable[[str, str, str], None]
"""Called with type, reason and evidence when a fault is over."""


class Vitals:
    """Signals by condition type, and what their rules remember. ``heals`` says when faults of a
    type ended before a restart. Not thread-safe."""

    def __init__(
        self, options: NvmlOptions, terms: Terms, heals: Callable[[str], tuple[float, ...]]
    ) -> None:
        self._options = options
        self._terms = terms
        self._signals = {
            area.type: Signal(area.type, trial=Trial(heals=heals(area.type))) for area in AREAS
        }
        self._memory: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Signal]:
        return iter(self._signals.values())

    def resume(self, said: Iterable[Condition], now: float) -> None:
        """Begin from what was said before a restart."""
        areas = {area.type: area for area in AREAS}
        for condition in said:
            if (area := areas.get(condition.type)) is not None:
                signal = self._signals[area.type].resumed(area, condition, now, self._terms)
                self._signals[area.type] = signal
                if signal.fault is not None:
                    self._memory[area.type] = area.resume(condition.message)

    def reset_seen(self, readings: Mapping[str, object]) -> str:
        """How these readings prove a reset since the ones before, or an empty text."""
        now = readings.get(MEMORY.type)
        before = self._memory.get(MEMORY.type)
        return reset_seen(before, now if isinstance(now, Memory) else None)

    def was_reset(self, evidence: str) -> None:
        """The GPU was reset: counters begin anew, and faults may now be proven over."""
        for signal in self:
            if signal.fault is not None:
                self._put(signal, trial=signal.trial.was_reset(evidence))

    def judge(self, readings: Mapping[str, object], now: float, told: Recovered) -> None:
        """What the readings of one look mean."""
        recovery = readings.get(RECOVERY.type)
        for area in AREAS:
            if area.type in readings:
                counts = recovery if isinstance(recovery, int) else None
                self._judge(area, readings[area.type], now, counts)
        for signal in self:
            if evidence := signal.evidence(now):
                reason = signal.fault.reason if signal.fault else ""
                self._signals[signal.type] = signal.healed(now)
                told(signal.type, reason, evidence)

    def _judge(self, area: Area, reading: object, now: float, recovery: int | None) -> None:
        signal = self._signals[area.type]
        if isinstance(reading, NvmlError):
            self._signals[area.type] = signal.unread(f"{reading.message}.")
            return
        finding = None
        if reading is not None:
            memo = self._memory.get(area.type)
            finding, self._memory[area.type] = area.judge(memo, reading, now, self._options)
        self._signals[area.type] = signal.found(finding, now, recovery, self._terms)

    def failed(self) -> None:
        """A look that went wrong or did not end, or a time in which an XID could be missed."""
        self._signals = {type_: signal.failed() for type_, signal in self._signals.items()}

    def clear(self, type_: str) -> bool:
        """An operator declares the fault's cause gone. Returns whether there was one."""
        signal = self._signals.get(type_)
        if signal is None or signal.fault is None:
            return False
        self._signals[type_] = signal.lifted()
        if type_ == LINKS.type:  # what is down from now on is meant to be
            self._memory.pop(type_, None)
        return True

    def _put(self, signal: Signal, **changes: Any) -> None:
        self._signals[signal.type] = replace(signal, **changes)

    def conditions(self, doubt: Doubt | None) -> list[Condition]:
        """All there is to say. ``doubt`` is that of the GPU itself: it is in every condition that
        is not False."""
        found = (signal.condition(doubt) for signal in self)
        return [condition for condition in found if condition is not None]

    @property
    def faults(self) -> list[Fault]:
        return [signal.fault for signal in self if signal.fault is not None]
