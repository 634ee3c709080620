"""The server beside the Go peer, in one run and in turns: the figures that have goals."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.node import GET, GPUS, MOST_GPUS, UPDATE, get, populate, toggles
from benchmarks.peer.processes import UNLIMITED, GoLoad, Peer, Side, ended, programs
from benchmarks.processes import LIST, WATCH, DeviceServer
from benchmarks.report import Figure, against, quantile, reached
from benchmarks.workbench import Workbench

CONNECTIONS = 8
CALLS = 4_000
ROUNDS = 9
WRITES = 16
READS_PER_SECOND, WRITES_PER_SECOND = 400, 200
READS = 1_280
MAX_CONNECTIONS = 100
BURST, BURSTS = 320, 5
"""Writes that wait for nobody; so many of them fill the queue of a watcher that reads nothing."""
STALLED_SHARE = 10
IDLE_SECONDS = 20
UPDATES, WARM_UP = 1_000_000, 20_000
STARTS = 9
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The server and the peer, with the same GPUs, and who calls them."""

    bench: Workbench
    load: GoLoad
    server: DeviceServer
    peer: Peer

    def both(self, measure: Callable[[Side], list[float]], rounds: int) -> list[list[list[float]]]:
        """What ``measure`` finds of each side, by quantity, in rounds of changing order. The first
        round warms up."""
        found: list[list[list[float]]] = [[], []]
        sides = (self.server, self.peer)
        for number in range(self.bench.rounds(rounds) + 1):
            for index in (0, 1) if number % 2 else (1, 0):
                values = measure(sides[index])
                if number:
                    found[index].append(values)
        return [[list(column) for column in zip(*side, strict=True)] for side in found]


def run(bench: Workbench) -> list[Figure]:
    """All of them; none, with a word about it, where there is no Go."""
    built = programs(bench)
    if built is None:
        return []
    transport = ("--transport", "h2", *UNLIMITED)
    with ExitStack() as stack:
        load = GoLoad(built)
        stack.enter_context(ended(load))

        def pair(gpus: int) -> Pair:
            sides: tuple[DeviceServer, Peer] = (
                bench.device_server(*transport),
                Peer(built, bench.new_folder()),
            )
            stack.enter_context(ended(sides[1]))
            for side in sides:
                load.ask("first_answer", target=side.target, method=LIST)
                populate(load, side, gpus)
            return Pair(bench, load, *sides)

        eight = pair(GPUS)
        return [
            reached("RSS at rest", "MiB", bench.device_server(*transport).rss_mib, 24, 16),
            *_calls(eight, "GetGpu", GET, get(), (0.4, 0.25), (1.8, 2.5)),
            *_calls(eight, "ListGpus(8)", LIST, [b""], (0.3, 0.18), (2.0, 2.8)),
            *_calls(eight, "UpdateGpuCondition", UPDATE, toggles(), (0.7, 0.5), (1.2, 1.6)),
            *_calls(pair(MOST_GPUS), "ListGpus(72)", LIST, [b""], (0.15, 0.08), None),
            _mixed(eight),
            *_propagation(eight),
            *_stalled(eight),
            _idle(eight),
            _growth(eight),
            _start(bench, load, transport),
        ]


def _calls(
    pair: Pair,
    title: str,
    method: str,
    requests: list[bytes],
    cpu: tuple[float, float],
    rate: tuple[float, float] | None,
) -> list[Figure]:
    pair.bench.say(f"{title} beside the peer")
    count = pair.bench.rounds(CALLS, 160)

    def measure(side: Side) -> list[float]:
        before = side.cpu_seconds
        target = side.provider_target if method == UPDATE else side.target
        took = pair.load.ask(
            "calls",
            target=target,
            method=method,
            requests=requests,
            count=count,
            connections=CONNECTIONS,
        )
        return [(side.cpu_seconds - before) / count * 1e6, count / took["seconds"]]

    mine, theirs = pair.both(measure, ROUNDS)
    figures = [against(f"{title}: CPU per call", "us", mine[0], theirs[0], cpu)]
    if rate is not None:
        name = f"{title}: calls a second"
        figures.append(against(name, "/s", mine[1], theirs[1], rate, at_least=True))
    return figures


def _mixed(pair: Pair) -> Figure:
    pair.bench.say("reads beside writes")

    def measure(side: Side) -> list[float]:
        took = pair.load.ask(
            "mixed",
            target=side.target,
            via=side.provider_target,
            method=UPDATE,
            requests=toggles(),
            read_method=GET,
            reads=get(),
            count=pair.bench.rounds(READS, 160),
            per_second=WRITES_PER_SECOND,
            reads_per_second=READS_PER_SECOND,
        )
        return [took["p99"] * 1e3]

    mine, theirs = pair.both(measure, ROUNDS)
    name = f"GetGpu at {READS_PER_SECOND}/s with {WRITES_PER_SECOND} writes/s: p99"
    return against(name, "ms", mine[0], theirs[0], (0.8, 0.55))


def _propagation(pair: Pair) -> list[Figure]:
    figures: list[Figure] = []
    for side in (pair.server, pair.peer):
        # Concurrent writes may have changed places: from here on each one changes something again.
        pair.load.ask("calls", count=WRITES, connections=1, **_writes(side, side.provider_target))
    for watchers, goal in ((10, (1.0, 0.8)), (100, (0.9, 0.65)), (1_000, (0.6, 0.4))):
        pair.bench.say(f"{watchers:,} watchers beside the peer")
        _watch(pair, watchers)

        def measure(side: Side, each: int = watchers) -> list[float]:
            before = side.cpu_seconds
            took = pair.load.ask("propagate", count=WRITES, each=each, **_writes(side))
            cpu = (side.cpu_seconds - before) / (WRITES * each) * 1e6
            return [cpu, *(seconds * 1e3 for seconds in took["durations"])]

        mine, theirs = pair.both(measure, ROUNDS)
        p99 = [
            [quantile([v for column in side[1:] for v in column], 99)] for side in (mine, theirs)
        ]
        figures.append(
            against(f"write to the last of {watchers:,} watchers: p99", "ms", *p99, goal)
        )
        limits = (0.5, 0.3) if watchers == 100 else None
        name = f"CPU per event, {watchers:,} watchers"
        figures.append(against(name, "us", mine[0], theirs[0], limits))
        if watchers == 1_000:
            figures.append(reached("RSS with 1,000 watches", "MiB", pair.server.rss_mib, 28, 20))
            figures += _delivery(pair, watchers)
        for side in (pair.server, pair.peer):
            pair.load.ask("unwatch", target=side.target)
    return figures


def _delivery(pair: Pair, watchers: int) -> list[Figure]:
    """Writes that wait for nobody: what the watchers miss, and whether they end with the truth."""
    found = [_burst(pair, side, watchers) for side in (pair.server, pair.peer)]
    return [
        reached(f"{what}, {watchers:,} watchers", "", mine, 0, None, theirs)
        for what, mine, theirs in (
            ("events lost", found[0]["lost"], found[1]["lost"]),
            ("watchers left stale", found[0]["stale"], found[1]["stale"]),
        )
    ]


def _burst(pair: Pair, side: Side, watchers: int) -> dict[str, Any]:
    arguments = {"each": watchers, "read_method": GET, "reads": get(), **_writes(side)}
    return pair.load.ask("deliver", count=BURST, **arguments)


def _stalled(pair: Pair) -> list[Figure]:
    """The same where a tenth of the watchers stop reading: what that does to the others, and
    whether those that stopped are told that they have missed something."""
    watchers = pair.bench.rounds(1_000, 100)
    stalled = watchers // STALLED_SHARE
    pair.bench.say(f"{watchers:,} watchers, of which {stalled} stop reading")
    found: list[list[float]] = []
    _watch(pair, watchers - stalled)
    for side in (pair.server, pair.peer):
        arguments = {"target": side.target, "method": WATCH, "initial": GPUS}
        connections = max(1, stalled // 10)
        pair.load.ask("stall", count=stalled, connections=connections, **arguments)
        bursts = [_burst(pair, side, watchers - stalled) for _ in range(BURSTS)]
        ends = pair.load.ask("resume", target=side.target, count=stalled, each=BURST * BURSTS)
        pair.load.ask("unwatch", target=side.target)
        lost = sum(burst["lost"] for burst in bursts)
        found.append([lost, bursts[-1]["stale"], ends["silent"], stalled - ends["told"]])
    whats = (
        f"events lost beside {stalled} stalled watchers",
        f"watchers left stale beside {stalled} stalled ones",
        f"of {stalled} stalled watchers: go on with a gap",
        f"of {stalled} stalled watchers: not told by RESOURCE_EXHAUSTED",
    )
    return [
        reached(what, "", mine, 0, None, theirs)
        for what, mine, theirs in zip(whats, *found, strict=True)
    ]


def _watch(pair: Pair, count: int) -> None:
    connections = min(count, MAX_CONNECTIONS)
    for side in (pair.server, pair.peer):
        arguments = {"target": side.target, "method": WATCH, "initial": GPUS}
        pair.load.ask("watch", count=count, connections=connections, **arguments)


def _writes(side: Side, target: str = "") -> dict[str, Any]:
    target = target or side.target
    arguments = {"target": target, "via": side.provider_target}
    return {**arguments, "method": UPDATE, "requests": toggles()}


def _idle(pair: Pair) -> Figure:
    seconds = pair.bench.rounds(IDLE_SECONDS)
    pair.bench.say(f"idle with 100 watches, for {seconds} s")
    _watch(pair, 100)
    time.sleep(_SETTLE_SECONDS)
    sides = (pair.server, pair.peer)
    before = [side.cpu_seconds for side in sides]
    time.sleep(seconds)
    used = [(s.cpu_seconds - b) * 1e3 / seconds for s, b in zip(sides, before, strict=True)]
    for side in sides:
        pair.load.ask("unwatch", target=side.target)
    return reached("idle CPU, 100 watches", "ms/s", used[0], 0.1, 0.0, used[1])


def _growth(pair: Pair) -> Figure:
    updates = pair.bench.rounds(UPDATES, 20_000)
    pair.bench.say(f"growth over {updates:,} updates")
    target = {"target": pair.server.provider_target, "method": UPDATE, "requests": toggles()}
    pair.load.ask("calls", count=WARM_UP, connections=CONNECTIONS, **target)
    before = pair.server.rss_mib
    pair.load.ask("calls", count=updates, connections=CONNECTIONS, **target)
    growth = pair.server.rss_mib - before
    return reached(f"RSS growth over {updates:,} updates", "MiB", growth, 1.0, 0.3)


def _start(bench: Workbench, load: GoLoad, transport: tuple[str, ...]) -> Figure:
    bench.say("start to the first answer")
    seconds = []
    for _ in range(bench.rounds(STARTS, 1) + 1):
        server = DeviceServer(bench.new_folder(), *transport)
        with ended(server):
            answered = load.ask("first_answer", target=server.target, method=LIST)
            seconds.append(float(answered["at"]) - server.started)
    return reached("start to first ListGpus", "ms", quantile(seconds[1:], 50) * 1e3, 120, 60)
