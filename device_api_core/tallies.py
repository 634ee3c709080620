"""What providers have counted, as ``/metrics`` shows it: ``device_api_provider_<name>``.

A provider tells the totals of its present run, so telling them twice counts once. What earlier runs
have counted is kept: a counter rises as long as the server lives, however often its provider
starts. A gauge is gone as soon as its provider is not believed any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from device_api_core.series import MAX_SERIES, REFUSED, Numbers, Series

MAX_ALL_SERIES = 2_048
"""Of all providers together, so that the page stays quick."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Book:
    """One provider's numbers. ``earlier`` are the totals of the runs before the present one."""

    run: int | None = None
    earlier: dict[Series, float] = field(default_factory=dict)
    counts: dict[Series, float] = field(default_factory=dict)
    gauges: dict[Series, float] = field(default_factory=dict)
    refused: int = 0

    def __len__(self) -> int:
        return len(self.counts) + len(self.gauges) - (REFUSED in self.counts)


class Tallies:
    """The numbers of all providers, by id. Lives on the event loop."""

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._sources: dict[str, Callable[[], Numbers]] = {}

    def __repr__(self) -> str:
        return f"<Tallies {sum(map(len, self._books.values()))} series>"

    def attach(self, provider_id: str, source: Callable[[], Numbers]) -> None:
        """Read the numbers of a provider of this process from ``source`` when they are asked for,
        instead of being told them."""
        self._sources[provider_id] = source

    def detach(self, provider_id: str, source: Callable[[], Numbers]) -> None:
        """Read them a last time, unless another source took the place of this one."""
        if self._sources.get(provider_id) == source:
            del self._sources[provider_id]
            self.take(provider_id, source())

    def take(self, provider_id: str, numbers: Numbers) -> None:
        """Note what a provider tells. What there is no room for is left out, logged and counted."""
        book = self._books.setdefault(provider_id, _Book())
        if numbers.run != book.run:
            book.run, book.earlier = numbers.run, dict(book.counts)
        book.gauges = {}
        room = min(MAX_SERIES - len(book), MAX_ALL_SERIES - sum(map(len, self._books.values())))
        refused = 0
        for series, value in numbers.counts.items():
            known = book.counts.get(series)
            if known is None and series != REFUSED:
                if room <= 0:
                    refused += 1
                    continue
                room -= 1
            # An older message may come late.
            total = book.earlier.get(series, 0.0) + value
            book.counts[series] = total if known is None else max(known, total)
        book.gauges = dict(list(numbers.gauges.items())[: max(0, room)])
        refused += len(numbers.gauges) - len(book.gauges)
        if refused and not book.refused:
            facts = {"provider": provider_id, "series": refused}
            logger.warning("a provider has too many series: some are left out", extra=facts)
        book.refused += refused

    def lapse(self, provider_id: str) -> None:
        """The provider is not believed any more: its gauges go."""
        if (book := self._books.get(provider_id)) is not None:
            book.gauges = {}

    def forget(self, provider_id: str) -> None:
        """The provider is gone for good."""
        self._books.pop(provider_id, None)

    def lines(self) -> Iterator[tuple[str, str, Series, float]]:
        """All of them now: provider, ``counter`` or ``gauge``, series and value."""
        for provider_id, source in self._sources.items():
            self.take(provider_id, source())
        for provider_id, book in self._books.items():
            for kind, series, value in _lines(book):
                yield provider_id, kind, series, value


def _lines(book: _Book) -> Iterator[tuple[str, Series, float]]:
    counts = book.counts
    if book.refused:
        counts = {**counts, REFUSED: counts.get(REFUSED, 0.0) + book.refused}
    for series, value in counts.items():
        yield "counter", series, value
    for series, value in book.gauges.items():
        yield "gauge", series, value
