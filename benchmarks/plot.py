"""Draws what grows, from the figures that ``python -m benchmarks --json`` writes.

``python -m benchmarks.plot FIGURES.json docs/images`` writes a picture for each of ``propagation``
and ``scaling`` that the figures are of.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.panels import Panel, svg

_PROPAGATION = re.compile(r"write to the last of ([\d,]+) watchers?: (p50|p99)")
_SIDES = ("server", "bare")


def pictures(facts: Mapping[str, Any]) -> dict[str, str]:
    """Each picture by its file's name."""
    drawn: dict[str, str] = {}
    if panels := _propagation(facts["figures"]):
        drawn["propagation.svg"] = svg("From a write to the last watcher", panels)
    curves = facts["curves"]
    for axis in dict.fromkeys(curve["axis"] for curve in curves):
        panels = [_panel(c) for c in curves if c["axis"] == axis and _is_above_zero(c)]
        name = f"scaling-{axis.partition(' ')[0].lower()}.svg"
        drawn[name] = svg(f"How cost grows with {axis}", panels)
    return drawn


def _propagation(figures: Iterable[Mapping[str, Any]]) -> list[Panel]:
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for figure in figures:
        if match := _PROPAGATION.fullmatch(figure["name"]):
            count, quantile = int(match[1].replace(",", "")), match[2]
            for side in _SIDES:
                sides = lines.setdefault(quantile, {})
                sides.setdefault(side, []).append((count, figure[side]))
    return [Panel(f"{quantile}, ms", "watchers", sides) for quantile, sides in lines.items()]


def _panel(curve: Mapping[str, Any]) -> Panel:
    unit = curve["unit"].replace("us", "µs")
    lines = {
        server: [(int(at), value) for at, value in points.items()]
        for server, points in curve["points"].items()
    }
    return Panel(f"{curve['name']}, {unit}", curve["axis"], lines)


def _is_above_zero(curve: Mapping[str, Any]) -> bool:
    """Whether a logarithmic axis has a place for it."""
    return all(value > 0 for points in curve["points"].values() for value in points.values())


if __name__ == "__main__":
    source, folder = map(Path, sys.argv[1:])
    for name, picture in pictures(json.loads(source.read_text())).items():
        (folder / name).write_text(picture, encoding="utf-8")
