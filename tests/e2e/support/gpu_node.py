"""The node of a cluster of our own: its simulated GPUs, and the device plugin on it."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster import NODE, Cluster, Program
from device_api_fake_nvml import FakeNode
from device_api_fake_nvml.health import RecoveryAction
from polling import SECONDS, eventually

DRIVER = Path("/run/nvidia/driver")
LIBRARIES = "usr/lib64"
GPUS = 8
RESOURCE = "nvidia.com/gpu"


class GpuNode:
    """``driver`` holds the GPUs; ``plugin`` is the device plugin, not started yet."""

    def __init__(self, cluster: Cluster, driver: FakeNode) -> None:
        self.cluster = cluster
        self.driver = driver
        program = str(Path(sys.executable).with_name("device-api-device-plugin"))
        self.plugin = Program(cluster.scratch / "device-plugin.log", program)

    def breaks(self, gpu: int) -> None:
        """That GPU falls off the bus, and the driver asks for a reset of it."""
        self.driver.health.ask_for(gpu, RecoveryAction.GPU_RESET)
        self.driver.inject_xid(gpu, 79)

    def is_repaired(self, gpu: int) -> None:
        self.driver.reset(gpu)
        self.driver.health.ask_for(gpu, RecoveryAction.NONE)

    def wait_for_allocatable(self, count: int, seconds: float = SECONDS) -> None:
        kubectl = self.cluster.kubectl
        eventually(
            lambda: kubectl.allocatable(NODE) == count, seconds, f"{count} GPUs are allocatable"
        )
