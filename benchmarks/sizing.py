"""What a node needs for its server: memory and CPU by GPUs, watchers and writes, per transport."""

from __future__ import annotations

import time

from benchmarks.node import MOST_GPUS, UPDATE, populate, toggles
from benchmarks.processes import LIST, WATCH, DeviceServer
from benchmarks.propagation import MAX_CONNECTIONS
from benchmarks.report import Figure, single
from benchmarks.workbench import Workbench

TRANSPORTS = ("grpcio", "h2")
SIZES = ((8, 4), (8, 100), (MOST_GPUS, 4), (MOST_GPUS, 100), (MOST_GPUS, 1_000))
"""GPUs and watchers of a server."""
WRITES = 320
LISTS = 400
ROUNDS = 3
SETTLE_SECONDS = 1.0


def run(bench: Workbench) -> list[Figure]:
    """A new server for each size, so that none has what another has left in memory."""
    figures: list[Figure] = []
    for transport in TRANSPORTS:
        for gpus, watchers in SIZES[: bench.rounds(len(SIZES), 1)]:
            bench.say(f"sizing {transport}: {gpus} GPUs, {watchers:,} watchers")
            server = bench.device_server("--transport", transport)
            figures += _size(bench, server, transport, gpus, watchers)
            server.stop()
    return figures


def _size(
    bench: Workbench, server: DeviceServer, transport: str, gpus: int, watchers: int
) -> list[Figure]:
    populate(bench.load, server, gpus)
    bench.load.ask(
        "watch",
        target=server.target,
        method=WATCH,
        count=watchers,
        connections=min(watchers, MAX_CONNECTIONS),
        initial=gpus,
    )
    rounds = bench.rounds(ROUNDS)
    writes = [_write(bench, server, watchers) for _ in range(rounds)]
    lists = [_list(bench, server) for _ in range(rounds)]
    time.sleep(SETTLE_SECONDS)
    name = f"{transport}, {gpus} GPUs, {watchers:,} watchers"
    figures = [
        single(f"{name}: RSS", "MiB", [server.rss_mib]),
        single(f"{name}: CPU per write", "ms", writes),
        single(f"{name}: CPU per ListGpus", "ms", lists),
    ]
    bench.load.ask("unwatch", target=server.target)
    return figures


def _write(bench: Workbench, server: DeviceServer, watchers: int) -> float:
    count = max(16, WRITES // max(1, watchers // 10))
    before = server.cpu_seconds
    bench.load.ask(
        "propagate",
        target=server.target,
        via=server.provider_target,
        method=UPDATE,
        requests=toggles(),
        count=count,
        each=watchers,
    )
    return (server.cpu_seconds - before) * 1e3 / count


def _list(bench: Workbench, server: DeviceServer) -> float:
    before = server.cpu_seconds
    bench.load.ask(
        "calls", target=server.target, method=LIST, requests=[b""], count=LISTS, connections=1
    )
    return (server.cpu_seconds - before) * 1e3 / LISTS
