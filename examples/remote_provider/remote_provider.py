"""A provider in a process of its own: takes GPUs out of service that a file lists.

It speaks gRPC, here through the client; any language can do the same. The file names a GPU in each
line, by name, uuid or index; what follows a # is the reason.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from device_api_core.client import Clientset
from device_api_core.client.errors import DeadlineExceeded, Unavailable
from device_api_core.resources import Condition, ConditionStatus, Gpu

PROVIDER = "maintenance"
TYPE = "example.com/InService"
INTERVAL_SECONDS = 1.0


def read(file: Path) -> dict[str, str]:
    """The reasons by GPU. A file that is not there lists none; one that cannot be read raises."""
    if not file.exists():
        return {}
    lines = (line.partition("#") for line in file.read_text(encoding="utf-8").splitlines())
    return {gpu.strip().lower(): why.strip() for gpu, _, why in lines if gpu.strip()}


def judge(gpu: Gpu, listed: dict[str, str]) -> Condition:
    """What the provider says of a GPU. True is good."""
    for key in (gpu.name.lower(), gpu.spec.uuid.lower(), str(gpu.spec.index)):
        if key in listed:
            return Condition(TYPE, ConditionStatus.FALSE, "Maintenance", listed[key])
    return Condition(TYPE, ConditionStatus.TRUE, "InService")


class MaintenanceProvider:
    """Reports on every GPU that another provider has made known."""

    def __init__(self, clients: Clientset, file: Path) -> None:
        self._clients = clients
        self._file = file
        self._said: dict[str, Condition] = {}

    def report(self) -> None:
        """Say what is new, and that this provider lives. Raises what the server answers."""
        providers = self._clients.v1alpha1.providers
        listed = read(self._file)
        known = self._clients.v1alpha1.gpus.list(provider_id=PROVIDER).items
        for gpu in known:
            condition = judge(gpu, listed)
            if self._said.get(gpu.name) != condition:
                providers.register(gpu.name, provider_id=PROVIDER)
                providers.update_condition(gpu.name, condition, provider_id=PROVIDER)
                self._said[gpu.name] = condition
                print(f"{gpu.name}: {condition.status} {condition.message}".rstrip(), flush=True)
        # Three intervals of silence, and the server believes no True of ours any more.
        believed = providers.heartbeat(
            PROVIDER,
            [gpu.name for gpu in known],
            synced=True,
            summary=f"{len(listed)} GPUs in {self._file}",
            interval_seconds=2 * INTERVAL_SECONDS,
        )
        if not believed:
            # The server is new or has given us up: say everything again.
            self._said.clear()


def main(file: Path) -> None:
    # The providers' socket, which only root may write to, comes from DEVICE_API_PROVIDER_SOCKET.
    with Clientset.connect() as clients:
        provider = MaintenanceProvider(clients, file)
        while True:
            try:
                provider.report()
            except (Unavailable, DeadlineExceeded) as error:
                print(f"no server: {error}", flush=True)
            time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: remote_provider.py FILE")
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        print("stopped")
