"""Keeping XIDs watched: which GPUs, by which event set, and what happens when one fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from device_api_nvml.board import Board
from device_api_nvml.boards import Boards
from device_api_nvml.calls import Inbox
from device_api_nvml.events import EventWatch
from device_api_nvml.health import Doubt, unresponsive
from device_api_nvml.library import (
    XID_EVENTS,
    Event,
    GpuLost,
    Handle,
    Nvml,
    NvmlError,
    ResetRequired,
    Unsupported,
)
from device_api_nvml.options import NvmlOptions

_FAILURES_BEFORE_DOUBT = 3
_WAITS_BEFORE_TRUST = 2
_MAX_STUCK = 2
_WAIT_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Watch:
    """Owns the event watches of a session; only the newest one counts.

    A GPU that is not covered yet makes a new event set for all of them; the old set is given up
    when the new one is complete, so that no event falls between the two. Every method belongs to
    the inbox's thread."""

    def __init__(
        self,
        nvml: Nvml,
        boards: Boards,
        inbox: Inbox,
        options: NvmlOptions,
        look: Callable[[Board], None],
    ) -> None:
        self.signal: NvmlError | None = None
        """Why the last event set failed, until somebody takes note."""
        self.strays: list[Event] = []
        """XIDs of a GPU that the event does not name, until somebody takes note."""
        self.due = 0.0
        """No new event set before this time (monotonic seconds)."""
        self._nvml = nvml
        self._boards = boards
        self._inbox = inbox
        self._options = options
        self._look = look
        self._current: EventWatch | None = None
        self._starting: EventWatch | None = None
        self._stuck: list[EventWatch] = []
        self._results: dict[str, NvmlError | None] = {}
        self._registered: dict[str, NvmlError | None] = {}
        self._failures = 0

    def sync(self) -> None:
        """Have every GPU that answers watched, if that is possible now. Does not wait for it."""
        self._give_up_stuck()
        if self._failures and self._current and self._current.waits >= _WAITS_BEFORE_TRUST:
            self._trust()
        gpus = self._watchable()
        uncovered = gpus.keys() - self._registered.keys()
        if self.starting or not uncovered or time.monotonic() < self.due:
            return
        if len(self._stuck) >= _MAX_STUCK:
            # Each further attempt could cost a thread. One of them has to come back first.
            self._boards.doubt_watch(unresponsive("Waiting for XIDs", self._options.call_seconds))
            return
        self._results = {}
        self._starting = EventWatch(self._nvml, gpus, self._inbox.post, self)
        self._starting.start()

    @property
    def starting(self) -> bool:
        """Whether GPUs are being registered at present."""
        return self._starting is not None

    def close(self) -> bool:
        """End the watches; returns whether no thread is inside the library any more."""
        threads = [w for w in (self._current, self._starting, *self._stuck) if w]
        self._current = self._starting = None  # what they still tell no longer counts
        for thread in threads:
            thread.end()
        end = time.monotonic() + _WAIT_SECONDS * 1.5
        for thread in threads:
            if thread not in self._stuck:
                thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def on_registered(self, watch: EventWatch, name: str, error: NvmlError | None) -> None:
        if watch is self._starting:
            self._results[name] = error

    def on_watching(self, watch: EventWatch) -> None:
        if watch is not self._starting:  # it was given up, and came back after all
            watch.end()
            return
        self._starting = None
        if self._current is not None:
            self._current.end()
        self._current = watch
        # Only now: before the first wait a registered GPU has nobody who reads its events.
        results, self._results = self._results, {}
        self._registered = {n: e for n, e in results.items() if _settled(e)}
        if len(self._registered) < len(results):
            self.due = time.monotonic() + self._options.retry_seconds
        if self._failures < _FAILURES_BEFORE_DOUBT:
            self._report(results)

    def _report(self, results: dict[str, NvmlError | None]) -> None:
        for name, error in results.items():
            if (board := self._boards.get(name)) is None:
                continue
            if not isinstance(error, GpuLost | ResetRequired):  # looking at it tells more
                self._boards.registered(board, error)
            self._look(board)

    def on_event(self, name: str, event: Event) -> None:
        board = self._boards.get(name)
        if event.type != XID_EVENTS:
            if board is not None:
                self._look(board)
            return
        self._boards.xids[event.data] += 1
        self._boards.sink.count("xids", gpu=name, code=event.data)
        if board is None:
            self.strays.append(event)
        else:
            self._boards.hit(board, event)
            self._look(board)

    def on_ended(self, watch: EventWatch, error: NvmlError | None) -> None:
        if watch in self._stuck:
            self._stuck.remove(watch)
        if watch not in (self._current, self._starting):
            return
        self._drop(watch)
        if error is not None:
            self._failed(error)

    def _drop(self, watch: EventWatch) -> None:
        self._current = None if watch is self._current else self._current
        self._starting = None if watch is self._starting else self._starting

    def _watchable(self) -> dict[str, Handle]:
        blamed = {w.registering for w in self._stuck}
        return {
            board.name: board.handle
            for board in self._boards
            if board.handle and board.answers and board.name not in blamed
        }

    def _give_up_stuck(self) -> None:
        limit = self._options.call_seconds
        for watch in (self._current, self._starting):
            waiting = _WAIT_SECONDS if watch is self._current else 0.0
            if watch is None or time.monotonic() - watch.returned < limit + waiting:
                continue
            _log.error("event watch does not return", extra={"registering": watch.registering})
            watch.end()
            self._stuck.append(watch)
            if watch is self._current:
                self._registered.clear()
            self._drop(watch)
            if self._current is None:
                self._boards.doubt_watch(unresponsive("Watching XIDs", limit))
            if (board := self._boards.get(watch.registering)) is not None:
                self._boards.doubt_watch(unresponsive("Registering for XIDs", limit), board)

    def _failed(self, error: NvmlError) -> None:
        self.signal = error
        self._boards.interrupted()
        self._failures += 1
        self._registered.clear()
        # At once for the first time: while nobody watches, XIDs are lost.
        pause = 0.0 if self._failures == 1 else 2.0 ** (self._failures - 2)
        self.due = time.monotonic() + min(pause, self._options.retry_seconds)
        if self._failures == 1:
            _log.warning("event watch failed: %s", error.message, extra={"nvml": error.number})
        if self._failures >= _FAILURES_BEFORE_DOUBT:
            self._boards.doubt_watch(Doubt("XidWatchFailed", f"{error.message}."))

    def _trust(self) -> None:
        _log.info("event watch works again", extra={"failures": self._failures})
        doubted = self._failures >= _FAILURES_BEFORE_DOUBT
        self._failures = 0
        if doubted:
            self._report(self._registered)


def _settled(error: NvmlError | None) -> bool:
    """Whether trying again would be of no use."""
    return error is None or isinstance(error, Unsupported)
