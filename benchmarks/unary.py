"""What a unary call costs the server, and how long the caller waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.node import GET, UPDATE, get, rewordings, toggles
from benchmarks.processes import LIST, BareServer, DeviceServer, Server, bare_method
from benchmarks.report import Figure, paired
from benchmarks.workbench import Workbench

LIMIT = 1.15
CONNECTIONS = 8
# Multiples of the number of different requests, so that each changes what the last one left.
CALLS_FOR_CPU = 2_000
CALLS_FOR_LATENCY = 512
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of call; ``writes`` go to the providers' socket."""

    title: str
    path: str
    requests: Sequence[bytes]
    writes: bool = False

    @property
    def method(self) -> str:
        return self.path.rpartition("/")[2]


def run(bench: Workbench) -> list[Figure]:
    """CPU per call with 8 callers at a time, latency with one."""
    server, bare = bench.pair()
    cases = (
        Case("ListGpus(8)", LIST, [b""]),
        Case("GetGpu", GET, get()),
        Case("UpdateGpuCondition, status", UPDATE, toggles(), writes=True),
        Case("UpdateGpuCondition, reason", UPDATE, rewordings(), writes=True),
    )
    figures: list[Figure] = []
    for case in cases:
        figures += _measure(bench, case, server, bare)
    return figures


def _measure(bench: Workbench, case: Case, server: DeviceServer, bare: BareServer) -> list[Figure]:
    bench.say(f"{case.title}: CPU and latency")
    seen: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in ("CPU", "p50", "p99")
    }
    target = server.provider_target if case.writes else server.target
    sides: list[tuple[Server, str, str]] = [
        (server, target, case.path),
        (bare, bare.target, bare_method(case.method)),
    ]
    for number in range(bench.rounds(ROUNDS) + 1):
        for process, address, method in sides if number % 2 else reversed(sides):
            cpu, p50, p99 = _round(bench, case, process, address, method)
            if number == 0:
                continue  # to warm up
            side = 0 if process is server else 1
            for name, value in (("CPU", cpu), ("p50", p50), ("p99", p99)):
                seen[name][side].append(value * 1e6)
    return [
        paired(f"{case.title}: CPU per call", "us", *seen["CPU"], limit=LIMIT),
        paired(f"{case.title}: latency p50", "us", *seen["p50"]),
        paired(f"{case.title}: latency p99", "us", *seen["p99"]),
    ]


def _round(
    bench: Workbench, case: Case, process: Server, target: str, method: str
) -> tuple[float, float, float]:
    count = bench.rounds(CALLS_FOR_CPU, 208)
    arguments = {"target": target, "method": method, "requests": list(case.requests)}
    before = process.cpu_seconds
    bench.load.ask("calls", count=count, connections=CONNECTIONS, **arguments)
    cpu = (process.cpu_seconds - before) / count
    alone = bench.load.ask(
        "calls", count=bench.rounds(CALLS_FOR_LATENCY, 112), connections=1, **arguments
    )
    return cpu, alone["p50"], alone["p99"]
