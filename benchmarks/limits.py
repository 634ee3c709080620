"""What one client can do to the others, and what all of them together to the server's memory."""

from __future__ import annotations

import time

from benchmarks.node import GET, UPDATE, get, populate, toggles
from benchmarks.processes import LIST, WATCH, DeviceServer, LoadClient, stopping
from benchmarks.report import Figure, single
from benchmarks.workbench import Workbench
from device_api_core._proto import gpu_pb2, provider_pb2

ROUNDS = 5
CALLS = 300
GREEDY_CALLS = 100
FAIR_RATIO = 3.0

MAX_MIB = 640.0
"""docs/security.md adds it up."""
GPUS, CONDITIONS, WATCHES, EVENTS = 1_024, 64, 2_000, 1_000
UNREAD_LISTS = 40
SETTLE_SECONDS = 2.0
STATUS = "/nvidia.device.v1alpha1.ProviderService/UpdateGpuStatus"
REGISTER = "/nvidia.device.v1alpha1.ProviderService/RegisterGpu"


def run_fairness(bench: Workbench) -> list[Figure]:
    """The p99 of one client beside a greedy one, as a multiple of its p99 alone."""
    figures = []
    greedy = LoadClient()
    bench.stack.enter_context(stopping(greedy))
    server = bench.device_server("--grpc-address", "127.0.0.1:0")
    populate(bench.load, server)
    for title, theirs, ours, method, requests in (
        ("write beside a reader", server.target, server.provider_target, UPDATE, toggles()),
        ("read beside a provider", server.provider_target, server.target, GET, get()),
        ("read over TCP beside another", server.tcp_target, server.tcp_target, GET, get()),
    ):
        bench.say(f"p99 of a {title}")
        ratios = []
        for _ in range(bench.rounds(ROUNDS, 1)):
            mine = {"target": ours, "method": method, "requests": requests, "count": CALLS}
            alone = bench.load.ask("calls", connections=1, **mine)["p99"]
            greedy.tell("flood", target=theirs, method=LIST, calls=GREEDY_CALLS, seconds=2.0)
            time.sleep(0.5)
            beside = bench.load.ask("calls", connections=1, **mine)["p99"]
            greedy.result()
            ratios.append(beside / alone)
        figures.append(
            single(f"{title} of {GREEDY_CALLS} calls: p99", "times", ratios, limit=FAIR_RATIO)
        )
    return figures


def run_memory(bench: Workbench) -> list[Figure]:
    """Resident memory with every limit reached at once."""
    server = bench.device_server()
    gpus, watches = bench.rounds(GPUS, 64), bench.rounds(WATCHES, 50)
    bench.say(f"{gpus} GPUs with {CONDITIONS} conditions, {watches} watches that read nothing")
    _fill(bench, server, gpus)
    full = server.rss_mib
    bench.load.ask(
        "stall", target=server.target, method=WATCH, count=watches, connections=watches, use="w"
    )
    time.sleep(SETTLE_SECONDS)
    watched = server.rss_mib
    bench.load.tell(
        "stall", target=server.target, method=LIST, count=UNREAD_LISTS, connections=1, use="l"
    )
    time.sleep(SETTLE_SECONDS)
    return [
        single(f"RSS with {gpus:,} GPUs of {CONDITIONS} conditions", "MiB", [full]),
        single(f"and {watches:,} watches that read nothing", "MiB", [watched]),
        single("and unread lists", "MiB", [server.rss_mib], limit=MAX_MIB),
    ]


def _fill(bench: Workbench, server: DeviceServer, gpus: int) -> None:
    names = [f"gpu-{number:08x}" for number in range(gpus)]
    for method, requests in (
        (REGISTER, [_register(name) for name in names]),
        (STATUS, [_status(name, "True") for name in names]),
    ):
        _send(bench, server, method, requests)


def _rewrite(bench: Workbench, server: DeviceServer, gpus: int, count: int) -> None:
    names = [f"gpu-{number:08x}" for number in range(gpus)]
    _send(bench, server, STATUS, [_status(name, "Unknown") for name in names[:count]])


def _send(bench: Workbench, server: DeviceServer, method: str, requests: list[bytes]) -> None:
    target = server.provider_target
    # In parts, since a command is one line.
    for first in range(0, len(requests), 64):
        part = requests[first : first + 64]
        bench.load.ask(
            "calls", target=target, method=method, requests=part, count=len(part), connections=4
        )


def _register(name: str) -> bytes:
    return provider_pb2.RegisterGpuRequest(name=name, provider_id="p").SerializeToString()


def _status(name: str, status: str) -> bytes:
    conditions = [gpu_pb2.Condition(type=f"T{n}", status=status) for n in range(CONDITIONS)]
    return provider_pb2.UpdateGpuStatusRequest(
        name=name, provider_id="p", status=gpu_pb2.GpuStatus(conditions=conditions)
    ).SerializeToString()
