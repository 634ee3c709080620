"""How long an XID takes from the driver to the kubelet: through the NVML provider, the server and
the device plugin of ``examples/device_plugin``, with a simulated driver and a stand-in kubelet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.node import GPUS
from benchmarks.processes import DevicePlugin, Failed, stopping
from benchmarks.report import Figure, quantile, single
from benchmarks.workbench import Workbench

FATAL = 64
ROUNDS = 6
_WAIT_SECONDS = 30.0


def run(bench: Workbench) -> list[Figure]:
    """One XID on each GPU of a node, several nodes one after the other: a GPU falls sick once."""
    try:
        import device_api_device_plugin  # noqa: F401
        import device_api_fake_nvml  # noqa: F401
    except ImportError as error:
        bench.say(f"XID to kubelet: skipped, for {error.name} is not installed")
        return []
    bench.say("XID to kubelet")
    milliseconds: list[float] = []
    for _ in range(bench.rounds(ROUNDS, 1)):
        milliseconds += _one_node(bench, bench.new_folder())
    return [
        single("XID to kubelet: p50", "ms", [quantile(milliseconds, 50)]),
        single("XID to kubelet: p99", "ms", [quantile(milliseconds, 99)]),
    ]


def _one_node(bench: Workbench, folder: Path) -> list[float]:
    from device_api_device_plugin.testing import Kubelet
    from device_api_fake_nvml import FakeNode

    plugin_dir = folder / "plugins"
    plugin_dir.mkdir(parents=True)
    with FakeNode.create(folder / "node", gpus=GPUS) as node, Kubelet(plugin_dir) as kubelet:
        server = bench.device_server(
            "--provider", "nvml", "--nvml-driver-root", str(node.root), env=node.environment()
        )
        with stopping(DevicePlugin(bench.new_folder(), server.target, plugin_dir)):
            _until(kubelet, healthy=GPUS)
            milliseconds = []
            for gpu in range(GPUS):
                began = time.monotonic()
                node.inject_xid(gpu, FATAL)
                _until(kubelet, healthy=GPUS - gpu - 1)
                milliseconds.append((time.monotonic() - began) * 1e3)
        server.stop()
        return milliseconds


def _until(kubelet: Any, healthy: int) -> None:
    def told() -> bool:
        return list(kubelet.devices.values()).count("Healthy") == healthy

    try:
        kubelet.wait(told, _WAIT_SECONDS)
    except AssertionError as error:
        raise Failed(f"the kubelet is not told: {error}") from error
