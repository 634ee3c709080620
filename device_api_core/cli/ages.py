"""How long ago, in the few characters that kubectl would use."""

from __future__ import annotations

import time

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY

# Below the limit an age is shown in the unit, and its rest in the smaller one if there is one.
_STEPS: tuple[tuple[int, tuple[int, str], tuple[int, str] | None], ...] = (
    (2 * _MINUTE, (1, "s"), None),
    (10 * _MINUTE, (_MINUTE, "m"), (1, "s")),
    (3 * _HOUR, (_MINUTE, "m"), None),
    (8 * _HOUR, (_HOUR, "h"), (_MINUTE, "m")),
    (2 * _DAY, (_HOUR, "h"), None),
    (8 * _DAY, (_DAY, "d"), (_HOUR, "h")),
    (2 * _YEAR, (_DAY, "d"), None),
    (8 * _YEAR, (_YEAR, "y"), (_DAY, "d")),
)


def format_age(seconds: float) -> str:
    """An age such as ``5s``, ``3m12s``, ``4h`` or ``2d``. Less than none is ``0s``: the clocks of
    a server and a reader may differ a little."""
    whole = max(0, int(seconds))
    for limit, (size, unit), rest in _STEPS:
        if whole < limit:
            return _show(whole, size, unit, rest)
    return _show(whole, _YEAR, "y", None)


def age_of(nanoseconds: int | None) -> str:
    """The age of a time in nanoseconds since the Unix epoch; ``-`` if there is none."""
    if nanoseconds is None:
        return "-"
    return format_age((time.time_ns() - nanoseconds) / 1e9)


def _show(whole: int, size: int, unit: str, rest: tuple[int, str] | None) -> str:
    count, left = divmod(whole, size)
    text = f"{count}{unit}"
    if rest is not None and (small := left // rest[0]):
        text += f"{small}{rest[1]}"
    return text
