"""How long a write takes to reach the last of many watchers, and what each event costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.node import GPUS, UPDATE, toggles
from benchmarks.processes import WATCH, Server, bare_method
from benchmarks.report import Figure, paired, quantile
from benchmarks.workbench import Workbench

WATCHERS = (1, 10, 100, 1_000)
MAX_CONNECTIONS = 100
"""Each watcher has a connection of its own up to here: more would need more open files than a
process may have by default."""
WRITES = 16
"""In a round: each of the different writes once, so that each changes something."""
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Side:
    """One server: where it is watched, where it is written to, and what was seen."""

    process: Server
    watch: str
    initial: int
    via: str
    method: str
    requests: list[bytes]
    durations: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def run(bench: Workbench) -> list[Figure]:
    """Rounds of single writes, each seen by all watchers before the next."""
    server, bare = bench.pair()
    figures: list[Figure] = []
    for watchers in WATCHERS if not bench.quick else WATCHERS[:3]:
        bench.say(f"propagation to {watchers} watchers")
        sides = (
            Side(server, WATCH, GPUS, server.provider_target, UPDATE, toggles()),
            Side(bare, bare_method("Watch"), 1, bare.target, bare_method("Push"), toggles()),
        )
        for side in sides:
            bench.load.ask(
                "watch",
                target=side.process.target,
                method=side.watch,
                count=watchers,
                connections=min(watchers, MAX_CONNECTIONS),
                initial=side.initial,
            )
        for number in range(bench.rounds(ROUNDS) + 1):
            for side in sides if number % 2 else reversed(sides):
                _round(bench, side, watchers, warm_up=number == 0)
        for side in sides:
            bench.load.ask("unwatch", target=side.process.target)
        figures += _figures(watchers, *sides)
    return figures


def _round(bench: Workbench, side: Side, watchers: int, *, warm_up: bool) -> None:
    before = side.process.cpu_seconds
    result = bench.load.ask(
        "propagate",
        target=side.process.target,
        via=side.via,
        method=side.method,
        requests=side.requests,
        count=WRITES,
        each=watchers,
    )
    if not warm_up:
        side.cpu.append((side.process.cpu_seconds - before) / (WRITES * watchers) * 1e6)
        milliseconds = [seconds * 1e3 for seconds in result["durations"]]
        side.p50.append(quantile(milliseconds, 50))
        side.durations.extend(milliseconds)


def _figures(watchers: int, server: Side, bare: Side) -> list[Figure]:
    noun = "watcher" if watchers == 1 else "watchers"
    name = f"write to the last of {watchers:,} {noun}"
    p99 = (quantile(side.durations, 99) for side in (server, bare))
    return [
        paired(f"{name}: p50", "ms", server.p50, bare.p50),
        paired(f"{name}: p99", "ms", *([value] for value in p99)),
        paired(f"CPU per event, {watchers:,} {noun}", "us", server.cpu, bare.cpu),
    ]
