"""A real Device API daemon, the plugin as a process of its own, and a stand-in for the kubelet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from device_api_device_plugin.testing import WAIT_SECONDS, Kubelet

from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_core.testing.nodes import Node

PROGRAM = str(Path(sys.executable).with_name("device-api-device-plugin"))


class Plugin:
    """A started plugin. Its log is JSON, read as it comes."""

    def __init__(self, *flags: str) -> None:
        self.log: list[dict[str, Any]] = []
        self.output: list[str] = []
        self._changed = threading.Condition()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DEVICE_PLUGIN_")}
        self.process = subprocess.Popen(
            [PROGRAM, *flags], stderr=subprocess.PIPE, text=True, env=environment
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stderr as lines:
            for line in lines:
                with self._changed:
                    self.output.append(line)
                    if line.startswith("{"):
                        self.log.append(json.loads(line))
                    self._changed.notify_all()

    def said(self, text: str, **facts: str) -> dict[str, Any]:
        """The first log entry with these facts whose message contains the text, waiting for it."""

        def found() -> dict[str, Any] | None:
            matching = (e for e in self.log if text in e["msg"] and facts.items() <= e.items())
            return next(matching, None)

        with self._changed:
            assert self._changed.wait_for(found, WAIT_SECONDS), "".join(self.output)
            return found()

    def stop(self) -> int:
        self.process.terminate()
        return self.exit_code()

    def exit_code(self) -> int:
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.exit_code()


class Gpus:
    """GPUs that a provider elsewhere reports."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def providers(self) -> Any:
        return self.node.clients.v1alpha1.providers

    def add(self, *numbers: int) -> None:
        for number in numbers:
            spec = GpuSpec(uuid=f"GPU-{number}")
            self.providers.register(f"gpu-{number}", spec, provider_id="test")
            self.set(number, "True")

    def set(self, number: int, status: str, reason: str = "", message: str = "") -> None:
        condition = self.condition(status, reason, message)
        self.providers.update_condition(f"gpu-{number}", condition, provider_id="test")

    @staticmethod
    def condition(status: str, reason: str = "", message: str = "") -> Condition:
        return Condition("Healthy", ConditionStatus(status), reason, message)

    def remove(self, number: int) -> None:
        self.providers.unregister(f"gpu-{number}")


@pytest.fixture
def kubelet() -> Iterator[Kubelet]:
    """A kubelet that runs."""
    # Not pytest's tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="kubelet-") as path, Kubelet(Path(path)) as running:
        yield running


@pytest.fixture
def start(kubelet: Kubelet) -> Iterator[Callable[..., Plugin]]:
    """Starts plugins for the kubelet; ends them and asserts that none has a defect."""
    with ExitStack() as stack:
        plugins: list[Plugin] = []

        def start_one(target: Path, *flags: str) -> Plugin:
            plugin = Plugin(
                f"--target={target}",
                f"--plugin-dir={kubelet.directory}",
                "--poll-seconds=0.05",
                *flags,
            )
            stack.callback(plugin.close)
            plugins.append(plugin)
            return plugin

        yield start_one
    for plugin in plugins:
        assert "Traceback" not in "".join(plugin.output), "".join(plugin.output)


@pytest.fixture
def gpus(device_api_server: Callable[..., Node]) -> Gpus:
    """A daemon without a provider of its own."""
    return Gpus(device_api_server())
