"""What must survive: accepted events until they took effect, and the records they led to.

NVSentinel never repeats an event that was answered with OK, and its monitors report changes only.
So an event is accepted once it is on disk. The calls that come while a transaction is written
share the next one and its fsync, and with it what came of earlier events: their records are
written and they are deleted in one transaction, so after a crash an event is either still there or
has taken effect.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError

from device_api_core.errors import SettingsError, Unavailable
from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb
from device_api_nvsentinel_bridge.faults import Record
from device_api_nvsentinel_bridge.inbox import Entry
from device_api_nvsentinel_bridge.ledger import Changes, Records

FILE = "journal.db"
T = TypeVar("T")

_VERSION = 1
_CHECKPOINT_COMMITS = 500
_WRITE_SECONDS = 8.0  # the sink gives up after 10
_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (number INTEGER PRIMARY KEY, arrival INTEGER, body BLOB);
CREATE TABLE IF NOT EXISTS record (gpu TEXT, name TEXT, body TEXT, PRIMARY KEY (gpu, name))
    WITHOUT ROWID;
"""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Append:
    messages: Sequence[pb.HealthEvent]
    arrival: int
    written: bool = False
    error: sqlite3.Error | None = None


class Journal:
    """The journal in ``state_dir``, or, if that is empty, one in memory. ``deliver`` is called with
    the events that became durable, in their order, before they are accepted.

    Raises:
        SettingsError: the directory cannot be used, another bridge uses it, or the journal was
            written by a newer version.
    """

    def __init__(self, state_dir: str, deliver: Callable[[Sequence[Entry]], None]) -> None:
        self._deliver = deliver
        self._path = Path(state_dir) / FILE if state_dir else None
        self._writing = threading.Lock()
        self._appends: deque[_Append] = deque()
        self._unsaved: deque[Changes] = deque()
        self._failing = False
        self._commits = 0
        self._db = _open(self._path)
        [(last,)] = self._db.execute("SELECT coalesce(max(number), 0) FROM event")
        self._number: int = last

    def __repr__(self) -> str:
        return f"<Journal {self._path or 'in memory'}>"

    @property
    def failing(self) -> bool:
        """Whether the last transaction could not be written."""
        return self._failing

    def load(self) -> tuple[Records, list[Entry]]:
        """The records, and the events without effect so far."""
        records: dict[str, dict[str, Record]] = {}
        for gpu, check, body in self._db.execute("SELECT gpu, name, body FROM record"):
            try:
                record = Record.from_json(check, json.loads(body))
            except (KeyError, TypeError, ValueError):
                _log.exception("skipped a damaged record", extra={"gpu": gpu, "check": check})
                continue
            records.setdefault(gpu, {})[check] = record
        entries = []
        for number, arrival, body in self._db.execute("SELECT * FROM event ORDER BY number"):
            try:
                message = pb.HealthEvent.FromString(body)
            except (DecodeError, TypeError):
                _log.exception("skipped a damaged event", extra={"number": number})
                continue
            entries.append(Entry(number, arrival, message))
        return records, entries

    def append(self, messages: Sequence[pb.HealthEvent], arrival: int) -> None:
        """Keep events: they are durable when this returns. From any thread.

        Raises:
            Unavailable: they could not be written, or not in time.
        """
        job = _Append(messages, arrival)
        self._appends.append(job)
        if not self._writing.acquire(timeout=_WRITE_SECONDS):
            raise Unavailable("the journal was not written in time")
        try:
            if not (job.written or job.error):
                self._commit()
        finally:
            self._writing.release()
        if job.error is not None:
            raise Unavailable(f"the journal cannot be written: {job.error}") from job.error

    def save(self, changes: Changes) -> None:
        """Note what came of events. Written with the next events, or by :meth:`flush`: until then
        the events themselves are there."""
        if changes.records or changes.settled:
            self._unsaved.append(changes)

    def flush(self) -> None:
        """Write what was noted, unless somebody is writing anyway."""
        if (self._unsaved or self._failing) and self._writing.acquire(blocking=False):
            try:
                self._commit()
                if self._commits >= _CHECKPOINT_COMMITS:
                    self._checkpoint()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Write what is left and let go of the file."""
        self.flush()
        with self._writing, suppress(sqlite3.Error):
            self._db.close()

    def _commit(self) -> None:
        appends = _emptied(self._appends)
        changes = _emptied(self._unsaved)
        entries: list[Entry] = []
        for job in appends:
            first = self._number + len(entries) + 1
            entries += [Entry(n, job.arrival, m) for n, m in enumerate(job.messages, first)]
        try:
            # Only new events are waited for. If the rest is lost they take effect once more.
            self._db.execute(f"PRAGMA synchronous = {'FULL' if appends else 'NORMAL'}")
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._insert(entries)
                self._settle(changes)
        except sqlite3.Error as error:
            if not self._failing:
                _log.exception("cannot write the journal; no event is accepted until it works")
            self._failing = True
            self._unsaved.extendleft(reversed(changes))
            for job in appends:
                job.error = error
            return
        self._failing = False
        self._commits += 1
        self._number += len(entries)
        if entries:
            self._deliver(entries)
        for job in appends:
            job.written = True

    def _insert(self, entries: Sequence[Entry]) -> None:
        rows = ((e.number, e.arrival, e.message.SerializeToString()) for e in entries)
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)

    def _settle(self, all_changes: Iterable[Changes]) -> None:
        records: dict[tuple[str, str], Record | None] = {}
        for changes in all_changes:
            settled = ((n,) for n in changes.settled)
            self._db.executemany("DELETE FROM event WHERE number = ?", settled)
            records.update(changes.records)
        kept = [(*key, json.dumps(r.to_json())) for key, r in records.items() if r is not None]
        gone = [key for key, r in records.items() if r is None]
        self._db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", kept)
        self._db.executemany("DELETE FROM record WHERE gpu = ? AND name = ?", gone)

    def _checkpoint(self) -> None:
        # By hand, while nobody waits: left to itself it happens inside of a commit.
        self._commits = 0
        with suppress(sqlite3.Error):  # a full disk shows at the next commit
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _emptied(items: deque[T]) -> list[T]:
    return [items.popleft() for _ in range(len(items))]


def _open(path: Path | None) -> sqlite3.Connection:
    if path is None:
        return _connect(":memory:")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The messages quote kernel lines, which name programs: for this user's eyes only.
        path.touch(mode=0o600)
        try:
            return _connect(str(path))
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
            _set_aside(path)
            return _connect(str(path))
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(
            f"cannot use the journal {path}: {error}; is another bridge using it?"
        ) from error


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        # Exclusive: a second bridge fails to open it instead of taking turns.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        _examine(db, path)
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def _examine(db: sqlite3.Connection, path: str) -> None:
    [(version,)] = db.execute("PRAGMA user_version")
    if version > _VERSION:
        raise SettingsError(f"the journal {path} was written by a newer version of the bridge")
    [(verdict,)] = db.execute("PRAGMA quick_check(1)")
    if verdict != "ok":
        damage = sqlite3.DatabaseError(verdict)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _set_aside(path: Path) -> None:
    """A damaged journal is kept for people; the bridge starts from what the daemon remembers."""
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            part.replace(part.with_name(f"{FILE}{suffix}.damaged"))
    _log.error(
        "the journal is damaged; set it aside and started a new one",
        extra={"path": str(path), "kept": f"{FILE}.damaged"},
    )
