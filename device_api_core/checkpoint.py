"""What survives a restart: noted on the event loop, written by a thread, acknowledged in between.

A change is visible first, on the disk next, acknowledged last. The loop never waits for the disk:
it hands what changed to the writer and gives whoever acknowledges something to wait for. What came
in meanwhile shares the next commit. A disk that fails or is slow delays nothing for longer than
``PATIENCE_SECONDS``: then changes are acknowledged before they are written, which is counted and
told, until a write succeeds in time again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from device_api_core.database import Database
from device_api_core.entries import Entry
from device_api_core.events import EventLog, Kind
from device_api_core.observation import StateObservation
from device_api_core.restoring import must_be_kept
from device_api_core.rows import Contents
from device_api_core.writer import Batch, Outcome, Writer

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
"""Versions reserved at a time, so that no update waits for the disk because of its version."""
PATIENCE_SECONDS = 1.0
"""How long an acknowledgement waits for the disk."""
BATCH_SECONDS = 1.0
"""How long what may be lost waits for company."""
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 2.0


class Checkpoint:
    """Keeps everything that is noted. Lives on the event loop; the database is its thread's.

    ``monotonic`` is a clock in seconds. ``load`` comes first, then notes, then ``start``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        boot_id: str,
        events: EventLog,
        monotonic: Callable[[], float],
        patience_seconds: float = PATIENCE_SECONDS,
        batch_seconds: float = BATCH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._database = Database(directory)
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._patience_seconds = patience_seconds
        self._batch_seconds = batch_seconds
        self._writer = Writer(
            self._database, boot_id, self._tell, monotonic=monotonic, retry_seconds=retry_seconds
        )
        self._ceiling = 0
        self._changed: dict[str, Entry | None] = {}
        self._numbers = 0
        self._urgent = 0
        self._saved = 0
        self._flush_later: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._trouble = ""
        self._failures = 0
        self._late = 0

    def __repr__(self) -> str:
        return f"<Checkpoint {self._database!r} at {self._saved} of {self._numbers}>"

    def load(self, now: int) -> Contents:
        """What was kept last, for :func:`~device_api_core.restoring.restored` to judge. ``now`` is
        nanoseconds since the Unix epoch. A file that cannot be used is set aside; a disk that fails
        is an alarm, and the server starts with what it has.

        Raises:
            SettingsError: the directory cannot be used, or another server uses it.
        """
        try:
            self._database.claim()
            contents = self._database.load(now)
        except OSError as error:
            self._degrade(f"the state cannot be read: {error}")
            contents = Contents()
        self._take_notes(self._database.take_notes())
        self._ceiling = contents.ceiling
        return contents

    def reserve(self, version: int) -> None:
        """Have a block of versions from this one on."""
        self._ceiling = version + BLOCK

    async def start(self) -> None:
        """Write what was noted so far, and from now on whatever is. Returns once the versions are
        reserved on the disk, or the disk has failed to."""
        self._writer.start()
        self._urgent = self._numbers + 1
        self._flush(anyway=True)
        if (saving := self.saving()) is not None:
            await saving

    def note(self, name: str, before: Entry | None, after: Entry | None, version: int) -> None:
        """A GPU changed, in what readers see or in what only the server knows. ``version`` is the
        counter's."""
        self._changed[name] = after
        if version > self._ceiling - BLOCK // 2:
            self._ceiling += BLOCK
        if must_be_kept(before, after):
            # Flushed at the end of this step of the loop at the latest, so that what changed
            # together is kept together.
            self._urgent = self._numbers + 1
            self._loop.call_soon(self._flush)
        elif self._flush_later is None:
            self._flush_later = self._loop.call_later(self._batch_seconds, self._flush)

    def saving(self) -> asyncio.Future[None] | None:
        """What an acknowledgement has to wait for, if there is something; it ends in
        ``PATIENCE_SECONDS`` at the latest and never fails. No acknowledgement overtakes bad news
        that is on its way to the disk, also not that of its repetition."""
        if self._urgent <= self._saved or not self._writer.running:
            return None
        self._flush()
        if self._trouble:
            self._late += 1
            return None
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((self._urgent, waiting))
        return waiting

    def observation(self) -> StateObservation:
        """Its health, for the metrics."""
        return StateObservation(failures=self._failures, late=self._late, healthy=not self._trouble)

    def close(self) -> None:
        """Write what is pending and end the thread, in ``CLOSE_SECONDS`` at the most."""
        if self._flush_later is not None:
            self._flush_later.cancel()
        self._flush()
        if not self._writer.stop(CLOSE_SECONDS):
            logger.error("the last changes are not on the disk", extra={"cause": self._trouble})

    def _flush(self, *, anyway: bool = False) -> None:
        if self._flush_later is not None:
            self._flush_later.cancel()
            self._flush_later = None
        if not self._writer.running or not (self._changed or anyway):
            return
        self._numbers += 1
        self._writer.put(Batch(self._numbers, self._changed, self._ceiling))
        self._changed = {}
        self._loop.call_later(self._patience_seconds, self._check, self._numbers)

    def _check(self, number: int) -> None:
        if self._saved < number:
            seconds = self._patience_seconds
            self._degrade(f"the disk takes more than {seconds:g} s to write the state")

    def _tell(self, outcome: Outcome) -> None:
        """Called by the writer's thread."""
        try:
            self._loop.call_soon_threadsafe(self._note_outcome, outcome)
        except RuntimeError:
            # The loop is closed: only the last words of a server are not heard.
            logger.info("the state was written after the server", extra={"error": outcome.error})

    def _note_outcome(self, outcome: Outcome) -> None:
        self._take_notes(outcome.notes)
        if outcome.error:
            self._failures += 1
            self._degrade(f"the state cannot be written: {outcome.error}")
            return
        self._saved = outcome.number
        while self._waiting and self._waiting[0][0] <= outcome.number:
            self._release(self._waiting.popleft()[1])
        if not self._trouble:
            return
        if outcome.seconds < self._patience_seconds:
            self._trouble = ""
            self._record("StateWritten", "the state is written in time again", warning=False)
        else:
            self._loop.call_later(self._patience_seconds, self._probe)

    def _probe(self) -> None:
        """Find out whether the disk has become faster, though nothing has changed."""
        if self._trouble:
            self._ceiling += 1
            self._flush(anyway=True)

    def _degrade(self, trouble: str) -> None:
        """Let nobody wait for the disk until it works again."""
        if not self._trouble:
            self._record(
                "StateNotWritten",
                f"{trouble}; changes are acknowledged before they are kept, and a restart now "
                "may forget a fault",
            )
        self._trouble = trouble
        self._late += sum(not waiting.done() for _, waiting in self._waiting)
        while self._waiting:
            self._release(self._waiting.popleft()[1])

    def _release(self, waiting: asyncio.Future[None]) -> None:
        # Cancelled is a caller who went away.
        if not waiting.done():
            waiting.set_result(None)

    def _take_notes(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            self._record("StateSetAside", note)

    def _record(self, reason: str, text: str, *, warning: bool = True) -> None:
        self._events.record(Kind.SERVER, reason, text, warning=warning)
