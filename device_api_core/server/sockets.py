"""Unix sockets that belong to exactly one server.

A lock file beside the socket decides who may bind; what lies at the path is probed under that
lock; only the server that bound it removes it. gRPC itself does none of this: a second server
takes a live path over without an error, and the first one's stop then deletes the file. So a
transport binds beside the path and what it bound is linked to it: a link replaces nothing, and what
gRPC deletes in the end is a name that is no longer there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from device_api_core.errors import SettingsError

logger = logging.getLogger(__name__)

MAX_PATH_BYTES = 100
"""The system's limit is 107; the rest is for the name under which a socket is bound."""

BURST = 1
"""Connections that asyncio accepts in one step; it takes the backlog for it. When it has no file
left for them, it writes so many log entries and starts so many timers, every second. More than that
may wait if ``listen`` is called once more afterwards."""
_CREDENTIALS = struct.Struct("3i")


class Credentials(NamedTuple):
    """Who connected, as the kernel knows it: 0 and -1 over TCP. ``pid`` is 0, too, where this
    process cannot see that one: another pod's, without the node's process namespace."""

    pid: int
    uid: int


def credentials(connection: socket.socket) -> Credentials:
    """Who is at the other end."""
    if connection.family != socket.AF_UNIX:
        return Credentials(0, -1)
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return Credentials(pid, uid)


class SocketClaim:
    """The right to serve at one path, from construction to :meth:`release`.

    Raises:
        SettingsError: the path is too long, another server has it, something else lies there, or
            the directory cannot be used.
    """

    def __init__(self, path: str, mode: int) -> None:
        self.path = Path(path).absolute()
        self._mode = mode
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise SettingsError(
                f"unix socket path {self.path} is longer than {MAX_PATH_BYTES} bytes: choose a "
                "shorter one"
            )
        self._bindings = 0
        self._file: tuple[int, int] | None = None
        self._directory_mode: int | None = None
        with self._usable():
            self._make_directory()
            self._lock = self._take_lock()
            try:
                self._directory_mode = stat.S_IMODE(self.path.parent.stat().st_mode)
                _clear(self.path)
            except BaseException:
                os.close(self._lock)
                raise

    @property
    def bound(self) -> Path:
        """The name of the last binding in the kernel's tables, for the listener and what it has
        accepted: no other binding has it."""
        return self.path.with_name(f"{self.path.name}~{self._bindings}")

    @contextmanager
    def binding(self) -> Iterator[str]:
        """Bind inside, at the name that is given, and listen: clients find the socket afterwards,
        with its permissions. Raises ``OSError`` if something lies at the path by then."""
        self._bindings += 1
        _clear(self.bound)
        previous = os.umask(0o777 & ~self._mode)
        try:
            yield str(self.bound)
        finally:
            os.umask(previous)
        found = self.bound.lstat()
        try:
            os.link(self.bound, self.path, follow_symlinks=False)
        finally:
            self.bound.unlink()
        self._file = (found.st_dev, found.st_ino)

    def trouble(self) -> str:
        """Why clients do not find the socket, empty if they do. One look at the file."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return f"{self.path} was removed"
        except OSError as error:
            return f"{self.path} cannot be seen: {error.strerror}"
        # The listener keeps the number from being given to another file.
        return "" if _identity(found) == self._file else f"{self.path} was replaced"

    @property
    def buried(self) -> bool:
        """Whether the directory was removed where it is mounted from: nothing can be made in it
        again, and only another process sees the one that takes its place."""
        try:
            return self.path.parent.stat().st_nlink == 0
        except OSError:
            return False

    def renew(self) -> None:
        """Claim the path again, after :meth:`trouble`; then bind again.

        Raises:
            SettingsError: as the constructor does.
        """
        if self.buried:
            raise SettingsError(
                f"the directory of unix socket {self.path} was removed where it is mounted from: "
                "make it there and restart the server"
            )
        with self._usable():
            self._make_directory()
            if not self._lock_holds():
                held, self._lock = self._lock, self._take_lock()
                os.close(held)
            _clear(self.path)

    def release(self) -> None:
        """Remove the socket if it is still the one that was bound, then give up the lock."""
        try:
            if _identity(self.path.lstat()) == self._file:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError:
            logger.exception("cannot remove the socket", extra={"path": str(self.path)})
        finally:
            os.close(self._lock)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingsError(
                f"cannot use the directory of unix socket {self.path}: {error.strerror}; create it "
                "for this user or choose another path"
            ) from error

    def _make_directory(self) -> None:
        directory = self.path.parent
        if not directory.exists():
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._directory_mode is not None:
                # As it was, whatever the umask: its clients shall find the new socket.
                directory.chmod(self._directory_mode)

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _lock_holds(self) -> bool:
        try:
            return _identity(self._lock_path.lstat()) == _identity(os.fstat(self._lock))
        except FileNotFoundError:
            return False

    def _take_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(self._lock_path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise SettingsError(
                f"another server (process {holder}) serves {self.path}: stop it or choose another "
                "path"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock


def _clear(path: Path) -> None:
    """Remove a socket that nobody serves. Raises ``SettingsError`` if something else is there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SettingsError(f"{path} exists and is not a socket: move it away")
    if _answers(path):
        raise SettingsError(
            f"a server that holds no lock answers at {path}: stop it or choose another path"
        )
    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A unix socket answers at once or not at all.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # A full backlog or a socket that may not be opened: somebody is there.
            return True
    return True


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
