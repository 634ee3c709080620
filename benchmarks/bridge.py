"""How long NVSentinel waits for the bridge, at a thousand events a second."""

from __future__ import annotations

import json

from benchmarks.node import GPUS, populate, uuid
from benchmarks.report import Figure, single
from benchmarks.workbench import Workbench

EVENTS_PER_SECOND = 1_000
BATCH = 50
CALLS = 1_000
LIMIT_MS = 10.0
CHECKS = ("GpuMemWatch", "GpuNvlinkWatch", "GpuPcieWatch", "GpuThermalWatch", "SysLogsXIDError")

_METHOD = "/datamodels.PlatformConnector/HealthEventOccurredV1"
_NODE = "benchmark"


def run(bench: Workbench) -> list[Figure]:
    """Batches at a steady pace, each of which changes the health of every GPU, with a journal."""
    try:
        batches = _batches()
    except ImportError:
        bench.say("bridge: skipped, for device-api-nvsentinel-bridge is not installed")
        return []
    return [figure for home in ("thread", "process") for figure in _measure(bench, home, batches)]


def _measure(bench: Workbench, home: str, batches: list[bytes]) -> list[Figure]:
    bench.say(f"event batches to the bridge in a {home}")
    folder = bench.new_folder()
    folder.mkdir()
    socket = folder / "bridge.sock"
    config = folder / "server.toml"
    config.write_text(
        f"[providers.nvsentinel]\nsocket = {json.dumps(str(socket))}\nnode_name = '{_NODE}'\n"
    )
    server = bench.device_server(
        *("--config", str(config), "--state-dir", str(folder / "state")),
        *("--provider", "nvsentinel"),
        *(("--isolate", "nvsentinel") if home == "process" else ()),
    )
    populate(bench.load, server)
    calls = bench.rounds(CALLS, 40)
    arguments = {
        "target": f"unix:{socket}",
        "method": _METHOD,
        "requests": batches,
        "per_second": EVENTS_PER_SECOND / BATCH,
    }
    bench.load.ask("paced", count=len(batches) * 10, **arguments)  # to warm up
    before = server.cpu_seconds
    took = bench.load.ask("paced", count=calls, **arguments)
    cpu = (server.cpu_seconds - before) / (calls * BATCH)
    title = f"{BATCH} events to the bridge, {home}"
    figures = [
        single(f"{title}: p50", "ms", [took["p50"] * 1e3]),
        single(f"{title}: p99", "ms", [took["p99"] * 1e3], limit=LIMIT_MS),
    ]
    if home == "thread":
        figures.append(single("CPU per event of the bridge", "us", [cpu * 1e6]))
    return figures


def _batches() -> list[bytes]:
    """One that makes every check of every GPU fail, and one that makes it pass. Without times, so
    that each is newer than the last however often they are sent."""
    from device_api_nvsentinel_bridge._proto import health_event_pb2 as pb

    made = []
    for healthy in (False, True):
        batch = pb.HealthEvents(version=1)
        for number in range(BATCH):
            event = batch.events.add(
                version=1,
                agent="gpu-health-monitor",
                componentClass="GPU",
                nodeName=_NODE,
                checkName=CHECKS[number // GPUS % len(CHECKS)],
                isHealthy=healthy,
                isFatal=not healthy,
                message="" if healthy else f"what was found, number {number}",
                recommendedAction=pb.NONE if healthy else pb.COMPONENT_RESET,
            )
            event.entitiesImpacted.add(entityType="GPU_UUID", entityValue=uuid(number % GPUS))
        made.append(batch.SerializeToString())
    return made
