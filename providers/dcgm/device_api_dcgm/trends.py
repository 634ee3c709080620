"""How counters move. Values carry no time and restart at 0, so only differences are looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from device_api_dcgm.exposition import Key


@dataclass(frozen=True, slots=True)
class Moves:
    """What changed since the scrape before, by series; a series seen for the first time has not
    changed. ``rates`` are per second, of series watched for long enough."""

    firsts: Mapping[Key, float] = field(default_factory=dict)
    rises: Mapping[Key, float] = field(default_factory=dict)
    falls: Mapping[Key, float] = field(default_factory=dict)
    """The values after the fall."""
    rates: Mapping[Key, float] = field(default_factory=dict)

    def rose(self, series: str) -> bool:
        """Whether it went up, or fell and counts again: what it counts now came after the fall."""
        return any(key.series == series for key in self.rises) or any(
            key.series == series and value > 0 for key, value in self.falls.items()
        )

    def fell(self, *series: str) -> bool:
        """Whether one of the whole GPU's went down. Those of MIG instances go down as well when
        the instances are cut anew."""
        return any(key.series in series and not key.part for key in self.falls)

    def rate(self, *series: str) -> float | None:
        """The greatest rate among them, or ``None``."""
        return max((rate for key, rate in self.rates.items() if key.series in series), default=None)


class Trends:
    """The last values of one GPU's series. ``window_seconds`` is what rates are taken over."""

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._last: dict[Key, float] = {}
        self._history: dict[Key, deque[tuple[float, float]]] = {}

    def add(self, values: Mapping[Key, float], now: float) -> Moves:
        """Take the values of a scrape. One that is missing from it keeps its last value."""
        firsts = {key: value for key, value in values.items() if key not in self._last}
        rises, falls, rates = {}, {}, {}
        for key, value in values.items():
            before = self._last.get(key, value)
            self._last[key] = value
            if value > before:
                rises[key] = value
            elif value < before:
                falls[key] = value
                self._history.pop(key, None)
            if (rate := self._rate(key, value, now)) is not None:
                rates[key] = rate
        return Moves(firsts, rises, falls, rates)

    def _rate(self, key: Key, value: float, now: float) -> float | None:
        # Over the whole window and never less: seen over a shorter time, a counter that the
        # exporter moves once in 30 s appears to jump.
        history = self._history.setdefault(key, deque())
        history.append((now, value))
        while len(history) > 1 and history[1][0] <= now - self._window_seconds:
            history.popleft()
        then, base = history[0]
        return (value - base) / (now - then) if then <= now - self._window_seconds else None
