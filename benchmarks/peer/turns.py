"""Several servers that are measured in one run and in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.peer.processes import UNLIMITED, GoLoad, Peer, Side, ended
from benchmarks.processes import LIST
from benchmarks.report import PEER, Curve
from benchmarks.workbench import Workbench

H2, GRPCIO = "h2", "grpcio"
QUICK_POINTS = 2
_SETTLE_SECONDS = 2.5
"""The server gives a client less of its time for up to two seconds after another has called."""

Columns = dict[str, list[tuple[float, ...]]]
"""By server, and of each quantity, what the rounds have found."""


@dataclass(frozen=True, slots=True)
class Turns:
    """The servers by name, with the same GPUs, and who calls them."""

    bench: Workbench
    load: GoLoad
    servers: dict[str, Side]

    def points(self, counts: Sequence[int]) -> Sequence[int]:
        """Those to measure at."""
        return counts[: self.bench.rounds(len(counts), QUICK_POINTS)]

    def columns(
        self, measure: Callable[[Side], list[float]], rounds: int, names: Iterable[str]
    ) -> Columns:
        """What ``measure`` finds of each server, in rounds of changing order. The first warms
        up."""
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for number in range(self.bench.rounds(rounds, 1) + 1):
            for name in found if number % 2 else reversed(found):
                values = measure(self.servers[name])
                if number:
                    found[name].append(values)
        return {name: list(zip(*rows, strict=True)) for name, rows in found.items()}

    def remember(self, curve: Curve, at: int, names: Iterable[str]) -> None:
        """Add the resident memory, a while after the last change."""
        time.sleep(0 if self.bench.quick else _SETTLE_SECONDS)
        for name in names:
            curve.add(name, at, self.servers[name].rss_mib)


def add_medians(curves: Sequence[Curve], at: int, found: Columns) -> None:
    """A point for each curve from the quantity at its place."""
    for name, columns in found.items():
        for curve, column in zip(curves, columns, strict=False):
            curve.add(name, at, median(column))


def turns(bench: Workbench, built: Path, stack: ExitStack, *flags: str) -> Turns:
    """New servers without GPUs, which end with ``stack``. ``flags`` are for those that have any."""
    load = GoLoad(built)
    stack.enter_context(ended(load))
    servers: dict[str, Side] = {
        H2: bench.device_server("--transport", H2, *UNLIMITED, *flags),
        PEER: Peer(built, bench.new_folder()),
        GRPCIO: bench.device_server("--transport", GRPCIO, *UNLIMITED, *flags),
    }
    for server in servers.values():
        stack.enter_context(ended(server))
        load.ask("first_answer", target=server.target, method=LIST)
    return Turns(bench, load, servers)
