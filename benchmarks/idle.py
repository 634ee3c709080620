"""What the server costs while nothing happens but many watch."""

from __future__ import annotations

import time

from benchmarks.node import GPUS
from benchmarks.processes import WATCH, bare_method
from benchmarks.report import Figure, single
from benchmarks.workbench import Workbench

LIMIT = 1.0
WATCHES = 100
SECONDS = 20
SETTLE_SECONDS = 7.0
"""So that what the server does about new connections, up to 5 s later, is over."""


def run(bench: Workbench) -> list[Figure]:
    """Both servers at the same time, for they do nothing."""
    seconds = bench.rounds(SECONDS)
    bench.say(f"idle CPU with {WATCHES} watches, for {seconds} s")
    server, bare = bench.pair()
    for target, method, initial in (
        (server.target, WATCH, GPUS),
        (bare.target, bare_method("Watch"), 1),
    ):
        bench.load.ask(
            "watch",
            target=target,
            method=method,
            count=WATCHES,
            connections=WATCHES,
            initial=initial,
        )
    time.sleep(SETTLE_SECONDS)
    before = [process.cpu_seconds for process in (server, bare)]
    time.sleep(seconds)
    used = [process.cpu_seconds for process in (server, bare)]
    mine, theirs = ((b - a) * 1e3 / seconds for a, b in zip(before, used, strict=True))
    for target in (server.target, bare.target):
        bench.load.ask("unwatch", target=target)
    return [single(f"idle CPU, {WATCHES} watches", "ms/s", [mine], [theirs], limit=LIMIT)]
