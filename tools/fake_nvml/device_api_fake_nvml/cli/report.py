"""What `fake-nvml status` shows."""

from __future__ import annotations

import json
from typing import Any

from device_api_fake_nvml.calls import Fault
from device_api_fake_nvml.identity import Gpu
from device_api_fake_nvml.node import FakeNode
from device_api_fake_nvml.signals import Signals

# Signals that are 0 on a healthy GPU: what else they say is worth a word.
_TROUBLE = (
    "ecc-volatile-uncorrected", "ecc-volatile-corrected", "sram-threshold-exceeded",
    "retired-pages-pending", "remap-pending", "remap-failure", "repair-pending", "pcie-replays",
    "nvlink-replay", "nvlink-recovery", "nvlink-crc-flit", "nvlink-crc-data", "nvlink-ecc-data",
    "nvlink-recoveries-failed", "recovery-action",
)  # fmt: skip
_SLOWDOWNS = 0xE8  # the clock reasons that mean trouble


def as_json(node: FakeNode) -> str:
    identity = node.describe()
    document = {
        "root": str(node.root),
        "library": str(node.library) if node.library.exists() else None,
        "model": identity.model.decode(),
        "seed": identity.seed.decode(),
        "driverVersion": identity.driver_version.decode(),
        "gpus": [_gpu_document(node, gpu) for gpu in node.gpus()],
        "faults": [_fault_document(fault) for fault in node.calls.faults()],
    }
    return json.dumps(document, indent=2)


def _gpu_document(node: FakeNode, gpu: Gpu) -> dict[str, Any]:
    return {
        "number": gpu.number,
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "serial": gpu.serial,
        "busId": gpu.bus_id,
        "lost": gpu.lost or None,
        "signals": _trouble(node.signals, gpu.number),
        "migDevices": [vars(device) for device in node.mig.devices(gpu.number)],
    }


def _fault_document(fault: Fault) -> dict[str, Any]:
    return {
        "kind": fault.kind.name.lower(),
        "function": fault.function,
        "gpu": fault.gpu,
        "error": fault.error or None,
        "times": fault.times,
        "seconds": fault.seconds,
        "millis": fault.millis or None,
    }


def as_table(node: FakeNode) -> str:
    rows = [("GPU", "INDEX", "UUID", "BUS ID", "STATE")]
    for gpu in node.gpus():
        index = "-" if gpu.index is None else str(gpu.index)
        rows.append((str(gpu.number), index, gpu.uuid, gpu.bus_id, _state(node, gpu)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([_heading(node), "", *lines, *_fault_lines(node)])


def _heading(node: FakeNode) -> str:
    identity = node.describe()
    library = "" if node.library.exists() else ", library uninstalled"
    return f"{identity.model.decode()}, driver {identity.driver_version.decode()}{library}"


def _fault_lines(node: FakeNode) -> list[str]:
    faults = node.calls.faults()
    where = ["every GPU" if fault.gpu is None else f"GPU {fault.gpu}" for fault in faults]
    lines = [f"{place}: {fault}" for place, fault in zip(where, faults, strict=True)]
    return ["", *lines] if lines else []


def _state(node: FakeNode, gpu: Gpu) -> str:
    words = []
    if not gpu.enumerated:
        words.append("removed")
    if gpu.lost:
        words.append(f"lost ({gpu.lost})")
    words += [f"{name}={value}" for name, value in _trouble(node.signals, gpu.number).items()]
    devices = node.mig.devices(gpu.number)
    if devices:
        words.append(f"MIG {', '.join(device.profile for device in devices)}")
    return " ".join(words) or "healthy"


def _trouble(signals: Signals, gpu: int) -> dict[str, int]:
    found = {name: sum(value or 0 for value in signals.row(gpu, name)) for name in _TROUBLE}
    found["links-down"] = sum(state == 0 for state in signals.row(gpu, "nvlink-state"))
    found["slowdown-reasons"] = (signals.get(gpu, "clock-reasons") or 0) & _SLOWDOWNS
    return {name: value for name, value in found.items() if value}
