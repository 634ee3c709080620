"""The device plugin between the Device API and a stand-in for a kubelet, until Ctrl-C."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from device_api_device_plugin.testing import Kubelet

PLUGIN = "device-api-device-plugin"
LOOK_SECONDS = 1.0


def tell(before: dict[str, str], now: dict[str, str]) -> None:
    """Print what the kubelet was told, as far as it is new."""
    for device in sorted(before.keys() | now.keys()):
        if before.get(device) != now.get(device):
            print(device, now.get(device, "gone"), flush=True)


def allocate(kubelet: Kubelet) -> None:
    """Start a pod, as it were, on the first GPU that is healthy."""
    healthy = sorted(id_ for id_, health in kubelet.devices.items() if health == "Healthy")
    if not healthy:
        return
    (container,) = kubelet.allocate(healthy[:1]).container_responses
    print("a container gets", dict(container.envs), flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kubelet-") as path, Kubelet(Path(path)) as kubelet:
        command = [PLUGIN, "--plugin-dir", path, "--log-format", "text"]
        with subprocess.Popen(command) as plugin:
            try:
                told: dict[str, str] = {}
                while plugin.poll() is None:
                    before, told = told, kubelet.news(told, LOOK_SECONDS)
                    tell(before, told)
                    if not before and told:
                        allocate(kubelet)
            finally:
                plugin.terminate()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
