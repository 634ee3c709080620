"""A new kind of device needs its .proto and one command: done here, in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PROTOS = Path("proto", "nvidia", "device", "v1alpha1")

COPIED = (
    "Makefile",
    "hatch.toml",
    "locks",
    "pyproject.toml",
    "device_api_core",
    "proto",
    "charts",
    "examples/device_plugin",
    "providers",
    "publishers",
    "tools/api_reference.py",
    "tools/chart_readme.py",
)


def run(*command: str | Path, cwd: Path, fails: bool = False, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout
    return done.stdout


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of what generates and is generated, with the checkout's own tools."""
    clean = shutil.ignore_patterns("__pycache__", "tests")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=clean)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tools" / "codegen", tmp_path / "tools" / "codegen", ignore=clean)
    # hatch keeps notes about each project: here they go with the copy.
    (tmp_path / ".hatch").mkdir()
    for name in ("venv", "codegen", "cache", "config.toml"):
        if (ROOT / ".hatch" / name).exists():
            (tmp_path / ".hatch" / name).symlink_to(ROOT / ".hatch" / name)
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    return tmp_path


def generated(tree: Path) -> dict[str, bytes]:
    folders = [*tree.rglob("_generated"), *tree.rglob("_proto")]
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for folder in folders
        for path in folder.glob("*.py*")
        if path.is_file()
    }


def without_conditions(proto: str) -> str:
    """The toy under a name of two words, without conditions."""
    proto = re.sub(r"\n *// The conditions\.\n.*\n", "\n", proto)
    return proto.replace("Nics", "NvSwitches").replace("Nic", "NvSwitch").replace("nic", "switch")


@pytest.mark.timeout(300)
def test_a_kind_needs_its_proto_and_one_command(scratch):
    committed = generated(scratch)
    toy = (HERE / "nic.proto").read_text(encoding="utf-8")
    added = {"nic.proto": toy, "nv_switch.proto": without_conditions(toy)}
    for name, text in added.items():
        (scratch / PROTOS / name).write_text(text, encoding="utf-8")

    run("make", "code-gen", cwd=scratch)

    present = generated(scratch)
    changed = {path for path, code in committed.items() if present[path] != code}
    assert {Path(path).name for path in changed} == {"__init__.py", "v1alpha1.py"}
    assert len(present.keys() - committed.keys()) == 2 * (4 + 4)
    run(BIN / "ruff", "check", "device_api_core", cwd=scratch)
    run(BIN / "ruff", "format", "--check", "device_api_core", cwd=scratch)
    run(BIN / "buf", "lint", "proto", cwd=scratch)
    shutil.copy(HERE / "consumer.py", scratch / "test_consumer.py")
    run(
        sys.executable, "-m", "pytest", "-q", "test_consumer.py",
        cwd=scratch, PYTHONPATH=str(scratch), SCRATCH=str(scratch),
    )  # fmt: skip
    run(BIN / "mypy", "-p", "device_api_core", cwd=scratch)

    for name in added:
        (scratch / PROTOS / name).unlink()
    run("make", "code-gen", cwd=scratch)
    assert generated(scratch) == committed


@pytest.mark.timeout(300)
def test_a_proto_that_is_wrong_changes_nothing(scratch):
    committed = generated(scratch)
    toy = (HERE / "nic.proto").read_text(encoding="utf-8").replace("rpc GetNic(", "rpc ReadNic(")
    (scratch / PROTOS / "nic.proto").write_text(toy, encoding="utf-8")
    said = run("make", "code-gen", cwd=scratch, fails=True)
    assert "nvidia.device.v1alpha1.NicService: GetNic is missing" in said
    assert generated(scratch) == committed
