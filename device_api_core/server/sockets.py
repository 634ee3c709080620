"""Unix sockets that belong to exactly one server.

A lock file beside the socket decides who may bind; what lies at the path is probed under that
lock; only the server that bound it removes it. gRPC itself does none of this: a second server
takes a live path over without an error, and the first one's stop then deletes the file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_api_core.errors import SettingsError

logger = logging.getLogger(__name__)

MAX_PATH_BYTES = 107
_PROBE_SECONDS = 1.0


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
                f"unix socket path {self.path} is longer than {MAX_PATH_BYTES} bytes, which is the "
                "system's limit: choose a shorter one"
            )
        self._bound: tuple[int, int] | None = None
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock = self._take_lock()
        except OSError as error:
            raise SettingsError(
                f"cannot use the directory of unix socket {self.path}: {error.strerror}; create it "
                "for this user or choose another path"
            ) from error
        try:
            self._clear_path()
        except BaseException:
            os.close(self._lock)
            raise

    @contextmanager
    def binding(self) -> Iterator[None]:
        """Bind inside: the file has its permissions from the first moment on."""
        previous = os.umask(0o777 & ~self._mode)
        try:
            yield
        finally:
            os.umask(previous)
        found = self.path.lstat()
        self._bound = (found.st_dev, found.st_ino)

    def release(self) -> None:
        """Remove the socket if it is still the one that was bound, then give up the lock."""
        try:
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._bound:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError:
            logger.exception("cannot remove the socket", extra={"path": str(self.path)})
        finally:
            os.close(self._lock)

    def _take_lock(self) -> int:
        lock_path = self.path.with_name(self.path.name + ".lock")
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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

    def _clear_path(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise SettingsError(f"{self.path} exists and is not a socket: move it away")
        if _answers(self.path):
            raise SettingsError(
                f"a server that holds no lock answers at {self.path}: stop it or choose another "
                "path"
            )
        self.path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # A full backlog or a socket that may not be opened: somebody is there.
            return True
    return True
