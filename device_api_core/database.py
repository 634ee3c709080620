"""The file in which the server remembers: an SQLite database in WAL mode.

Each commit is on the disk when it returns (``synchronous=FULL``), and is there whole or not at all.
A file that was not read is never written over: it is set aside, for people to look at. After any
error the connection is given up and the next write writes everything, so that nothing rests on what
a failed write may have left.

Only a server with a state directory imports this module, since SQLite costs memory.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from device_api_core import rows
from device_api_core.entries import Entry
from device_api_core.errors import SettingsError
from device_api_core.rows import Contents, Damaged

FILE = "state.db"
MAX_ASIDE = 5
"""Files set aside that are kept; the oldest go first."""

_COMPANIONS = ("", "-wal", "-shm")
_BUSY_SECONDS = 5.0
# Of these the disk or the file's permissions are the cause, not what the file holds.
_DISK_FAULTS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# The last one when SQLite quotes from a damaged file what is no text.
_UNREADABLE = (Damaged, sqlite3.Error, UnicodeDecodeError)


class Database:
    """The database in ``directory``. Used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._notes: list[str] = []
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._own: tuple[int, int] | None = None
        self._written: dict[str, Entry] = {}
        self._whole = True

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def claim(self) -> None:
        """Make the directory if need be, and keep every other server out of it.

        Raises:
            SettingsError: it cannot be used, or another server uses it.
            OSError: the disk fails.
        """
        directory = self.path.parent
        try:
            if not directory.is_dir():
                directory.mkdir(mode=0o700, parents=True)
                _sync(directory.parent)
            _require_access(directory)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise SettingsError(
                f"--state-dir: cannot use {directory}: {error}; name a directory that this user "
                "may write to, or start without --state-dir"
            ) from error
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise SettingsError(
                f"--state-dir: another server uses {directory}: stop it or name another directory"
            ) from error
        self._lock = lock

    def load(self, now: int) -> Contents:
        """What was written last. A file that cannot be read is set aside and counts as empty;
        ``take_notes`` tells. ``now`` is nanoseconds since the Unix epoch."""
        if not self._exists:
            return Contents()
        try:
            contents = self._read(now)
        except (OSError, *_UNREADABLE) as error:
            ceiling = self._salvaged_ceiling()
            with suppress(OSError):
                # On a read-only disk it stays where it is; the first write tries again.
                self._set_aside(str(error))
            return Contents(ceiling=ceiling)
        self._own = _identity(self.path)
        return contents

    def write(
        self,
        changed: Mapping[str, Entry | None],
        everything: Mapping[str, Entry],
        *,
        ceiling: int,
        boot_id: str,
    ) -> None:
        """Write the changed GPUs (``None`` for one that is gone) in one commit, or ``everything``
        if the file is new or the last write failed.

        Raises:
            OSError, sqlite3.Error, UnicodeDecodeError: it may or may not be on the disk; the next
                write repairs it.
        """
        try:
            if self._connection is None or _identity(self.path) != self._own:
                self._open()
            assert self._connection is not None
            with _transaction(self._connection) as connection:
                if self._whole:
                    rows.create(connection)
                    changed = everything
                    rows.write_boot(connection, boot_id)
                for name, entry in changed.items():
                    rows.write_gpu(connection, name, self._written.get(name), entry)
                rows.write_ceiling(connection, ceiling)
        except Exception as error:
            self.close()
            if _code(error) in _DAMAGE:
                # Not to be trusted any more; all of it is still known here.
                self._own = None
            raise
        self._whole = False
        for name, entry in changed.items():
            if entry is None:
                self._written.pop(name, None)
            else:
                self._written[name] = entry

    def take_notes(self) -> tuple[str, ...]:
        """What people must be told and nobody has yet."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def close(self) -> None:
        """Give the connection up. The directory stays claimed."""
        self._whole = True
        self._written = {}
        if (connection := self._connection) is not None:
            self._connection = None
            connection.close()

    def release(self) -> None:
        """Close it for good and let another server have the directory."""
        self.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _exists(self) -> bool:
        return any(os.path.lexists(f"{self.path}{suffix}") for suffix in _COMPANIONS)

    def _read(self, now: int) -> Contents:
        if not self.path.is_file():
            raise Damaged("it is no file")
        if self.path.stat().st_size == 0 and not self._log_is_there():
            # What a first start leaves that could write nothing; it is not worth keeping.
            self._notes.append(f"{self.path} is empty: nothing is known from before")
            return Contents()
        try:
            # Closing a connection that may write would checkpoint and wait for the disk.
            with closing(self._connect("mode=ro")) as connection:
                return rows.read(connection, now)
        except sqlite3.Error as error:
            if _code(error) not in _DISK_FAULTS or self._log_is_there():
                raise
        # On a read-only disk a WAL database that was closed in good order opens only like this.
        with closing(self._connect("immutable=1")) as connection:
            return rows.read(connection, now)

    def _log_is_there(self) -> bool:
        log = self.path.with_name(f"{FILE}-wal")
        return log.exists() and log.stat().st_size > 0

    def _open(self) -> None:
        """Have a database of our own to write to: the one that was read, or a new one."""
        self.close()
        if self._lock is None or not self.path.parent.is_dir():
            self._claim_again()
        if self._own is None or self._own != _identity(self.path):
            if self._own is not None:
                self._notes.append(f"{self.path} was removed or replaced: it is written anew")
            if self._exists:
                self._set_aside("it is not what this server has read or written")
            # Ours from the first moment on, so that a disk that fails now leaves no second one.
            self.path.touch(mode=0o600)
            self._own = _identity(self.path)
        connection = self._connection = self._connect("mode=rw")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    def _claim_again(self) -> None:
        self.release()
        try:
            self.claim()
        except SettingsError as error:
            raise OSError(error.message) from error

    def _connect(self, how: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path))}?{how}"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)

    def _salvaged_ceiling(self) -> int:
        """Versions must not repeat, so this much is tried to be had of any file."""
        if not self.path.is_file():
            return 0
        try:
            with closing(self._connect("mode=ro")) as connection:
                return rows.read_ceiling(connection)
        except _UNREADABLE:
            return 0

    def _set_aside(self, why: str) -> None:
        directory = self.path.parent
        taken = sorted(directory.glob(f"{FILE}.aside-*"), key=_number)
        number = _number(taken[-1]) + 1 if taken else 1
        aside = self.path.with_name(f"{FILE}.aside-{number}")
        for suffix in _COMPANIONS:
            if os.path.lexists(part := Path(f"{self.path}{suffix}")):
                # With the suffix at the end, so that SQLite finds what belongs together.
                part.rename(f"{aside}{suffix}")
        self._notes.append(f"{self.path} cannot be used and was set aside as {aside}: {why}")
        for old in taken:
            if _number(old) <= number - MAX_ASIDE and not old.is_dir():
                old.unlink()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    # No rollback: whoever sees an error gives the connection up.
    connection.execute("COMMIT")


def _code(error: Exception) -> int:
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    # Errors of the module itself, such as text that is not UTF-8, have no code.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _require_access(directory: Path) -> None:
    """Raises ``PermissionError`` for a directory of somebody else. A disk that has become read-only
    is another matter: it may still tell what was kept."""
    read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    if not read_only and not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError("this user may not write to it")


def _number(aside: Path) -> int:
    digits = aside.name.removeprefix(f"{FILE}.aside-").partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
