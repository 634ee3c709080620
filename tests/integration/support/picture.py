"""Draws the chart's Grafana dashboard: the same queries, plainly plotted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from html import escape
from typing import Any

from scraping import JOB, Prometheus

_COLUMN, _UNIT, _GAP = 54, 28, 6
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
_NAMED = {"green": "#2ca02c", "red": "#d62728", "orange": "#ff7f0e"}
_MAX_LEGEND, _MAX_ROWS = 8, 6

Line = tuple[str, str, list[tuple[float, float]]]


def expression(target: dict[str, Any], window: str) -> str:
    """A panel's query for all nodes, rates taken over ``window``."""
    text = str(target["expr"]).replace("$job", JOB).replace("$node", ".*")
    return text.replace("$__rate_interval", window)


def draw(dashboard: dict[str, Any], source: Prometheus, start: float, end: float) -> str:
    """The dashboard from ``start`` to ``end``, which are Unix times, as an SVG."""
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"]) * _UNIT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * _COLUMN} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{24 * _COLUMN}" height="{height}" fill="#f4f5f5"/>',
    ]
    for panel in dashboard["panels"]:
        parts += _Panel(panel).draw(source, start, end)
    return "\n".join([*parts, "</svg>\n"])


class _Panel:
    def __init__(self, panel: dict[str, Any]) -> None:
        self._panel = panel
        place = panel["gridPos"]
        self.x, self.y = place["x"] * _COLUMN + _GAP, place["y"] * _UNIT + _GAP
        self.width, self.height = place["w"] * _COLUMN - _GAP, place["h"] * _UNIT - _GAP
        self._unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")

    def draw(self, source: Prometheus, start: float, end: float) -> Iterator[str]:
        title = self._panel["title"]
        if self._panel["type"] == "row":
            yield _text(self.x, self.y + 14, title, size=14, weight="bold")
            return
        yield (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" '
            'fill="white" stroke="#dcdcdc"/>'
        )
        yield _text(self.x + 8, self.y + 16, title, weight="bold")
        yield from {
            "stat": self._stat,
            "table": self._table,
            "timeseries": self._lines,
        }[self._panel["type"]](source, start, end)

    def _stat(self, source: Prometheus, start: float, end: float) -> Iterator[str]:
        found = source.query(expression(self._panel["targets"][0], "15s"), end)
        value = float(found[0]["value"][1]) if found else 0.0
        colour = self._threshold(value)
        x, y = self.x + self.width / 2, self.y + self.height - 30
        yield _text(x, y, self._number(value), size=34, anchor="middle", fill=colour)

    def _threshold(self, value: float) -> str:
        defaults = self._panel["fieldConfig"]["defaults"]
        colour = defaults.get("color", {}).get("fixedColor", "")
        for step in defaults.get("thresholds", {}).get("steps", ()):
            if step["value"] is None or value >= step["value"]:
                colour = step["color"]
        return _NAMED.get(colour, "#24292f")

    def _table(self, source: Prometheus, start: float, end: float) -> Iterator[str]:
        [options] = [t["options"] for t in self._panel["transformations"] if t["id"] == "organize"]
        found = source.query(expression(self._panel["targets"][0], "15s"), end)
        rows = [{**r["metric"], "Value": r["value"][1]} for r in found]
        hidden = options.get("excludeByName", {})
        order = options.get("indexByName", {})
        names = {name for row in rows for name in row if name not in hidden}
        columns = sorted(names, key=lambda name: (order.get(name, 99), name))
        step = (self.width - 16) / max(len(columns), 1)
        for number, name in enumerate(columns):
            x, y = self.x + 8 + number * step, self.y + 36
            shown = options.get("renameByName", {}).get(name, name)
            yield _text(x, y, shown, weight="bold", fill="#57606a")
            for line, row in enumerate(rows[:_MAX_ROWS], 1):
                yield _text(x, y + 18 * line, row.get(name, "")[: int(step / 6.5)])

    def _lines(self, source: Prometheus, start: float, end: float) -> Iterator[str]:
        lines = self._fetched(source, start, end)
        bottom = self.y + self.height - 18 - 14 * math.ceil(min(len(lines), _MAX_LEGEND) / 2)
        top, left, right = self.y + 28, self.x + 52, self.x + self.width - 10
        values = [value for _, _, points in lines for _, value in points]
        ceiling = _ceiling(max(values, default=1.0))
        for tick in (0.0, 0.5, 1.0):
            y = bottom - (bottom - top) * tick
            yield f'<path d="M{left} {y:.1f}H{right}" stroke="#e6e6e6"/>'
            yield _text(left - 4, y + 4, self._number(ceiling * tick), anchor="end", fill="#57606a")
        for number, (legend, colour, points) in enumerate(lines):
            places = " ".join(
                f"{left + (right - left) * (time - start) / (end - start):.1f},"
                f"{bottom - (bottom - top) * value / ceiling:.1f}"
                for time, value in points
            )
            yield (
                f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            )
            if number < _MAX_LEGEND:
                x = self.x + 12 + (number % 2) * (self.width / 2)
                y = bottom + 18 + 14 * (number // 2)
                yield f'<path d="M{x} {y - 4}h14" stroke="{colour}" stroke-width="3"/>'
                yield _text(x + 20, y, legend)

    def _fetched(self, source: Prometheus, start: float, end: float) -> list[Line]:
        colours = {
            o["matcher"]["options"]: o["properties"][0]["value"].get("fixedColor")
            for o in self._panel["fieldConfig"]["overrides"]
        }
        lines: list[Line] = []
        for target in self._panel["targets"]:
            for series in source.query_range(expression(target, "15s"), start, end):
                legend = _legend(target["legendFormat"], series["metric"])
                named = _NAMED.get(colours.get(legend, ""), _COLOURS[len(lines) % len(_COLOURS)])
                points = [(float(t), float(v)) for t, v in series["values"]]
                known = [(t, v) for t, v in points if math.isfinite(v)]
                if known:
                    lines.append((legend, named, known))
        return lines

    def _number(self, value: float) -> str:
        if self._unit == "bytes":
            return f"{value / 2**20:.0f} MiB"
        if self._unit == "s" and 0 < value < 1:
            return f"{value * 1_000:.3g} ms"
        return f"{value:.3g}" + {"s": " s", "reqps": "/s"}.get(self._unit, "")


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), template)


def _ceiling(value: float) -> float:
    """The next 1, 2 or 5 of its decade."""
    if value <= 0:
        return 1.0
    decade: float = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= value * 0.999)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 11,
    weight: str = "normal",
    anchor: str = "start",
    fill: str = "#24292f",
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
