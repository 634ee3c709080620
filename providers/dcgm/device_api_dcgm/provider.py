"""The DCGM provider: scrapes dcgm-exporter again and again and says what it learns."""

from __future__ import annotations

import logging
import queue
import threading
import time
from math import inf

from device_api_core.errors import SinkClosed
from device_api_core.plugins import Provider, Sink
from device_api_dcgm.exposition import Exposition, parse
from device_api_dcgm.fleet import Fleet
from device_api_dcgm.gpu import Doubt
from device_api_dcgm.health import TYPES, Judge
from device_api_dcgm.options import DcgmOptions, redacted
from device_api_dcgm.overruled import Overruled
from device_api_dcgm.scrape import Failure, ScrapeFailed, Scraper
from device_api_dcgm.series import EXPECTED, HEALTH

_log = logging.getLogger(__name__)


class DcgmProvider(Provider):
    """Reports DCGMHealth of every GPU that dcgm-exporter reports, and the condition of each health
    watch that DCGM has for it."""

    name = "dcgm"
    contract_version = 1
    types = TYPES
    reboot_proof_types = ()

    def __init__(self, options: DcgmOptions | None = None, state_dir: str = "") -> None:
        """
        Raises:
            InvalidOption: the XID lists contradict one another.
        """
        self.options = options or DcgmOptions()
        # A scrape that hangs delays the next word by its time-out.
        self.interval_seconds = self.options.interval_seconds + self.options.timeout_seconds
        self._judge = Judge(self.options)
        self._overruled = Overruled(state_dir)
        self._clears: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Returns soon after ``stop`` is set, even if the exporter hangs."""
        fleet = Fleet(sink, self._judge, self._overruled)
        try:
            fleet.resume(sink.known())
            _Run(self.options, sink, fleet, self._clears).run(stop)
        except SinkClosed:
            _log.info("sink closed")

    def clear(self, gpu: str, type: str) -> None:
        """Forget what is latched for it; the next scrape decides."""
        self._clears.put((gpu, type))


class _Run:
    """The state of one ``run``."""

    def __init__(
        self,
        options: DcgmOptions,
        sink: Sink,
        fleet: Fleet,
        clears: queue.SimpleQueue[tuple[str, str]],
    ) -> None:
        self._options = options
        self._sink = sink
        self._fleet = fleet
        self._clears = clears
        self._scraper = Scraper(options)
        self._url = redacted(options.url)
        self._failures = 0
        self._errors = 0
        self._last_error = ""
        self._good_at = -inf
        self._gpus = 0
        self._absent: list[str] = []
        self._garbage = ""

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            while not self._clears.empty():
                self._fleet.clear(*self._clears.get())
            try:
                scrape = self._scrape(stop)
            except ScrapeFailed as error:
                self._failed(error)
            else:
                if scrape is None:
                    return
                self._scraped(scrape)
            self._sink.alive(self._summary())
            stop.wait(max(0.0, began + self._options.interval_seconds - time.monotonic()))

    def _scrape(self, stop: threading.Event) -> Exposition | None:
        body = self._scraper.fetch(stop)
        if body is None:
            return None
        scrape = parse(body)
        if not scrape.gpus:
            # An exporter that reloads answers so for a moment. It never means "no GPUs".
            what = "no GPU is in the answer" if body.strip() else "the answer is empty"
            raise ScrapeFailed(Failure.EMPTY, what)
        return scrape

    def _scraped(self, scrape: Exposition) -> None:
        first = self._good_at == -inf
        if self._failures:
            _log.info("dcgm-exporter answers again", extra={"url": self._url})
        self._failures = 0
        self._gpus = len(scrape.gpus)
        self._note_absent(scrape, first=first)
        self._note_garbage(scrape)
        self._fleet.observe(scrape, time.monotonic())
        self._fleet.publish()
        self._good_at = time.monotonic()
        self._sink.gauge("last_scrape_timestamp_seconds", time.time())
        if first:
            self._sink.synced()

    def _failed(self, error: ScrapeFailed) -> None:
        why = str(error)
        self._sink.count("scrape_errors", kind=error.kind)
        self._failures += 1
        self._errors += 1
        if self._failures == 1 or why != self._last_error:
            _log.warning("scrape failed: %s", why, extra={"url": self._url})
        self._last_error = why
        doubt = None
        if self._failures >= self._options.failed_scrapes:
            doubt = Doubt("ScrapeFailed", f"dcgm-exporter cannot be read ({self._url}): {why}.")
        self._fleet.fail(doubt)
        self._fleet.publish()

    def _note_absent(self, scrape: Exposition, *, first: bool) -> None:
        there = scrape.series
        absent = [name for name in EXPECTED if name not in there]
        for name in EXPECTED:
            self._sink.gauge("absent_series", float(name in absent), series=name)
        lacking = HEALTH in absent
        if lacking and (first or HEALTH not in self._absent):
            _log.warning(
                "dcgm-exporter does not report %s: DCGM's own health checks are not seen, only "
                "what the other series tell; give it the counters file that `device-api dcgm "
                "counters` prints",
                HEALTH,
                extra={"url": self._url, "absent": ", ".join(absent)},
            )
        elif not lacking and not first and HEALTH in self._absent:
            _log.info("dcgm-exporter reports %s now", HEALTH, extra={"url": self._url})
        self._absent = absent

    def _note_garbage(self, scrape: Exposition) -> None:
        parts = ((scrape.skipped, "no samples"), (scrape.garbled, "not UTF-8"))
        garbage = ", ".join(f"{count} lines are {what}" for count, what in parts if count)
        if garbage and not self._garbage:
            _log.warning("an exposition is partly unreadable: %s", garbage)
        self._garbage = garbage

    def _summary(self) -> str:
        """One line for whoever asks how the provider does."""
        age = time.monotonic() - self._good_at
        parts = ["not scraped yet" if age == inf else f"scraped {age:.0f} s ago, {self._gpus} GPUs"]
        if self._absent:
            fix = " (see `device-api dcgm counters`)" if HEALTH in self._absent else ""
            parts.append(f"absent series: {', '.join(self._absent)}{fix}")
        if self._garbage:
            parts.append(self._garbage)
        if self._fleet.refusals:
            parts.append(f"GPUs not taken by the daemon: {self._fleet.refusals}")
        if self._errors:
            parts.append(
                f"failed scrapes: {self._errors}, {self._failures} in a row, last: "
                f"{self._last_error}"
            )
        return "; ".join(parts)
