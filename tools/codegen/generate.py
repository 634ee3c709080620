"""Generate the Python code of the API from proto/.

Run it with `make code-gen`, whose environment pins protoc and its plugins: the same sources then
always give the same files, so the result is committed and checked by comparing.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """Some .proto files and the one Python package that receives their code."""

    sources: Path
    protos: tuple[str, ...]
    package: str
    folder: Path


TARGETS = (
    Target(
        sources=ROOT / "proto",
        protos=(
            "nvidia/device/v1alpha1/gpu.proto",
            "nvidia/device/v1alpha1/provider.proto",
            "device_api/admin/v1/admin.proto",
        ),
        package="device_api_core._proto",
        folder=ROOT / "device_api_core" / "_proto",
    ),
    Target(
        sources=ROOT / "providers" / "nvsentinel_bridge" / "proto",
        protos=("nvsentinel/datamodels/health_event.proto",),
        package="device_api_nvsentinel_bridge._proto",
        folder=ROOT / "providers" / "nvsentinel_bridge" / "device_api_nvsentinel_bridge" / "_proto",
    ),
)


def compile_protos(target: Target, out: Path) -> None:
    """Run protoc with the plugins for messages, gRPC stubs and their types."""
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={target.sources}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *target.protos,
        ]
    )
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


def relocate(code: str, target: Target) -> str:
    """Let generated code import its siblings from the target's package.

    protoc derives the Python package from a proto's path. Ours would be a top-level `nvidia`, which
    is the namespace of NVIDIA's own wheels. Full names of messages, which look alike, stay.
    """
    for proto in map(Path, target.protos):
        origin = re.escape(".".join(proto.parent.parts))
        module = re.escape(f"{proto.stem}_pb2")
        code = re.sub(rf"\b{origin}(?= import {module}|\.{module}\b)", target.package, code)
    return code


def generate(target: Target) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        compile_protos(target, Path(scratch))
        code = {
            path.name: relocate(path.read_text(encoding="utf-8"), target)
            for path in sorted(Path(scratch).rglob("*_pb2*.py*"))
        }
    for stale in target.folder.glob("*_pb2*"):
        if stale.name not in code:
            stale.unlink()
    for name, text in code.items():
        (target.folder / name).write_text(text, encoding="utf-8")
    print(f"{target.package}: {len(code)} files from {len(target.protos)} protos")


if __name__ == "__main__":
    for each in TARGETS:
        generate(each)
