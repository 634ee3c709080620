"""The thread that waits for the disk, so that the event loop never does."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from device_api_core.database import Database
from device_api_core.entries import Entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What changed since the batch before: GPUs by name, ``None`` for one that is gone."""

    number: int
    changed: dict[str, Entry | None]
    ceiling: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt to write ended; ``number`` is the newest batch in it, ``error`` is empty if
    it is on the disk."""

    number: int
    seconds: float
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Wanted:
    """What the disk should hold, and what of it is not there yet."""

    number: int = 0
    ceiling: int = 0
    everything: dict[str, Entry] = field(default_factory=dict)
    changed: dict[str, Entry | None] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        self.number, self.ceiling = batch.number, batch.ceiling
        self.changed.update(batch.changed)
        for name, entry in batch.changed.items():
            if entry is None:
                self.everything.pop(name, None)
            else:
                self.everything[name] = entry


class Writer:
    """Writes batches, all that wait in one commit, and tries again what failed. ``tell`` is called
    in its thread after each attempt; ``monotonic`` is a clock in seconds."""

    def __init__(
        self,
        database: Database,
        boot_id: str,
        tell: Callable[[Outcome], None],
        *,
        monotonic: Callable[[], float],
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._boot_id = boot_id
        self._tell = tell
        self._monotonic = monotonic
        self._retry_seconds = retry_seconds
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._stopping = False
        self._given_up = False

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Have a batch written. Does not wait."""
        self._batches.put(batch)

    def stop(self, seconds: float) -> bool:
        """Write what is left and end. Returns whether it did within that time."""
        if not self.running:
            self._database.release()
            return True
        self._batches.put(None)
        self._thread.join(seconds)
        self._given_up = True
        return not self.running

    def _run(self) -> None:
        wanted = _Wanted()
        unwritten = False
        while unwritten or not self._stopping:
            if self._given_up:
                break
            self._collect(wanted, self._retry_seconds if unwritten else None)
            unwritten = wanted.number > 0 and not self._write(wanted)
        self._database.release()

    def _collect(self, wanted: _Wanted, timeout: float | None) -> None:
        """Wait for a batch, or until it is time to try again; take all that are there."""
        try:
            batch = self._batches.get(timeout=timeout)
            while batch is not None:
                wanted.add(batch)
                batch = self._batches.get_nowait()
            self._stopping = True
        except queue.Empty:
            pass

    def _write(self, wanted: _Wanted) -> bool:
        began = self._monotonic()
        error = ""
        try:
            self._database.write(
                wanted.changed, wanted.everything, ceiling=wanted.ceiling, boot_id=self._boot_id
            )
            wanted.changed.clear()
        except Exception as fault:
            # The thread's boundary: whatever it is, it is told and tried again.
            logger.debug("a state write failed", exc_info=True)
            error = f"{type(fault).__name__}: {fault}"
        seconds = self._monotonic() - began
        notes = self._database.take_notes()
        self._tell(Outcome(wanted.number, seconds, error, notes))
        return not error
