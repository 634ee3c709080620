"""Providers do not import one another, so each ships what it needs of NVIDIA's XID catalog."""

from __future__ import annotations

import csv
from importlib import resources


def rows(package):
    with (resources.files(package) / "xids.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


def test_nvml_and_dcgm_say_the_same_of_every_xid():
    columns = ("meaning", "effect", "action", "source")
    nvml = [(row["code"], *(row[c] for c in columns)) for row in rows("device_api_nvml")]
    dcgm = [(row["xid"], *(row[c] for c in columns)) for row in rows("device_api_dcgm")]
    assert dcgm == nvml
    assert len(nvml) > 100
