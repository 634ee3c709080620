"""Draws small multiples: panels with logarithmic axes, a line for each server, as one SVG.

The colours follow the reader's light or dark scheme, and the picture has a background of its own,
since a page that shows it may follow another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, log10

_WIDTH, _HEIGHT, _COLUMNS = 400, 260, 2
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 72, 36, 44
_HEAD = 40
_LABEL_GAP = 15.0
_STEPS = (1, 2, 5, 10)
_STYLE = """
svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --grid: #d8dee4;
  --first: #0860ca; --second: #b14300; --third: #6e4fc4; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #e6edf3; --soft: #9aa4ae; --grid: #2d343c;
    --first: #5aa9ff; --second: #f0883e; --third: #b9a2f5; } }
text { font: 13px system-ui, sans-serif; fill: var(--soft); }
.title { font-weight: 600; fill: var(--ink); }
.head { font-size: 16px; }
.grid { stroke: var(--grid); }
.first { --line: var(--first); } .second { --line: var(--second); --dash: 7 3; }
.third { --line: var(--third); --dash: 2 3; }
.line { stroke: var(--line); stroke-width: 2; stroke-dasharray: var(--dash, none); fill: none; }
.dot { fill: var(--line); }
.label { fill: var(--line); font-weight: 600; }
"""
_PLACES = ("first", "second", "third")

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. ``lines`` are by server; what they hold is above 0."""

    title: str
    axis: str
    lines: dict[str, Line]


class Scale:
    """A logarithmic axis from ``begins`` to ``ends``, in pixels, that holds all values."""

    def __init__(self, values: Iterable[float], begins: float, ends: float) -> None:
        ordered = sorted(values)
        self._low, self._high = _round(ordered[0], up=False), _round(ordered[-1], up=True)
        if self._low == self._high:
            self._high *= 10
        self._begins, self._ends = begins, ends

    def at(self, value: float) -> float:
        """Where a value is."""
        share = log10(value / self._low) / log10(self._high / self._low)
        return self._begins + (self._ends - self._begins) * share

    def ticks(self) -> list[float]:
        """Round values: powers of ten, or more of them if those are few."""
        found = [
            step * 10.0**power
            for power in range(floor(log10(self._low)), floor(log10(self._high)) + 1)
            for step in _STEPS[:-1]
            if self._low * 0.999 <= step * 10.0**power <= self._high * 1.001
        ]
        powers = [value for value in found if log10(value).is_integer()]
        return powers if len(powers) > 2 else found


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The picture."""
    width = _WIDTH * min(len(panels), _COLUMNS)
    height = _HEAD + _HEIGHT * -(-len(panels) // _COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="var(--paper)"/>',
        _text(16, 26, title, "title head", "start"),
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        parts.append(f'<g transform="translate({_WIDTH * column} {_HEAD + _HEIGHT * row})">')
        parts += [*_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> Iterable[str]:
    points = [point for line in panel.lines.values() for point in line]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    across = Scale((x for x, _ in points), _LEFT, right)
    up = Scale((y for _, y in points), bottom, _TOP)
    yield _text(16, 20, panel.title, "title", "start")
    yield _text((_LEFT + right) / 2, _HEIGHT - 8, panel.axis)
    for tick in across.ticks():
        yield f'<path class="grid" d="M{across.at(tick):.1f} {_TOP}V{bottom}"/>'
        yield _text(across.at(tick), bottom + 18, f"{tick:,g}")
    for tick in up.ticks():
        yield f'<path class="grid" d="M{_LEFT} {up.at(tick):.1f}H{right}"/>'
        yield _text(_LEFT - 8, up.at(tick) + 4, f"{tick:,g}", anchor="end")
    ends = _spread([up.at(line[-1][1]) for line in panel.lines.values()], _TOP, bottom)
    for place, (name, line), end in zip(_PLACES, panel.lines.items(), ends, strict=False):
        placed = [(across.at(x), up.at(y)) for x, y in line]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        yield f'<g class="{place}"><polyline class="line" points="{way}"/>'
        yield from (f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed)
        yield _text(right + 10, end + 4, name, "label", "start") + "</g>"


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights near those wanted where labels do not cover each other."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    heights = list(wanted)
    for above, below in pairwise(order):
        heights[below] = max(heights[below], heights[above] + _LABEL_GAP)
    excess = max(0.0, heights[order[-1]] - bottom)
    # Those that are pushed up push others in turn.
    limit = heights[order[-1]] - excess
    for index in reversed(order):
        heights[index] = max(min(heights[index], limit), top)
        limit = heights[index] - _LABEL_GAP
    return heights


def _round(value: float, *, up: bool) -> float:
    """The nearest 1, 2 or 5 of a power of ten that is not above, or not below it."""
    power: float = 10.0 ** floor(log10(value) + 1e-9)
    steps = [step * power for step in _STEPS]
    if up:
        return next(step for step in steps if step >= value * 0.999)
    return next(step for step in reversed(steps) if step <= value * 1.001)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
