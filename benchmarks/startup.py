"""How long it takes from exec to the first answer and to being ready."""

from __future__ import annotations

from benchmarks.processes import LIST, BareServer, DeviceServer, Server, bare_method
from benchmarks.report import Figure, single
from benchmarks.workbench import Workbench

LIMIT = 0.6
STARTS = 10


def run(bench: Workbench) -> list[Figure]:
    """Alternating starts; the first ones are not counted, since they write the bytecode."""
    bench.say("start-up")
    first: list[float] = []
    ready: list[float] = []
    bare_first: list[float] = []
    for _ in range(bench.rounds(STARTS, 1) + 1):
        bare = BareServer(bench.new_folder(), {"ListGpus": 0})
        bare_first.append(_first_answer(bench, bare, bare_method("ListGpus")))
        server = DeviceServer(bench.new_folder())
        first.append(_first_answer(bench, server, LIST))
        server = DeviceServer(bench.new_folder())
        try:
            ready.append(bench.ready_at(server) - server.started)
        finally:
            server.stop()
    return [
        single("start to first ListGpus", "s", first[1:], bare_first[1:], limit=LIMIT),
        single("start to /readyz 200", "s", ready[1:], limit=LIMIT),
    ]


def _first_answer(bench: Workbench, server: Server, method: str) -> float:
    try:
        answered = bench.load.ask("first_answer", target=server.target, method=method)
        return float(answered["at"]) - server.started
    finally:
        server.stop()
