"""What ``device-api top`` shows, as lines of text for a screen of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import click

from device_api_core.cli.ages import format_age
from device_api_core.cli.columns import NARROW, badness, ready_message, said_by
from device_api_core.cli.tables import one_line, painted
from device_api_core.resources import ConditionStatus, Gpu

_GAP = "   "
_ELLIPSIS = "…"
_LEAST_NAME = len("gpu-1b2c77e0…")
_LEAST_MESSAGE = 12

_COLUMNS = NARROW | {"PROVIDER": said_by, "MESSAGE": ready_message}
_KINDS = (
    (ConditionStatus.FALSE, "not ready"),
    (ConditionStatus.UNKNOWN, "unknown"),
    (ConditionStatus.TRUE, "ready"),
)


class Board:
    """One moment: the GPUs (``None`` while nothing is known), how old that is in seconds, and what
    is wrong if it should not be trusted."""

    def __init__(
        self,
        gpus: Iterable[Gpu] | None,
        *,
        age_seconds: float | None = None,
        outage: str = "",
    ) -> None:
        self._gpus = None if gpus is None else sorted(gpus, key=badness)
        self._age_seconds = age_seconds
        self._outage = outage

    def lines(
        self, columns: int | None = None, lines: int | None = None, *, coloured: bool = True
    ) -> list[str]:
        """The lines for a screen of that size; ``None`` is as much as is needed."""
        head = [_cut(line, columns) for line in (self._counts(), *self._trust())]
        if coloured and self._outage:
            head[1] = click.style(head[1], fg="red", bold=True)
        if not self._gpus:
            return head
        room = None if lines is None else max(2, lines - len(head) - 1)
        table, hidden = _shortened(self._table(columns), room)
        # A green word from a server that is away would be read as news.
        paint = painted if coloured and not self._outage else str
        body = ["".join(map(paint, row)) for row in table]
        rest = [_cut(f"{_ELLIPSIS} and {hidden} more", columns)] if hidden else []
        return [*head, "", *body, *rest]

    def _counts(self) -> str:
        if self._gpus is None:
            return "GPUs: not known yet"
        counts = Counter(gpu.ready for gpu in self._gpus)
        parts = [f"{counts[status]} {word}" for status, word in _KINDS if counts[status]]
        return "   ".join((f"GPUs: {len(self._gpus)}", *parts))

    def _trust(self) -> list[str]:
        if self._outage and self._age_seconds is None:
            return [f"waiting: {self._outage}"]
        if self._outage:
            return [f"STALE, as of {format_age(self._age_seconds or 0)} ago: {self._outage}"]
        return [] if self._age_seconds is None else ["up to date"]

    def _table(self, columns: int | None) -> list[list[str]]:
        """For each row its cells and the spaces between."""
        rows = [list(_COLUMNS)]
        rows += [[one_line(show(gpu)) for show in _COLUMNS.values()] for gpu in self._gpus or ()]
        widths = _widths(rows, columns)
        return [_row(cells, widths) for cells in rows]


def _widths(rows: Sequence[Sequence[str]], columns: int | None) -> list[int]:
    """The widths of as many columns as fit. The message may be cut; else the name is, before a
    column is left out."""
    natural = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if columns is None:
        return natural
    for count in range(len(natural), 1, -1):
        widths = natural[:count]
        spare = columns - sum(widths) - len(_GAP) * (count - 1)
        if spare >= 0:
            return widths
        elastic, least = (-1, _LEAST_MESSAGE) if count == len(natural) else (0, _LEAST_NAME)
        widths[elastic] += spare
        if widths[elastic] >= least:
            return widths
    return [max(1, columns - len(_GAP) - natural[1]), natural[1]]


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    parts: list[str] = []
    for cell, width in zip(cells, widths, strict=False):
        shown = _cut(cell, width)
        parts += [shown, " " * (width - len(shown)) + _GAP]
    return parts[:-1]


def _shortened(table: list[list[str]], room: int | None) -> tuple[list[list[str]], int]:
    """As many rows as there is room for, and how many are left out, which need a line, too."""
    if room is None or len(table) <= room:
        return table, 0
    return table[: room - 1], len(table) - room + 1


def _cut(text: str, width: int | None) -> str:
    if width is None or len(text) <= width:
        return text
    return text[: max(0, width - 1)] + _ELLIPSIS
