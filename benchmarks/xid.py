"""How long an XID takes from the driver to a watcher, with a simulated driver."""

from __future__ import annotations

import time

from benchmarks.node import GPUS
from benchmarks.processes import WATCH
from benchmarks.report import Figure, quantile, single
from benchmarks.workbench import Workbench

# Each makes a GPU's condition say more, so that each is an event.
FATAL = (46, 48, 62, 64, 74, 95)


def run(bench: Workbench) -> list[Figure]:
    """One XID after the other on each GPU of a simulated node, seen by one watcher."""
    try:
        from device_api_fake_nvml import FakeNode
    except ImportError:
        bench.say("XID to watcher: skipped, for device-api-fake-nvml is not installed")
        return []
    bench.say("XID to watcher")
    with FakeNode.create(bench.folder / "node", gpus=GPUS) as node:
        server = bench.device_server(
            "--provider", "nvml", "--nvml-driver-root", str(node.root), env=node.environment()
        )
        bench.load.ask(
            "watch", target=server.target, method=WATCH, count=1, connections=1, initial=GPUS
        )
        milliseconds: list[float] = []
        seen = GPUS
        for xid in FATAL[: bench.rounds(len(FATAL), 1)]:
            for gpu in range(GPUS):
                seen += 1
                bench.load.tell("arrival", target=server.target, count=seen)
                began = time.monotonic()
                node.inject_xid(gpu, xid)
                milliseconds.append((bench.load.result()["at"] - began) * 1e3)
        bench.load.ask("unwatch", target=server.target)
    return [
        single("XID to watcher: p50", "ms", [quantile(milliseconds, 50)]),
        single("XID to watcher: p99", "ms", [quantile(milliseconds, 99)]),
    ]
