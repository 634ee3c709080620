"""Compiles the engine into the package, for a wheel and for an editable install alike."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = [
    "-std=c11", "-O2", "-s", "-fPIC", "-shared", "-fvisibility=hidden", "-D_GNU_SOURCE",
    "-fstack-protector-strong", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
]  # fmt: skip
HEADERS = Path(sysconfig.get_paths()["include"])
MISSING_HEADERS = (
    f"device-api-transport-h2 needs Python's C headers, and {HEADERS} has none. Install them "
    "(Debian and Ubuntu: apt install python3-dev; Fedora and RHEL: dnf install python3-devel)."
)
SOURCES = [
    *("answer", "at_once", "call", "library", "module", "object", "request", "session"),
    *("sender", "sockets", "stream", "wire"),
]


class CompileEngine(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable" and not HEADERS.joinpath("Python.h").exists():
            # A checkout serves and tests with the built-in transport where there are no headers.
            self.app.display_warning(MISSING_HEADERS)
            return
        compile_engine(root / "src", root / "device_api_transport_h2" / "_engine.abi3.so")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"


def compile_engine(sources: Path, library: Path) -> None:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise SystemExit(
            f"device-api-transport-h2 needs a C compiler, and {compiler[0]!r} was not found. "
            "Install one (Debian and Ubuntu: apt install gcc libc6-dev; Fedora and RHEL: "
            "dnf install gcc) or name yours in CC."
        )
    if not HEADERS.joinpath("Python.h").exists():
        raise SystemExit(MISSING_HEADERS)
    # A new file, moved into place: processes may have the old one mapped.
    new = library.with_name(f".{library.name}.new")
    command = [*compiler, *FLAGS, f"-isystem{HEADERS}", "-o", str(new)]
    command += [str(sources / f"{name}.c") for name in SOURCES]
    command += ["-ldl"]
    subprocess.run(command, check=True)
    new.replace(library)
