"""``device-api dcgm``."""

from __future__ import annotations

import csv
import json

from click.testing import CliRunner
from device_api_dcgm.commands import dcgm
from device_api_dcgm.series import EXPECTED, canonical


def invoke(*arguments):
    return CliRunner().invoke(dcgm, arguments)


def test_probe_shows_what_a_provider_would_write(bench, sample):
    exporter = bench.exporter(sample)
    result = invoke("probe", "--url", exporter.url)
    assert result.exit_code == 0, result.output
    assert (
        "absent series   DCGM_FI_DEV_GPU_RECOVERY_ACTION, DCGM_FI_DEV_ECC_SBE_VOL" in result.output
    )
    assert "GPU 4  gpu-03e97ab8-d4c1-4b56-8e2f-6f1d90a8b405  0000:a0:00.0" in result.output
    assert "recommended action: RESTART_BM" in result.output
    assert "FallenOffBus" in result.output


def test_probe_as_json(bench, scene):
    exporter = bench.exporter(scene.watch(1, "SM", 10, "X").drop(health_watch="PMU").bytes)
    found = json.loads(invoke("probe", "--url", exporter.url, "-o", "json").output)
    assert [gpu["index"] for gpu in found["gpus"]] == list(range(8))
    assert found["absent_series"] == []
    assert found["gpus"][1]["watches"]["SM"] == {"value": 10, "code": "DCGM_FR_X"}
    assert found["gpus"][1]["missing_watches"] == ["PMU"]
    assert {"type": "DCGMSmHealthy", "status": "True", "reason": "X"}.items() <= next(
        c for c in found["gpus"][1]["conditions"] if c["type"] == "DCGMSmHealthy"
    ).items()


def test_probe_says_why_not(bench):
    exporter = bench.exporter()
    exporter.close()
    result = invoke("probe", "--url", exporter.url + "?token=s3cret")
    assert result.exit_code == 1
    assert "Connection refused" in result.output
    assert "s3cret" not in result.output
    assert "must be an http or https URL" in invoke("probe", "--url", "x").output


def test_mapping_is_the_effective_table():
    rows = json.loads(invoke("mapping", "-o", "json", "--fatal-xids", "31, 63").output)
    by_code = {(row["kind"], row["code"]): row for row in rows}
    assert by_code["watch", "DCGM_FR_FALLEN_OFF_BUS"]["action"] == "RESTART_BM"
    assert by_code["watch", "any other"]["action"] == "CONTACT_SUPPORT"
    assert by_code["xid", "79"]["effect"] == "fatal"
    assert by_code["xid", "31"] == {
        "kind": "xid",
        "code": "31",
        "condition": "DCGMHealth",
        "reason": "Xid31",
        "effect": "fatal",
        "action": "CONTACT_SUPPORT",
        "clears": "reset",
        "source": "settings",
    }
    assert all(row["source"] for row in rows)
    assert invoke("mapping").output.startswith("KIND ")
    assert invoke("mapping", "--fatal-xids", "x").exit_code == 2
    assert "XID 3 is listed" in invoke("mapping", "--fatal-xids=3", "--ignored-xids=3").output


def test_mapping_follows_the_settings():
    rows = json.loads(invoke("mapping", "-o", "json", "--row-remap-pending", "fault").output)
    pending = next(r for r in rows if r["reason"] == "RowRemapPending")
    assert (pending["effect"], pending["action"]) == ("fatal", "COMPONENT_RESET")


def test_the_counters_file_has_every_series_that_counts():
    lines = [x for x in invoke("counters").output.splitlines() if x and not x.startswith("#")]
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    assert {len(row) for row in rows} == {3}
    assert {row[1] for row in rows} == {"gauge", "counter", "label"}
    assert set(EXPECTED) <= {canonical(row[0]) for row in rows}
    assert len({row[0] for row in rows}) == len(rows)
