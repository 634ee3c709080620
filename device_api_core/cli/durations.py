"""Durations as kubectl's ``--timeout`` takes them."""

from __future__ import annotations

import re
from typing import Any

import click

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(-?)((?:\d+(?:\.\d+)?(?:ms|s|m|h))+|\d+(?:\.\d+)?)")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``1h30m`` or ``500ms``. Raises ValueError for anything else."""
    if (found := _DURATION.fullmatch(text.strip())) is None:
        raise ValueError(f"{text!r} is no duration such as 90s, 1h30m or 500ms")
    seconds = sum(float(n) * _SECONDS[unit or "s"] for n, unit in _PART.findall(found[2]))
    return -seconds if found[1] else seconds


class DurationType(click.ParamType[float]):
    """An option that is a duration, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse it."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
