"""The compiled libraries, and copies of the NVML one in driver roots."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from device_api_fake_nvml.errors import FunctionNotFound, Refused

LIBRARY_NAME = "libnvidia-ml.so.1"

_COMPILED = Path(__file__).parent / "lib"


def library_path() -> Path:
    """The NVML library itself. It answers only where a state file lies beside it: use a node's."""
    return _COMPILED / LIBRARY_NAME


def control_library_path() -> Path:
    """The library that changes nodes. Its SONAME differs, so it never stands in for NVML."""
    return _COMPILED / "libfake_nvml.so"


@cache
def functions() -> frozenset[str]:
    """The names of all NVML functions the library has."""
    # The library is stripped: what looks like a function's name is one.
    names = re.findall(rb"\0(nvml[A-Z]\w+)(?=\0)", library_path().read_bytes())
    return frozenset(name.decode() for name in names)


def check_symbols(names: Iterable[str]) -> None:
    for name in names:
        if name not in functions():
            raise FunctionNotFound(f"the library has no function {name!r}")


def library_in(root: Path) -> Path:
    return root / "usr" / "lib64" / LIBRARY_NAME


def state_in(root: Path) -> Path:
    """Beside the library, which looks for it there."""
    return library_in(root).with_name("fake-nvml.state")


def uninstall(root: Path) -> None:
    library = library_in(root)
    if not library.exists():
        raise Refused(f"no library is installed in {root}")
    library.rename(_aside(library))


def install(root: Path) -> None:
    library = library_in(root)
    if not _aside(library).exists():
        raise Refused(f"the library of {root} is not uninstalled")
    _aside(library).rename(library)


def _aside(library: Path) -> Path:
    return library.with_name(f"{LIBRARY_NAME}.uninstalled")


def copy_library(target: Path, without: Iterable[str] = ()) -> None:
    """Copies the library, hiding some of its symbols as if the driver were older.

    A symbol is hidden by changing its name in the copy: it then hashes to a place where the dynamic
    linker finds another name, which is how it looks when a symbol is absent.
    """
    code = library_path().read_bytes()
    for symbol in without:
        name = symbol.encode()
        code = code.replace(b"\0" + name + b"\0", b"\0" + b"x" + name[1:] + b"\0")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.write_bytes(code)
    shutil.copymode(library_path(), new)
    # Never written in place: clients may have the old file mapped.
    new.replace(target)


def environment(root: Path) -> dict[str, str]:
    """The environment in which a new process loads the library of the node at `root`."""
    directory = str(library_in(root).parent)
    others = os.environ.get("LD_LIBRARY_PATH")
    path = f"{directory}:{others}" if others else directory
    return {**os.environ, "LD_LIBRARY_PATH": path}
