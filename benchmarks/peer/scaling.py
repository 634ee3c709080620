"""How cost grows with GPUs, watchers and writes: the server on h2, the Go peer and the server on
grpcio."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain

from benchmarks.node import ALL_GPUS, GET, GPUS, UPDATE, get, numbered, populate, toggles
from benchmarks.peer.processes import GoLoad, Side, programs
from benchmarks.peer.turns import GRPCIO, Turns, add_medians, turns
from benchmarks.processes import LIST, WATCH
from benchmarks.report import Curve, Measured, quantile
from benchmarks.workbench import Workbench

GPU_COUNTS = (1, 4, 16, 64, 256, ALL_GPUS)
WATCHER_COUNTS = (1, 4, 16, 64, 256, 1_024, 4_096, 10_000)
RATES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)

ROUNDS = 3
CONNECTIONS = 8
CALLS, LISTED_GPUS, FEWEST_CALLS = 400, 8_000, 24
"""Of a round: calls, GPUs in all its lists, and calls in any case."""
MAX_WATCHES = "--max-watches=14000"
"""One process may have three quarters of them."""
GRPCIO_WATCHERS = 8_000
"""Calls and watches together are at most 8,192 there."""
MAX_CONNECTIONS = 1_024
"""Each watcher has a connection of its own up to here."""
WRITES = 16
"""In a round: each of the different writes once, so that each changes something."""
EVENTS = 80_000
"""To the watchers, in all rounds of a point, of which there are two to six."""
OFFER_SECONDS, SLOW_RATE, SLOW_SECONDS = 1.5, 10, 3.0
WATCHING = 10
OPEN_WRITES, DIFFERENT_WRITES = 256, 1_024


def run(bench: Workbench) -> list[Measured]:
    """All curves; none, with a word about it, where there is no Go."""
    built = programs(bench)
    if built is None:
        return []
    curves: list[Measured] = []
    for sweep in (_gpus, _watchers, _writes):
        # Each has new servers, so that none has in memory what another has left there.
        with ExitStack() as stack:
            curves += sweep(turns(bench, built, stack, MAX_WATCHES))
    return curves


def _gpus(among: Turns) -> list[Curve]:
    names = [
        (f"{method}: {what}", "us")
        for method in ("GetGpu", "ListGpus")
        for what in ("CPU per call", "latency p50")
    ]
    *calls, memory = (Curve("GPUs", *name) for name in (*names, ("RSS", "MiB")))
    before = 0
    for gpus in among.points(GPU_COUNTS):
        among.bench.say(f"scaling: {gpus:,} GPUs")
        for server in among.servers.values():
            populate(among.load, server, gpus, before)
        before = gpus
        among.remember(memory, gpus, among.servers)

        def measure(side: Side, gpus: int = gpus) -> list[float]:
            few = among.bench.rounds(CALLS, FEWEST_CALLS)
            lists = min(max(LISTED_GPUS // gpus, FEWEST_CALLS), few)
            return [
                *_calls(among.load, side, GET, get(gpus), few),
                *_calls(among.load, side, LIST, [b""], lists),
            ]

        add_medians(calls, gpus, among.columns(measure, ROUNDS, among.servers))
    return [*calls, memory]


def _calls(load: GoLoad, side: Side, method: str, requests: list[bytes], count: int) -> list[float]:
    """Microseconds: the server's per call with 8 callers, and the median that a lone one waits."""
    arguments = {"target": side.target, "method": method, "requests": requests}
    before = side.cpu_seconds
    load.ask("calls", count=count, connections=CONNECTIONS, **arguments)
    cpu = (side.cpu_seconds - before) / count
    alone = load.ask("calls", count=max(count // 4, FEWEST_CALLS), connections=1, **arguments)
    return [cpu * 1e6, float(alone["p50"]) * 1e6]


def _watchers(among: Turns) -> list[Curve]:
    cpu = Curve("watchers", "CPU per event", "us")
    times = {q: Curve("watchers", f"write to the last watcher: p{q}", "ms") for q in (50, 99)}
    memory = Curve("watchers", "RSS", "MiB")
    for server in among.servers.values():
        populate(among.load, server)
    for watchers in among.points(WATCHER_COUNTS):
        among.bench.say(f"scaling: {watchers:,} watchers")
        names = [n for n in among.servers if n != GRPCIO or watchers <= GRPCIO_WATCHERS]
        for name in names:
            _watch(among.load, among.servers[name], watchers)

        def measure(side: Side, each: int = watchers) -> list[float]:
            return _propagate(among.load, side, each)

        rounds = min(max(EVENTS // (WRITES * watchers), 2), 2 * ROUNDS)
        found = among.columns(measure, rounds, names)
        add_medians([cpu], watchers, found)
        for name, (_, *columns) in found.items():
            for percent, curve in times.items():
                curve.add(name, watchers, quantile(list(chain(*columns)), percent))
        among.remember(memory, watchers, names)
        for name in names:
            among.load.ask("unwatch", target=among.servers[name].target)
    return [cpu, *times.values(), memory]


def _propagate(load: GoLoad, side: Side, each: int) -> list[float]:
    """The server's microseconds per event, and the milliseconds of every write until the last
    watcher had it."""
    before = side.cpu_seconds
    took = load.ask("propagate", count=WRITES, each=each, **_to(side, toggles()))
    cpu = (side.cpu_seconds - before) / (WRITES * each) * 1e6
    return [cpu, *(seconds * 1e3 for seconds in took["durations"])]


def _writes(among: Turns) -> list[Curve]:
    units = {"achieved": "/s", "p50": "ms", "p99": "ms", "CPU": "%"}
    curves = [Curve("writes offered a second", name, unit) for name, unit in units.items()]
    lost = Curve("writes offered a second", "events lost", "")
    for server in among.servers.values():
        populate(among.load, server)
        _watch(among.load, server, WATCHING, recent=2 * OPEN_WRITES)
    requests = numbered(DIFFERENT_WRITES)
    for rate in among.points(RATES):
        among.bench.say(f"scaling: {rate:,} writes/s")
        seconds = SLOW_SECONDS if rate <= SLOW_RATE else OFFER_SECONDS

        def measure(side: Side, rate: int = rate, seconds: float = seconds) -> list[float]:
            return _offer(among.load, side, requests, rate, seconds / among.bench.rounds(1, 4))

        found = among.columns(measure, 1, among.servers)
        add_medians(curves, rate, found)
        for name, columns in found.items():
            lost.add(name, rate, sum(columns[-1]))
    return [*curves, lost]


def _offer(
    load: GoLoad, side: Side, requests: list[bytes], rate: int, seconds: float
) -> list[float]:
    """Writes a second that were answered, milliseconds until they were, per cent of a CPU, and the
    events that watchers have missed or were left without."""
    before = side.cpu_seconds
    took = load.ask(
        "offer",
        count=max(1, int(rate * seconds)),
        per_second=rate,
        seconds=seconds,
        open=OPEN_WRITES,
        connections=CONNECTIONS,
        each=WATCHING,
        read_method=GET,
        reads=get(),
        **_to(side, requests),
    )
    cpu = (side.cpu_seconds - before) / took["seconds"] * 1e2
    times = [took[p] * 1e3 for p in ("p50", "p99")]
    return [took["written"] / took["seconds"], *times, cpu, took["lost"] + took["stale"]]


def _watch(load: GoLoad, side: Side, count: int, recent: int = 0) -> None:
    connections = min(count, MAX_CONNECTIONS)
    arguments = {"target": side.target, "method": WATCH, "initial": GPUS, "recent": recent}
    load.ask("watch", count=count, connections=connections, **arguments)


def _to(side: Side, requests: list[bytes]) -> dict[str, object]:
    return {
        "target": side.target,
        "via": side.provider_target,
        "method": UPDATE,
        "requests": requests,
    }
