"""A Unix socket that belongs to exactly one bridge.

A lock file beside the socket decides who may bind; what lies at the path is probed under that
lock; only the bridge that bound it removes it. gRPC itself does none of this: a second server
takes a live path over without an error, and the first one's stop then deletes the file.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from device_api_core.errors import SettingsError

_MAX_PATH_BYTES = 107
_PROBE_SECONDS = 1.0


@contextmanager
def listening(path: Path, mode: int, bind: Callable[[str], None]) -> Iterator[None]:
    """Have ``bind`` make a socket that is found at ``path`` with these permissions until the block
    ends. Raises :class:`SettingsError` if that cannot be."""
    path = path.absolute()
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(
            path.with_name(path.name + ".lock"),
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
    except OSError as error:
        raise SettingsError(
            f"cannot use the directory of unix socket {path}: {error.strerror}; create it for this "
            "user or choose another path"
        ) from error
    try:
        _take_over(path, lock)
        bound = _bind(path, mode, bind)
        try:
            yield
        finally:
            _remove(path, bound)
    finally:
        os.close(lock)


def _take_over(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(
            f"another bridge serves {path}: stop it or choose another path"
        ) from error
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SettingsError(f"{path} exists and is not a socket: move it away")
    if _answers(path):
        raise SettingsError(f"another server answers at {path}: stop it or choose another path")


def _bind(path: Path, mode: int, bind: Callable[[str], None]) -> tuple[int, int]:
    """Bind where nobody else can reach, set the permissions, then move into place. A umask would do
    the same to every file that other threads make meanwhile."""
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        private = Path(folder) / "s"
        if max(len(os.fsencode(p)) for p in (path, private)) > _MAX_PATH_BYTES:
            raise SettingsError(
                f"unix socket path {path} is too long, the system allows {_MAX_PATH_BYTES} bytes: "
                "choose a shorter one"
            )
        bind(str(private))
        private.chmod(mode)
        found = private.lstat()
        private.replace(path)
    return found.st_dev, found.st_ino


def _remove(path: Path, bound: tuple[int, int]) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if (found.st_dev, found.st_ino) == bound:
        path.unlink()


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
