"""Every example does what its README says, by the command that its README gives."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from device_api_fake_nvml import FakeNode

from device_api_core.client import Clientset, GpuInformer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SECONDS = 40.0
GPUS = 8

# What make serve and .run/env set, and what would change them.
_SCRUBBED = ("NVIDIA_DEVICE_API", "DEVICE_API_", "DEVICE_PLUGIN_", "FAKE_NVML")


def blocks(readme: Path) -> list[str]:
    """The commands of a README: the example's own first, then what to do meanwhile."""
    return re.findall(r"```bash\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(_SCRUBBED)}


class Shell:
    """A command in bash, as typed at the top of a checkout. Its output is read as it comes."""

    def __init__(self, command: str, checkout: Path) -> None:
        self._text = ""
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=checkout,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A terminal's Ctrl-C goes to a whole process group.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._text += line
                    self._changed.notify_all()

    def prints(self, pattern: str) -> None:
        """Wait for a line that the pattern is found in."""
        wanted = re.compile(pattern, re.MULTILINE)
        with self._changed:
            found = self._changed.wait_for(lambda: wanted.search(self._text), SECONDS)
        assert found, f"{pattern} is not in:\n{self._text}"

    def ends(self) -> int:
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def interrupt(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        return self.ends()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.ends()


class Checkout:
    """What of a fresh clone the examples see, and the server that make serve runs there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        ignored = shutil.ignore_patterns("node_modules", "__pycache__", ".pytest_cache")
        for folder in ("examples", "proto"):
            shutil.copytree(ROOT / folder, path / folder, symlinks=True, ignore=ignored)
        (path / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "serve", path / "tools" / "serve")
        (path / ".venv").symlink_to(sys.prefix)
        self.log = path / "serve.log"
        free = ("--grpc-address=127.0.0.1:0", "--health-port=0", "--metrics-port=0")
        with self.log.open("wb") as log:
            self._serve = subprocess.Popen(
                [path / ".venv/bin/python", path / "tools" / "serve", *free],
                env=clean_environment(),
                stdout=log,
                stderr=log,
            )

    @property
    def clients(self) -> Clientset:
        return Clientset.connect(str(self.path / ".run" / "provider.sock"))

    def wait_ready(self) -> None:
        """Wait until every GPU is there."""
        target = str(self.path / ".run" / "device.sock")
        with Clientset.connect(target) as clients, GpuInformer(clients.v1alpha1.gpus) as informer:
            informer.wait_for_sync(SECONDS)
            if not (self.path / ".run" / "node").exists():
                pytest.skip("this machine has NVIDIA GPUs; faults are only made on simulated ones")
            assert len(informer.lister.list()) == GPUS, self.log.read_text()

    def stop(self) -> None:
        self._serve.terminate()
        self._serve.wait(SECONDS)

    def uuid(self, gpu: int) -> str:
        with FakeNode.open(self.path / ".run" / "node") as node:
            return node.gpu(gpu).uuid


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
