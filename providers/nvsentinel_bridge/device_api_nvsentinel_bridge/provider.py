"""The provider: events in from the receiver, reports out through the sink."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing

from device_api_core.errors import DeviceApiError, SinkClosed
from device_api_core.plugins import Provider, Sink
from device_api_core.resources import Condition, Gpu, GpuSpec
from device_api_nvsentinel_bridge.counts import Count, Counts
from device_api_nvsentinel_bridge.events import read_event
from device_api_nvsentinel_bridge.inbox import Cleared, Entry, Inbox, Item
from device_api_nvsentinel_bridge.journal import Journal
from device_api_nvsentinel_bridge.ledger import CLEARED_BY_OPERATOR, NODE_REBOOTED, Ledger
from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.receiver import Receiver
from device_api_nvsentinel_bridge.report import DOMAIN, ROLL_UP, Report

_WAKE_SECONDS = 0.1  # how late a stop may be seen
_SOON_SECONDS = 0.5
_log = logging.getLogger(__name__)


class NvsentinelProvider(Provider):
    """See the package's documentation. One run at a time."""

    name = "nvsentinel"
    contract_version = 1
    interval_seconds = 5.0
    types = (ROLL_UP, f"{DOMAIN}*")

    def __init__(self, options: BridgeOptions, state_dir: str = "") -> None:
        self._options = options
        self._state_dir = state_dir
        self._inbox = Inbox()
        self.interval_seconds = max(self.interval_seconds, 2 * options.poll_seconds)

    def __repr__(self) -> str:
        return f"<NvsentinelProvider {self._state_dir or 'in memory'}>"

    def run(self, sink: Sink, stop: threading.Event) -> None:
        counts = Counts(lambda name, number, word: sink.count(name, number, outcome=word))
        if not self._state_dir:
            _log.warning(
                "the server keeps no state: what NVSentinel reported is lost on a restart, and it "
                "does not repeat itself"
            )
        with closing(Journal(self._state_dir, self._inbox.put)) as journal:
            records, entries = journal.load()
            ledger = Ledger(records, self._options.pending_limit, counts)
            bridge = _Bridge(sink, ledger, journal, self._options, counts)
            try:
                bridge.resume(entries)
                receiver = Receiver(
                    self._options,
                    counts,
                    keep=journal.append,
                    backlog=self._inbox.__len__,
                )
                with receiver:
                    self._watch(bridge, sink, stop)
                # What was accepted last is applied at the next start, from the journal.
            except SinkClosed:
                return

    def clear(self, gpu: str, type: str) -> None:
        self._inbox.put([Cleared(gpu, type, time.time_ns())])

    def _watch(self, bridge: _Bridge, sink: Sink, stop: threading.Event) -> None:
        sink.synced()
        while not stop.is_set():
            bridge.poll_if_due(keeps_nothing=not self._state_dir)
            wait = min(_WAKE_SECONDS, bridge.due - time.monotonic())
            if items := self._inbox.take(wait):
                bridge.apply(items)


class _Bridge:
    """One run: keeps ledger, journal and daemon in step. Belongs to the provider's thread."""

    def __init__(
        self, sink: Sink, ledger: Ledger, journal: Journal, options: BridgeOptions, counts: Counts
    ) -> None:
        self.due = 0.0
        """When to look at the daemon's GPUs next (monotonic seconds)."""
        self._sink = sink
        self._ledger = ledger
        self._journal = journal
        self._options = options
        self._counts = counts
        self._present: frozenset[str] = frozenset()
        self._registered: set[str] = set()
        self._told: dict[str, Report] = {}
        self._polled = 0.0

    def resume(self, entries: Iterable[Entry]) -> None:
        """Be where the last run ended: the journal first, then what only the daemon remembers."""
        self._look(self._sink.gpus())
        known = self._sink.known()
        for gpu, conditions in known.items():
            self._ledger.adopt(gpu, conditions, time.time_ns())
        self._take(entries)
        for gpu, conditions in known.items():
            for condition in conditions:
                if condition.reason == NODE_REBOOTED and condition.last_transition_time:
                    self._ledger.doubt(gpu, condition.type, condition.last_transition_time)
        self._publish()

    def poll_if_due(self, *, keeps_nothing: bool) -> None:
        """Compare what the daemon shows with what it should show."""
        if time.monotonic() < self.due:
            return
        gpus = self._sink.gpus()
        self._look(gpus)
        for gpu in gpus:
            shown = _own(gpu)
            for condition in shown:
                if condition.reason == CLEARED_BY_OPERATOR:
                    when = condition.last_transition_time or 0
                    self._ledger.clear(gpu.name, condition.type, when, time.time_ns())
            report = self._ledger.report(gpu.name)
            if report is not None and _gist(report.conditions) != _gist(shown):
                self._told.pop(gpu.name, None)
                self._tell(gpu.name, report)
        self._publish()
        self._journal.flush()
        self._sink.gauge("waiting_events", self._ledger.waiting)
        self._sink.alive(self._summary(keeps_nothing=keeps_nothing))
        self._polled = time.monotonic()
        self.due = self._polled + self._options.poll_seconds

    def apply(self, items: Sequence[Item]) -> None:
        """Take what came, then say what follows from all of it."""
        now = time.time_ns()
        waiting = self._ledger.waiting
        self._take(item for item in items if isinstance(item, Entry))
        for item in items:
            if isinstance(item, Cleared):
                self._ledger.clear(item.gpu, item.type, item.when, now)
        self._publish()
        if self._ledger.waiting > waiting:
            # The GPU may have been registered a moment ago.
            self.due = min(self.due, self._polled + _SOON_SECONDS)

    def _take(self, entries: Iterable[Entry]) -> None:
        now = time.time_ns()
        for entry in entries:
            event = read_event(entry.message, entry.arrival, self._options)
            self._ledger.take(entry.number, event, now)

    def _look(self, gpus: Sequence[Gpu]) -> None:
        self._present = frozenset(gpu.name for gpu in gpus)
        self._registered &= self._present
        self._ledger.see(gpus, time.time_ns())

    def _publish(self) -> None:
        changes, news = self._ledger.collect()
        for gpu in sorted(news & self._present):
            report = self._ledger.report(gpu)
            if report is not None and report != self._told.get(gpu):
                self._tell(gpu, report)
        self._journal.save(changes)

    def _tell(self, gpu: str, report: Report) -> None:
        """What the daemon refuses stays untold until the next look, which sees the difference."""
        try:
            if not self._join(gpu):
                return
            self._sink.set_status(gpu, report.conditions, recommended_action=report.action)
        except SinkClosed:
            raise
        except DeviceApiError as error:
            self._told.pop(gpu, None)
            if self._counts.add(Count.UNTOLD) == 1:
                _log.warning(
                    "the daemon refused a report", extra={"gpu": gpu, "error": error.message}
                )
        else:
            self._told[gpu] = report

    def _join(self, gpu: str) -> bool:
        """Register for the GPU, where there is something to say of it for the first time."""
        if gpu in self._registered:
            return True
        if self._sink.register(gpu, GpuSpec()):
            # It was removed a moment ago. Bringing it back is not for a bridge to do.
            self._sink.withdraw(gpu)
            return False
        self._registered.add(gpu)
        return True

    def _summary(self, *, keeps_nothing: bool) -> str:
        parts = [
            f"{self._ledger.faulty} GPUs with faults",
            f"{self._ledger.waiting} events waiting for a GPU",
            f"events: {self._counts}" if str(self._counts) else "no events yet",
        ]
        if keeps_nothing:
            parts.append("no state directory: events are lost on restart")
        if self._journal.failing:
            parts.append("THE JOURNAL CANNOT BE WRITTEN")
        return "; ".join(parts)


def _own(gpu: Gpu) -> list[Condition]:
    return [c for c in gpu.status.conditions if c.type == ROLL_UP or c.type.startswith(DOMAIN)]


def _gist(conditions: Iterable[Condition]) -> set[tuple[str, str, str, str]]:
    return {(c.type, c.status.value, c.reason, c.message) for c in conditions}
