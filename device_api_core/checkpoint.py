"""What survives a restart: the ceiling of the resource version.

The counter starts at the clock, so it rises across restarts unless the clock is set back. The
ceiling covers that case: versions up to it may have been handed out, the next run starts above it.
It is reserved in blocks and written by a thread of its own, so no update waits for the disk.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from device_api_core.errors import SettingsError

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
"""Versions reserved at a time."""

_MAX_VERSION = 2**63 - 1
_FILE = "state.db"
_SCHEMA = "CREATE TABLE IF NOT EXISTS version (id INTEGER PRIMARY KEY CHECK (id = 1), ceiling INT)"
# Never lower: another server may have used the directory meanwhile.
_WRITE = (
    "INSERT INTO version VALUES (1, ?) "
    "ON CONFLICT (id) DO UPDATE SET ceiling = max(ceiling, excluded.ceiling)"
)


class VersionCeiling:
    """The persisted upper bound of all versions ever handed out.

    With an empty ``state_dir`` nothing is persisted. A directory or file that cannot be written
    stops the start-up; a write that fails later is logged, counted in ``failures`` and tried again
    with the next block.
    """

    def __init__(self, state_dir: str) -> None:
        self._path = Path(state_dir) / _FILE if state_dir else None
        self._ceiling = 0
        self._requests: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self.failures = 0
        """Writes that failed since start."""

    def start(self, clock_microseconds: int) -> int:
        """The version to start from: the clock, or just above the ceiling if that is higher.

        Raises:
            SettingsError: the state directory cannot be used.
        """
        if self._path is None:
            return clock_microseconds
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            version = self._reserve_first(clock_microseconds)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                f"--state-dir: cannot use {self._path}: {error}; make the directory writable, move "
                "a damaged file away, or start without --state-dir"
            ) from error
        self._ceiling = version + BLOCK
        self._writer = threading.Thread(target=self._drain, name="version-ceiling", daemon=True)
        self._writer.start()
        return version

    def reached(self, version: int) -> None:
        """Reserve the next block in the background once half of this one is used."""
        if self._writer is not None and version > self._ceiling - BLOCK // 2:
            self._ceiling += BLOCK
            self._requests.put(self._ceiling)

    def close(self) -> None:
        """Write what is pending and end the writer."""
        if self._writer is not None:
            self._requests.put(None)
            self._writer.join(timeout=1.0)

    def _drain(self) -> None:
        while (ceiling := self._requests.get()) is not None:
            self._write(ceiling)

    def _reserve_first(self, clock_microseconds: int) -> int:
        # Read and written under one lock, or two servers could start from one version.
        with closing(self._connect()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            row = connection.execute("SELECT ceiling FROM version WHERE id = 1").fetchone()
            persisted = row[0] if row else 0
            if not isinstance(persisted, int) or not 0 <= persisted < _MAX_VERSION - BLOCK:
                raise sqlite3.DatabaseError(f"it holds {persisted!r} in place of a version")
            version = max(clock_microseconds, persisted + 1)
            connection.execute(_WRITE, (version + BLOCK,))
        return version

    def _write(self, ceiling: int) -> None:
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute(_WRITE, (ceiling,))
        except sqlite3.Error:
            self.failures += 1
            logger.exception("cannot write the version ceiling", extra={"path": str(self._path)})

    def _connect(self) -> sqlite3.Connection:
        assert self._path is not None
        return sqlite3.connect(self._path, timeout=5.0)
