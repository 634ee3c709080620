"""A client that is not ours, on the same simulated node."""

from __future__ import annotations

import os
import subprocess
import sys

CLIENT = """
from nvitop import Device
for device in Device.all():
    print(device.uuid(), device.name(), device.temperature(), device.memory_total(), sep=";")
"""


def test_nvitop_sees_the_same_gpus_as_the_provider(bench):
    node = bench.node(gpus=3)
    sink = bench.ready(node).sink
    node.health.set_temperature(1, 61)
    environment = {**node.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CLIENT]
    shown = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=30
    )
    rows = [line.split(";") for line in shown.stdout.splitlines()]
    assert [row[0] for row in rows] == [gpu.uuid for gpu in node.gpus()]
    assert {row[0].lower() for row in rows} == set(sink.specs)
    assert {row[1] for row in rows} == {spec.product_name for spec in sink.specs.values()}
    assert [row[2] for row in rows] == ["34", "61", "34"]
    assert {int(row[3]) for row in rows} == {spec.memory_bytes for spec in sink.specs.values()}
