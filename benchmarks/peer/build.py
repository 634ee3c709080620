"""Builds the peer and the load client with the system's Go, on demand, into ``.run/peer``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_SOURCES = Path(__file__).parent
_LIBRARIES = Path("/usr/share/gocode")
_PROTOS = ("nvidia/device/v1alpha1/gpu.proto", "nvidia/device/v1alpha1/provider.proto")
_PACKAGE = "package nvidia.device.v1alpha1;"
_KNOWN_TYPES = "github.com/golang/protobuf/ptypes"
_GENERATE = ",".join(
    (
        "plugins=grpc",
        *(f"Mgoogle/protobuf/{t}.proto={_KNOWN_TYPES}/{t}" for t in ("timestamp", "duration")),
    )
)

INSTALL = (
    "the peer needs Go, grpc-go and a generator (Debian and Ubuntu: apt install golang-go "
    "golang-google-grpc-dev protobuf-compiler protoc-gen-go-1-3)"
)


class Unbuildable(Exception):
    """There is no peer to measure beside; the message says why."""


def build(folder: Path = _ROOT / ".run" / "peer") -> Path:
    """The folder with the programs ``server`` and ``load``. Raises :class:`Unbuildable`."""
    grpc = _LIBRARIES / "src/google.golang.org/grpc"
    if not all(map(shutil.which, ("go", "protoc", "protoc-gen-go"))) or not grpc.is_dir():
        raise Unbuildable(INSTALL)
    package = folder / "src" / "peer"
    shutil.rmtree(package, ignore_errors=True)
    for name in ("server", "load"):
        shutil.copytree(_SOURCES / name, package / name)
    _run(["protoc", f"-I{_protos(folder)}", f"--go_out={_GENERATE}:{folder / 'src'}", *_PROTOS])
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": f"{folder}:{_LIBRARIES}",
        "GOCACHE": str(folder / "cache"),
    }
    for name in ("server", "load"):
        _run(["go", "build", "-o", str(folder / "bin" / name), f"peer/{name}"], environment)
    return folder / "bin"


def _protos(folder: Path) -> Path:
    """The API in the words that this generator knows: on the wire, optional changes nothing."""
    for name in _PROTOS:
        text = (_ROOT / "proto" / name).read_text()
        text = re.sub(r"^( *)optional ", r"\1", text, flags=re.MULTILINE)
        text = text.replace(_PACKAGE, f'{_PACKAGE}\noption go_package = "peer/deviceapi";')
        target = folder / "protos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder / "protos"


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unbuildable(f"{command[0]} failed: {done.stderr.strip()}")
