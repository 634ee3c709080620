"""Every example does what its README says, by the command that its README gives."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from checkout import SECONDS, Checkout, Shell

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def blocks(readme: Path) -> list[str]:
    """The commands of a README: the example's own first, then what to do meanwhile."""
    return re.findall(r"```bash\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    # Not pytest's tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="clone-") as path:
        running = Checkout(Path(path))
        try:
            running.wait_ready()
            yield running
        finally:
            running.stop()


@pytest.fixture
def shell(checkout: Checkout) -> Iterator[type]:
    """Runs commands in the checkout, and ends them after the test."""
    shells: list[Shell] = []

    def run(command: str) -> Shell:
        shells.append(Shell(command, checkout.path))
        return shells[-1]

    yield run
    for each in shells:
        each.close()
    with checkout.clients as clients:
        known = clients.admin.list_providers().providers
        if any(p.name == "maintenance" for p in known):
            # What it said would soon be Unknown, and so would be every GPU of the next example.
            clients.admin.forget_provider("maintenance")


@dataclass(frozen=True)
class Example:
    """``prints`` is what it prints at first. ``gpu`` is the one that the README's second command
    breaks, and ``then`` what the example prints of it; it then runs until interrupted."""

    prints: list[str]
    gpu: int | None = None
    then: str = ""
    needs: list[str] = field(default_factory=list)


NAMED = {
    "standard_client": Example(
        [
            r"^8 GPUs at version \d+$",
            r"^  0  gpu-[-0-9a-f]{36}  (not )?healthy",
            r"^  NVMLReady is (True|False) .*\(nvml\)$",
            r"^  Ready is .*\(computed by the server\)$",
            r'^as expected: gpu "no-such-gpu" not found$',
        ]
    ),
    "grpcurl": Example(
        [
            r"^nvidia\.device\.v1alpha1\.GpuService$",
            r"^gpu-[-0-9a-f]{36} (True|False)$",
            r'^    "metadata": {$',
            r'^  "type": "ADDED",$',
        ]
    ),
    "fake_client": Example([r"^4 passed in "]),
    "informer_controller": Example([r"^{name}: use$"], 1, r"^{name}: do not use \(RESTART_BM\)$"),
    "watch": Example([r"^FOUND     {name}  True$"], 2, r"^MODIFIED  {name}  False  RESTART_BM$"),
    "asyncio_watch": Example([r"^8 GPUs at version \d+$"], 3, r"^MODIFIED {name} False$"),
    "remote_provider": Example([r"^{name}: True$"], 4, r"^{name}: False gets a new fan$"),
    "nodejs": Example(
        [r"^FOUND {name} True$"], 5, r"^MODIFIED {name} False RESTART_BM$", ["node", "npm"]
    ),
    "device_plugin": Example(
        [
            r"^{uuid} Healthy$",
            r"^a container gets {{'NVIDIA_VISIBLE_DEVICES': 'GPU-[-0-9a-f]{{36}}'}}$",
        ],
        6,
        r"^{uuid} Unhealthy$",
    ),
}


def need(programs: list[str]) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{' and '.join(missing)} not installed; CI installs them")
    assert not missing, f"CI has to install {missing}"


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("name", NAMED)
def test_an_example_does_what_its_readme_says(name, checkout, shell):
    example = NAMED[name]
    need(example.needs)
    commands = blocks(EXAMPLES / name / "README.md")
    running = shell(commands[0])
    if example.gpu is None:
        for pattern in example.prints:
            running.prints(pattern)
        assert running.ends() == 0
        assert len(commands) == 1
        return
    uuid = checkout.uuid(example.gpu)
    for pattern in example.prints:
        running.prints(pattern.format(uuid=uuid, name=uuid.lower()))
    assert shell(commands[1]).ends() == 0
    running.prints(example.then.format(uuid=uuid, name=uuid.lower()))
    assert running.interrupt() == 0
    running.prints(r"^stopped$")
    assert len(commands) == 2


def test_every_example_is_in_the_index_and_tested():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\)", (EXAMPLES / "README.md").read_text(), re.M)
    assert all(text == link for text, link in listed)
    assert {link for _, link in listed} == folders
    # The template has tests of its own, which the provider kit runs.
    assert folders - {"provider_template"} == set(NAMED)


def test_the_index_begins_with_the_server():
    assert blocks(EXAMPLES / "README.md") == ["make serve\n"]
