"""Compiles the two libraries into the package, for a wheel and for an editable install alike."""

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
    "-std=c11", "-O2", "-s", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread",
    "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wl,-z,defs",
]  # fmt: skip
NVML_SOURCES = [
    "node", "call", "output", "lifecycle", "devices", "events", "health", "nvlink", "fields", "mig",
]  # fmt: skip
CONTROL_SOURCES = ["node", "control", "injection"]


class CompileLibraries(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        target = root / "device_api_fake_nvml" / "lib"
        target.mkdir(exist_ok=True)
        compile_library(root / "src", NVML_SOURCES, target / "libnvidia-ml.so.1")
        compile_library(root / "src", CONTROL_SOURCES, target / "libfake_nvml.so")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        # Any Python 3 will do: nothing here links with it.
        build_data["tag"] = f"py3-none-{platform}"


def compile_library(sources: Path, names: list[str], library: Path) -> None:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise SystemExit(
            f"device-api-fake-nvml needs a C compiler, and {compiler[0]!r} was not found. "
            "Install one (Debian and Ubuntu: apt install gcc libc6-dev; Fedora and RHEL: "
            "dnf install gcc) or name yours in CC."
        )
    # A new file, moved into place: processes may have the old one mapped.
    new = library.with_name(f".{library.name}.new")
    command = [*compiler, *FLAGS, f"-Wl,-soname,{library.name}", "-o", str(new)]
    command += [str(sources / f"{name}.c") for name in names]
    command += ["-ldl"]
    subprocess.run(command, check=True)
    new.replace(library)
