"""Generate the Python code of the API from proto/.

Run it with `make code-gen`, whose environment pins protoc and its plugins: the same sources then
always give the same files, so the result is committed and checked by comparing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from device_api_codegen.rendering import PACKAGES
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).with_name("protoc-gen-device-api")
EXPANSIONS = ROOT / "device_api_core" / "client" / "expansions"


@dataclass(frozen=True)
class Target:
    """A folder of .proto files and the one Python package that receives their code."""

    sources: Path
    package: str
    folder: Path
    private_pool: bool = False
    """Whether its descriptors stay out of the process's pool, where a name may be only once. For
    an API of others, whose code another package may bring as well."""

    @property
    def protos(self) -> list[str]:
        """The files, as they import one another."""
        return sorted(str(p.relative_to(self.sources)) for p in self.sources.rglob("*.proto"))


API = Target(
    sources=ROOT / "proto",
    package="device_api_core._proto",
    folder=ROOT / "device_api_core" / "_proto",
)
BRIDGE = Target(
    sources=ROOT / "providers" / "nvsentinel_bridge" / "proto",
    package="device_api_nvsentinel_bridge._proto",
    folder=ROOT / "providers" / "nvsentinel_bridge" / "device_api_nvsentinel_bridge" / "_proto",
)
DEVICE_PLUGIN = Target(
    sources=ROOT / "examples" / "device_plugin" / "proto",
    package="device_api_device_plugin._proto",
    folder=ROOT / "examples" / "device_plugin" / "device_api_device_plugin" / "_proto",
    private_pool=True,
)
TARGETS = (API, BRIDGE, DEVICE_PLUGIN)


def run_protoc(target: Target, *outputs: str) -> None:
    """Run protoc with some of its plugins."""
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={target.sources}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            *outputs,
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
    if target.private_pool:
        code = code.replace("_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()")
    return code


def messages(target: Target) -> dict[Path, str]:
    """Messages, gRPC stubs and their types."""
    with tempfile.TemporaryDirectory() as scratch:
        run_protoc(
            target,
            f"--python_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--mypy_out=quiet:{scratch}",
            f"--mypy_grpc_out=quiet:{scratch}",
        )
        return {
            target.folder / path.name: relocate(path.read_text(encoding="utf-8"), target)
            for path in Path(scratch).rglob("*_pb2*.py*")
        }


def clients(target: Target) -> dict[Path, str]:
    """Values, conversions and clients of the kinds, formatted as hand-written code is."""
    expansions = "+".join(
        sorted(path.stem for path in EXPANSIONS.glob("*.py") if path.stem != "__init__")
    )
    with tempfile.TemporaryDirectory() as scratch:
        run_protoc(
            target,
            f"--plugin=protoc-gen-device-api={PLUGIN}",
            f"--device-api_out=expansions={expansions}:{scratch}",
        )
        found = {
            ROOT / path.relative_to(scratch): path.read_text(encoding="utf-8")
            for path in sorted(Path(scratch).rglob("*.py"))
        }
    return {path: formatted(path, code) for path, code in found.items()}


def formatted(path: Path, code: str) -> str:
    """The code without imports that it does not need, in the project's style."""
    # A module that is only about to be written is ours, too.
    ours = 'lint.isort.known-first-party = ["device_api_core"]'
    organize = ["check", "--quiet", "--fix", "--select=F401,I", f"--config={ours}"]
    for command in (organize, ["format"]):
        done = subprocess.run(
            ["ruff", *command, f"--stdin-filename={path}", "-"],
            input=code,
            capture_output=True,
            cwd=ROOT,
            encoding="utf-8",
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"ruff {command[0]} failed on {path}:\n{done.stderr}{done.stdout}")
        code = done.stdout
    return code


def install(code: Mapping[Path, str], stale: Iterable[Path]) -> None:
    """Write what is new; remove what nothing generates any more."""
    for path in stale:
        if path not in code:
            path.unlink()
    for path, text in code.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Generate everything, and only then write."""
    code = clients(API)
    for target in TARGETS:
        code.update(messages(target))
    stale = [path for target in TARGETS for path in target.folder.glob("*_pb2*")]
    stale += [path for folder in PACKAGES for path in (ROOT / folder).glob("*.py")]
    install(code, stale)
    print(f"{len(code)} files from {sum(len(t.protos) for t in TARGETS)} protos")


if __name__ == "__main__":
    main()
