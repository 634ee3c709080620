"""Resident memory: at rest, with GPUs, with watches, and after very many updates."""

from __future__ import annotations

import time

from benchmarks.node import GPUS, UPDATE, populate, rewordings, toggles
from benchmarks.processes import WATCH, BareServer, DeviceServer, bare_method
from benchmarks.propagation import MAX_CONNECTIONS
from benchmarks.report import Figure, single
from benchmarks.workbench import Workbench

AT_REST_MIB = 48.0
GROWTH_MIB = 1.0
STARTS = 3
SETTLE_SECONDS = 1.0
WATCHES = (100, 1_000)
UPDATES = 1_000_000
WARM_UP = 20_000
"""Enough to fill the event history of 4,096 and the shorter ones, which are bounded but not empty
in a server that runs."""
WRITERS = 8


def run(bench: Workbench) -> list[Figure]:
    """At rest, with GPUs and with watches."""
    bench.say("resident memory")
    servers = [bench.device_server() for _ in range(bench.rounds(STARTS, 1))]
    bares = [bench.bare_server() for _ in servers]
    time.sleep(SETTLE_SECONDS)
    figures = [
        single(
            "RSS at rest, no GPUs",
            "MiB",
            [s.rss_mib for s in servers],
            [b.rss_mib for b in bares],
            limit=AT_REST_MIB,
        )
    ]
    server, bare = servers[0], bares[0]
    populate(bench.load, server)
    figures.append(single("RSS with 8 GPUs", "MiB", [server.rss_mib]))
    for watches in WATCHES[: bench.rounds(len(WATCHES), 1)]:
        figures.append(_with_watches(bench, watches, server, bare))
    return figures


def run_growth(bench: Workbench) -> list[Figure]:
    """The difference that a million effective updates make, after a warm-up."""
    server = bench.device_server()
    populate(bench.load, server)
    _update(bench, server, WARM_UP)
    before = server.rss_mib
    updates = bench.rounds(UPDATES, 20_000)
    bench.say(f"growth over {updates:,} updates")
    _update(bench, server, updates)
    limit = 0.0 if bench.quick else GROWTH_MIB
    growth = server.rss_mib - before
    return [single(f"RSS growth over {updates:,} updates", "MiB", [growth], limit=limit)]


def _with_watches(bench: Workbench, watches: int, server: DeviceServer, bare: BareServer) -> Figure:
    for target, method, initial in (
        (server.target, WATCH, GPUS),
        (bare.target, bare_method("Watch"), 1),
    ):
        bench.load.ask(
            "watch",
            target=target,
            method=method,
            count=watches,
            connections=min(watches, MAX_CONNECTIONS),
            initial=initial,
        )
    time.sleep(SETTLE_SECONDS)
    figure = single(f"RSS with {watches:,} watches", "MiB", [server.rss_mib], [bare.rss_mib])
    for target in (server.target, bare.target):
        bench.load.ask("unwatch", target=target)
    return figure


def _update(bench: Workbench, server: DeviceServer, count: int) -> None:
    bench.load.ask(
        "calls",
        target=server.provider_target,
        method=UPDATE,
        requests=[*toggles(), *rewordings()],
        count=count,
        connections=WRITERS,
    )
