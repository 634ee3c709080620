"""The kernel's word that a file has moved or lost a name; Python itself does not pass it on."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_MOVED, _DELETED, _ATTRIBUTES = 0x800, 0x400, 0x4
"""Of the file itself. Its link count is an attribute, and changes while it is open; that it is
deleted comes only when nobody has it open."""
_BUFFER_BYTES = 4_096


class Inotify:
    """Files that are watched. :meth:`fileno` is readable when one may no longer be at its path.

    Raises:
        OSError: this user has as many as it may, or the kernel has none.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = _checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """To wait on."""
        return self._descriptor

    def add(self, path: Path) -> None:
        """Watch the file that is at the path now. Raises ``OSError`` if there is none."""
        mask = _MOVED | _DELETED | _ATTRIBUTES
        name = os.fsencode(path)
        _checked(self._libc.inotify_add_watch(self._descriptor, name, ctypes.c_uint32(mask)))

    def drain(self) -> None:
        """Take everything that was said: who listens looks for himself."""
        try:
            while os.read(self._descriptor, _BUFFER_BYTES):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Watch nothing any longer."""
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
