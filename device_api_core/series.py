"""The numbers that a provider shows beside its reports, as it makes them.

Names and labels follow Prometheus. Every check raises
:class:`~device_api_core.errors.InvalidArgument` naming the rule that was broken.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Mapping
from typing import NamedTuple

from device_api_core.errors import InvalidArgument

MAX_SERIES = 512
"""Of one provider."""
MAX_LABELS = 4
MAX_LABEL_VALUE_CHARS = 128


_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What Prometheus's formats add to a name, and labels that mean something there already.
_SUFFIXES = ("_total", "_count", "_sum", "_bucket", "_created", "_info")
_TAKEN_LABELS = frozenset({"provider_id", "le", "quantile", "job", "instance"})
logger = logging.getLogger(__name__)


class Series(NamedTuple):
    """One line of the metrics page: a name, and labels sorted by name."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, labels: Mapping[str, object]) -> Series:
        """The series with these labels, whatever the type of their values. Long values are cut."""
        texts = {label: _text(value) for label, value in labels.items()}
        return cls(name, tuple(sorted(texts.items())))

    def check(self, path: str = "") -> None:
        """Raises ``InvalidArgument`` if it cannot be shown. ``path`` comes before a field's name in
        the message."""
        if not _WORD.fullmatch(self.name) or self.name.endswith(_SUFFIXES):
            raise InvalidArgument(
                f"{path}name",
                "must be like scrape_errors: up to 64 of a-z, 0-9 and _, without what the page "
                f"adds ({', '.join(_SUFFIXES)}); not {self.name[:64]!r}",
            )
        if len(self.labels) > MAX_LABELS:
            raise InvalidArgument(f"{path}labels", f"must be at most {MAX_LABELS}")
        for label, value in self.labels:
            if not _WORD.fullmatch(label) or label in _TAKEN_LABELS:
                raise InvalidArgument(
                    f"{path}labels",
                    "must have names of a-z, 0-9 and _ other than "
                    f"{', '.join(sorted(_TAKEN_LABELS))}; not {label[:64]!r}",
                )
            if len(value) > MAX_LABEL_VALUE_CHARS:
                raise InvalidArgument(
                    f"{path}labels", f"must have values of at most {MAX_LABEL_VALUE_CHARS} chars"
                )


REFUSED = Series("series_refused")
"""The counter of what was left out because there were too many series."""


class Numbers(NamedTuple):
    """What one run of a provider has counted since it began, and what it shows now. ``run`` tells
    it from other runs of the same provider."""

    run: int
    counts: Mapping[Series, float]
    gauges: Mapping[Series, float]


class Tally:
    """Counts for one run of a provider, from any of its threads, and never waits for a server."""

    def __init__(self) -> None:
        self._run = int.from_bytes(os.urandom(8)) >> 1
        self._lock = threading.Lock()
        self._counts: dict[Series, float] = {}
        self._gauges: dict[Series, float] = {}
        self._refused = 0

    def __repr__(self) -> str:
        return f"<Tally {len(self._counts)} counters, {len(self._gauges)} gauges>"

    def count(self, name: str, amount: float, labels: Mapping[str, object]) -> None:
        """See :meth:`~device_api_core.plugins.spec.Sink.count`."""
        series = Series.of(name, labels)
        check_amount(amount)
        with self._lock:
            if self._may_add(series, self._counts):
                self._counts[series] = self._counts.get(series, 0.0) + amount

    def gauge(self, name: str, value: float | None, labels: Mapping[str, object]) -> None:
        """See :meth:`~device_api_core.plugins.spec.Sink.gauge`."""
        series = Series.of(name, labels)
        with self._lock:
            if value is None:
                self._gauges.pop(series, None)
                return
            check_value(value)
            if self._may_add(series, self._gauges):
                self._gauges[series] = value

    def drop_gauges(self) -> None:
        """What is shown now is not believed any more."""
        with self._lock:
            self._gauges.clear()

    def read(self) -> Numbers:
        """All of it, as it is now."""
        with self._lock:
            counts = dict(self._counts)
            if self._refused:
                counts[REFUSED] = counts.get(REFUSED, 0.0) + self._refused
            return Numbers(self._run, counts, dict(self._gauges))

    def _may_add(self, series: Series, kept: Mapping[Series, float]) -> bool:
        if series in kept:
            return True
        series.check()
        if len(self._counts) + len(self._gauges) < MAX_SERIES:
            return True
        # A provider is not to fail for its numbers, so this is shown and not raised.
        if not self._refused:
            logger.warning(
                "more than %d series: this one and later ones are left out",
                MAX_SERIES,
                extra={"metric": series.name, "labels": dict(series.labels)},
            )
        self._refused += 1
        return False


def check_amount(amount: float, path: str = "") -> None:
    """Raises ``InvalidArgument`` if it cannot be counted."""
    if not 0 <= amount < math.inf:
        raise InvalidArgument(f"{path}amount", f"must be a number from 0 up, not {amount!r}")


def check_value(value: float, path: str = "") -> None:
    """Raises ``InvalidArgument`` if it cannot be shown."""
    if not math.isfinite(value):
        raise InvalidArgument(f"{path}value", f"must be a finite number, not {value!r}")


def _text(value: object) -> str:
    # A lone surrogate, from a file name say, cannot be sent.
    return str(value)[:MAX_LABEL_VALUE_CHARS].encode(errors="replace").decode()
