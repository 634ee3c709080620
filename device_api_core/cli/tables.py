"""Aligned tables in the manner of kubectl, and the colours of their words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import click

_GAP = "   "

_COLOURS = {
    "True": "green",
    "False": "red",
    "Unknown": "yellow",
    "running": "green",
    "starting": "yellow",
    "silent": "yellow",
    "failed": "red",
    "error": "red",
    "lost": "red",
    "Warning": "yellow",
}

Row = TypeVar("Row")


class Table(Generic[Row]):
    """Columns by heading, each with what a row shows there.

    Widths grow with every row rendered and never shrink, so that rows which come later, one by
    one, stay under their headings. ``least`` widens columns whose longest text is foreseeable.
    """

    def __init__(
        self,
        columns: Mapping[str, Callable[[Row], str]],
        *,
        least: Mapping[str, int] | None = None,
    ) -> None:
        self._columns = dict(columns)
        self._widths = [max(len(h), (least or {}).get(h, 0)) for h in self._columns]

    def lines(self, rows: Iterable[Row], *, headings: bool = True) -> list[str]:
        """One line for each row, headings first if wanted."""
        cells = [[one_line(show(row)) for show in self._columns.values()] for row in rows]
        for row in cells:
            self._widths = [max(w, len(c)) for w, c in zip(self._widths, row, strict=True)]
        shown = [self._line(list(self._columns))] if headings else []
        return shown + [self._line(row) for row in cells]

    def _line(self, cells: Sequence[str]) -> str:
        # Padding comes before colour, whose escape codes have no width on the screen. The last
        # column needs none.
        *padded, last = zip(cells, self._widths, strict=True)
        parts = [painted(cell) + " " * (width - len(cell)) for cell, width in padded]
        return _GAP.join([*parts, painted(last[0])])


def one_line(text: str) -> str:
    """A text of any shape as one line; ``-`` if there is none. Providers write what they like, and
    a terminal would obey what is no text."""
    words = " ".join(text.split())
    if not words.isprintable():
        words = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    return words or "-"


def painted(text: str) -> str:
    """The words for status and state in their colour, any other text as it is."""
    return click.style(text, fg=_COLOURS[text]) if text in _COLOURS else text


def indented(lines: Iterable[str], prefix: str = "  ") -> list[str]:
    """The lines, moved to the right."""
    return [prefix + line for line in lines]
