"""A fresh clone in which ``make serve`` runs, and shells at its top."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from device_api_fake_nvml import FakeNode

from device_api_core.client import Clientset, GpuInformer

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 40.0
GPUS = 8

# What make serve and .run/env set, and what would change them.
_SCRUBBED = ("NVIDIA_DEVICE_API", "DEVICE_API_", "DEVICE_PLUGIN_", "FAKE_NVML")


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

    @property
    def output(self) -> str:
        return self._text

    def wait_for(self, holds: Callable[[str], object], seconds: float = SECONDS) -> bool:
        """Wait until that holds of everything printed, and return whether it does."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: holds(self._text), seconds))

    def prints(self, pattern: str) -> None:
        """Wait for a line that the pattern is found in."""
        wanted = re.compile(pattern, re.MULTILINE)
        assert self.wait_for(wanted.search), f"{pattern} is not in:\n{self._text}"

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

    def __init__(self, path: Path, *flags: str) -> None:
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
                [path / ".venv/bin/python", path / "tools" / "serve", *free, *flags],
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

    def address(self, face: str) -> str:
        """Where the server listens: `tcp`, `health` or `metrics`, as its log calls them."""
        found = re.search(rf" serving .* {face}=(\S+)", self.log.read_text(encoding="utf-8"))
        assert found, self.log.read_text(encoding="utf-8")
        return found[1]

    def stop(self) -> None:
        self._serve.terminate()
        self._serve.wait(SECONDS)

    def uuid(self, gpu: int) -> str:
        with FakeNode.open(self.path / ".run" / "node") as node:
            return node.gpu(gpu).uuid
