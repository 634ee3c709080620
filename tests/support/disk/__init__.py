"""A disk that fails, stalls, fills up or loses its power while a real program writes to it."""

from __future__ import annotations

import atexit
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from enum import IntEnum
from pathlib import Path

_SOURCE = Path(__file__).with_name("faults.c")


class Fault(IntEnum):
    """What the disk does; the same numbers as in faults.c."""

    SOUND = 0
    FAIL_SYNCS = 1
    FAIL_WRITES = 2
    DELAY_SYNCS = 3
    KILL_AT = 4
    FAIL_AT = 5


@functools.cache
def library() -> Path:
    """The library to preload, compiled once for this process."""
    folder = Path(tempfile.mkdtemp(prefix="disk-faults-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "faults.so"
    subprocess.run(
        [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-o", path, _SOURCE, "-ldl"],
        check=True,
    )
    return path


class FaultyDisk:
    """The faults of one disk, which are shared through the file ``control``."""

    def __init__(self, control: Path) -> None:
        self._control = control
        if not control.exists():
            control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def environment(self, directory: Path, durable: Path | None = None) -> dict[str, str]:
        """For a program whose files below ``directory`` are to lie on this disk. ``durable`` gets a
        copy of each file as it was synced last."""
        variables = {
            "LD_PRELOAD": str(library()),
            "DISK_FAULTS_DIR": str(directory),
            "DISK_FAULTS_CONTROL": str(self._control),
        }
        return variables | ({} if durable is None else {"DISK_FAULTS_DURABLE": str(durable)})

    def set(self, fault: Fault, value: int = 0, *, at: int = 0) -> None:
        """From now on: ``value`` is an errno or milliseconds, ``at`` the call that is hit, counted
        from here."""
        struct.pack_into("4q", self._shared, 0, fault, value, at, 0)

    @property
    def calls(self) -> int:
        """How many calls that write there were since the last :meth:`set`."""
        return int(struct.unpack_from("4q", self._shared)[3])
