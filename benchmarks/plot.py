"""Draws propagation over the number of watchers.

``python -m benchmarks.plot FIGURES.json OUT.svg``; the figures are those that
``python -m benchmarks --json`` writes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from math import ceil, floor, log10
from pathlib import Path

_NAME = re.compile(r"write to the last of ([\d,]+) watchers?: (p50|p99)")
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 64
_COLOURS = {"server": "#1f6feb", "bare": "#8c959f"}
_DASHES = {"p50": "", "p99": "6 4"}

Line = list[tuple[float, float]]


def lines_of(figures: Iterable[dict[str, object]]) -> dict[tuple[str, str], Line]:
    """Milliseconds over watchers, by server and quantile."""
    lines: dict[tuple[str, str], Line] = {}
    for figure in figures:
        if match := _NAME.fullmatch(str(figure["name"])):
            for side in _COLOURS:
                point = int(match[1].replace(",", "")), float(str(figure[side]))
                lines.setdefault((side, match[2]), []).append(point)
    return lines


class Plane:
    """Both axes are logarithmic and hold all points."""

    def __init__(self, points: Line) -> None:
        self.decades_x = range(
            floor(log10(min(x for x, _ in points))), ceil(log10(max(x for x, _ in points))) + 1
        )
        self.decades_y = range(
            floor(log10(min(y for _, y in points))), ceil(log10(max(y for _, y in points))) + 1
        )

    def x(self, value: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * _share(value, self.decades_x)

    def y(self, value: float) -> float:
        return _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * _share(value, self.decades_y)


def svg(lines: dict[tuple[str, str], Line]) -> str:
    """The picture."""
    plane = Plane([point for line in lines.values() for point in line])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_WIDTH / 2, 24, "From a write to the last watcher"),
        _text(_WIDTH / 2, _HEIGHT - 16, "watchers"),
        _text(32, _MARGIN - 16, "ms"),
        *_grid(plane),
    ]
    for number, ((side, quantile), line) in enumerate(lines.items()):
        style = f'stroke="{_COLOURS[side]}" stroke-dasharray="{_DASHES[quantile]}"'
        points = " ".join(f"{plane.x(x):.1f},{plane.y(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" {style}/>')
        y = _MARGIN + 16 + 18 * number
        left = _MARGIN + 16
        parts.append(f'<path d="M{left} {y - 4}h32" stroke-width="2" {style}/>')
        parts.append(_text(left + 40, y, f"{side}, {quantile}", anchor="start"))
    return "\n".join([*parts, "</svg>\n"])


def _grid(plane: Plane) -> Iterable[str]:
    stroke = 'stroke="#d0d7de"'
    for decade in plane.decades_x:
        x = plane.x(10.0**decade)
        yield f'<path d="M{x:.1f} {_MARGIN}V{_HEIGHT - _MARGIN}" {stroke}/>'
        yield _text(x, _HEIGHT - _MARGIN + 18, f"{10**decade:,}")
    for decade in plane.decades_y:
        y = plane.y(10.0**decade)
        yield f'<path d="M{_MARGIN} {y:.1f}H{_WIDTH - _MARGIN}" {stroke}/>'
        yield _text(_MARGIN - 8, y + 4, f"{10.0**decade:g}", anchor="end")


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _share(value: float, decades: range) -> float:
    return (log10(value) - decades[0]) / (decades[-1] - decades[0])


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    found = lines_of(json.loads(source.read_text())["figures"])
    target.write_text(svg(found), encoding="utf-8")
