"""Figures: what was measured, beside the bare server and the goal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

OK, MISSED, UNJUDGED = "ok", "MISSED", ""
AIM = "ok, aim reached"
PEER = "Go peer"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. ``server`` and ``bare`` are medians of ``unit``; ``ratio`` is the
    median of the ratios of paired rounds with their lower and upper quartile."""

    name: str
    unit: str
    server: float
    bare: float | None = None
    ratio: tuple[float, float, float] | None = None
    goal: str = ""
    verdict: str = UNJUDGED
    beside: str = "bare"
    """What ``bare`` is measured of."""


@dataclass(frozen=True, slots=True)
class Curve:
    """How one quantity grows with another: ``points`` are its values by server, each at a count of
    what ``axis`` names. A point without a value was not measured."""

    axis: str
    name: str
    unit: str
    points: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, server: str, at: int, value: float) -> None:
        """One more point."""
        self.points.setdefault(server, {})[at] = value


Measured = Figure | Curve


def paired(
    name: str, unit: str, server: Sequence[float], bare: Sequence[float], *, limit: float = 0.0
) -> Figure:
    """A figure from alternating rounds; ``limit`` is the goal for the ratio."""
    ratios = [mine / theirs for mine, theirs in zip(server, bare, strict=True)]
    ratio = statistics.median(ratios)
    return Figure(
        name,
        unit,
        statistics.median(server),
        statistics.median(bare),
        (ratio, *_quartiles(ratios)),
        f"ratio <= {limit:g}" if limit else "",
        _verdict(ratio, limit),
    )


def single(
    name: str,
    unit: str,
    server: Sequence[float],
    bare: Sequence[float] = (),
    *,
    limit: float = 0.0,
) -> Figure:
    """A figure by itself; ``limit`` is the goal for its value."""
    value = statistics.median(server)
    return Figure(
        name,
        unit,
        value,
        statistics.median(bare) if bare else None,
        None,
        f"<= {limit:g} {unit}" if limit else "",
        _verdict(value, limit),
    )


def against(
    name: str,
    unit: str,
    server: Sequence[float],
    peer: Sequence[float],
    goals: tuple[float, float] | None,
    *,
    at_least: bool = False,
) -> Figure:
    """A figure beside the Go peer. ``goals`` for the ratio are what must be reached and what is
    aimed at; with ``at_least`` more is better."""
    plain = paired(name, unit, server, peer)
    assert plain.ratio is not None
    if goals is None:
        return replace(plain, beside=PEER)
    sign = ">=" if at_least else "<="
    must, aim = goals
    verdict = _grade(plain.ratio[0], must, aim, at_least=at_least)
    goal = f"ratio {sign} {must:g}, aim {aim:g}"
    return replace(plain, goal=goal, verdict=verdict, beside=PEER)


def reached(
    name: str, unit: str, server: float, must: float, aim: float | None, peer: float | None = None
) -> Figure:
    """A figure with goals of its own, whatever the peer's is."""
    goal = f"<= {must:g} {unit}".rstrip() + ("" if aim is None else f", aim {aim:g}")
    verdict = _grade(server, must, aim)
    return Figure(name, unit, server, peer, goal=goal, verdict=verdict, beside=PEER)


def quantile(values: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of all are below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table that is as readable as text."""
    figures = list(figures)
    beside = figures[0].beside if figures else "bare"
    rows = [("figure", "server", beside, "ratio (quartiles)", "goal", ""), *map(_row, figures)]
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join(
        [lines[0], "| " + " | ".join("-" * max(w, 1) for w in widths) + " |", *lines[1:]]
    )


def growth_table(curves: Sequence[Curve]) -> str:
    """Curves over the same axis: a line for each count, in a cell the values of all servers."""
    servers = list(curves[0].points)
    heads = [f"{c.name}{f', {c.unit}' if c.unit else ''}" for c in curves]
    counts = sorted({at for c in curves for points in c.points.values() for at in points})
    rows = [(curves[0].axis, *heads)]
    for at in counts:
        cells = [[c.points[server].get(at) for server in servers] for c in curves]
        shown = [" / ".join("-" if v is None else _short(v) for v in values) for values in cells]
        rows.append((f"{at:,}", *shown))
    return f"{' / '.join(servers)}:\n\n{_aligned(rows)}"


def as_json(measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """What was measured, for programs."""
    return [asdict(one) for one in measured]


def _row(figure: Figure) -> tuple[str, ...]:
    bare = "" if figure.bare is None else f"{_short(figure.bare)} {figure.unit}"
    ratio = ""
    if figure.ratio is not None:
        median, lower, upper = figure.ratio
        spread = f" ({lower:.2f} to {upper:.2f})" if lower != upper else ""
        ratio = f"{median:.2f}{spread}"
    server = f"{_short(figure.server)} {figure.unit}"
    return figure.name, server, bare, ratio, figure.goal, figure.verdict


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _grade(value: float, must: float, aim: float | None, *, at_least: bool = False) -> str:
    def holds(goal: float) -> bool:
        return value >= goal if at_least else value <= goal

    if not holds(must):
        return MISSED
    return AIM if aim is not None and holds(aim) else OK


def _verdict(value: float, limit: float) -> str:
    if not limit:
        return UNJUDGED
    return OK if value <= limit else MISSED


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper
