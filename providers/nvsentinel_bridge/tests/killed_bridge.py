"""A bridge in a process of its own, to be killed. Arguments: socket, state directory, node, and
``applies`` or ``hangs`` for what the daemon does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence

from device_api_nvsentinel_bridge.options import BridgeOptions
from device_api_nvsentinel_bridge.provider import NvsentinelProvider

from device_api_core.resources import Condition, Gpu, GpuSpec, ObjectMeta


class Daemon:
    def __init__(self, gpus: Sequence[str], *, hangs: bool) -> None:
        self._gpus = tuple(Gpu(ObjectMeta(g), GpuSpec(uuid=g)) for g in gpus)
        self._hangs = hangs

    def gpus(self) -> Sequence[Gpu]:
        return self._gpus

    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        return {}

    def register(self, gpu: str, spec: GpuSpec) -> bool:
        return False

    def set_status(
        self, gpu: str, conditions: Sequence[Condition], *, recommended_action: str = ""
    ) -> None:
        if self._hangs:
            threading.Event().wait()

    def synced(self) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def alive(self, summary: str = "") -> None:
        pass

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        pass

    def gauge(self, name: str, value: float | None, /, **labels: object) -> None:
        pass


if __name__ == "__main__":
    path, state_dir, node, behaviour, *gpus = sys.argv[1:]
    options = BridgeOptions(socket=path, node_name=node)
    daemon = Daemon(gpus, hangs=behaviour == "hangs")
    NvsentinelProvider(options, state_dir).run(daemon, threading.Event())
