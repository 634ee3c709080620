"""Finding and opening ``libnvidia-ml.so.1``, from a driver root or from the usual places.

Nothing here calls the library; it ends with a handle and the name of the file behind it.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator
from pathlib import Path

SONAME = "libnvidia-ml.so.1"

PLACES = (
    ".",
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "usr/lib",
    "lib",
)
"""Where the library lies below a driver root: the layouts of hosts and of driver containers, for
both processor architectures. A file for the wrong one does not open and the next place is tried."""

_MAX_LINKS = 40


class LibraryNotFound(Exception):
    """No candidate could be opened. The text has one reason per file tried."""


def open_library(driver_root: str, beside: str = "") -> tuple[ctypes.CDLL, str]:
    """Open NVML and say which file that is.

    The candidates are the files below ``driver_root`` (none if it is empty), then the library of
    the same name in the directory of ``beside``, then whatever the dynamic linker finds by name.

    ``beside`` is the file that was open before. A driver upgrade puts a new file in its place, but
    the linker, asked by name, keeps answering with the old one that is already in the process.

    Raises:
        LibraryNotFound: none of them opens.
    """
    failures = []
    for candidate in (*_below(driver_root), *_again(beside), SONAME):
        try:
            library = ctypes.CDLL(str(candidate))
        except OSError as error:
            failures.append(str(error))
        else:
            return library, _file_of(library) or str(candidate)
    raise LibraryNotFound("; ".join(failures))


def resolve_inside(root: Path, place: str) -> Path | None:
    """The regular file that ``place`` leads to when ``root`` is taken for ``/``, or ``None``.

    A driver root is somebody else's root file system, mounted: its absolute links point into it
    and not into ours, and ``..`` cannot leave it.
    """
    pending = deque(Path(place).parts)
    here, links = root, 0
    try:
        while pending:
            part = pending.popleft()
            if part == "..":
                here = root if here == root else here.parent
            elif not (step := here / part).is_symlink():
                here = step
            else:
                links += 1
                if links > _MAX_LINKS:
                    return None
                target = step.readlink()
                if target.is_absolute():
                    here, target = root, target.relative_to("/")
                pending.extendleft(reversed(target.parts))
        return here if here.is_file() else None
    except OSError:  # unreadable, or gone between two looks
        return None


def _below(driver_root: str) -> Iterator[Path]:
    if not driver_root:
        return
    seen = set()
    for place in PLACES:
        found = resolve_inside(Path(driver_root), f"{place}/{SONAME}")
        if found is not None and found not in seen:
            seen.add(found)
            yield found


def _again(beside: str) -> Iterator[Path]:
    if beside:
        successor = Path(beside).with_name(SONAME).resolve()
        if successor.is_file():
            yield successor


def _file_of(library: ctypes.CDLL) -> str:
    """The file mapped where the library's code is. The kernel's answer is the only one that holds
    for a library found by name, and tells two copies apart."""
    try:
        code = ctypes.cast(library.nvmlInitWithFlags, ctypes.c_void_p).value or 0
    except AttributeError:  # no NVML, or one of long ago: initialising will tell
        return ""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, _, *file = line.split(maxsplit=5)
        first, _, end = addresses.partition("-")
        if int(first, 16) <= code < int(end, 16):
            return file[0] if file else ""
    return ""
