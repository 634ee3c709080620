"""NVSentinel's events, one by one and in sequence, through a real client and a real socket."""

from __future__ import annotations

from datetime import datetime

import pytest

from device_api_core.resources import ConditionStatus

from .conftest import FIRST, SAMPLES, SECOND, sample


def nanoseconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1e6) * 1000


@pytest.mark.parametrize(
    ("name", "gpu", "expected"),
    [
        ("dbe", FIRST, {"GpuMemWatch": "False", "*": "False"}),
        ("dbe_clear", FIRST, {"GpuMemWatch": "True", "*": "True"}),
        ("power_cap", SECOND, {"GpuPowerWatch": "True", "*": "True"}),
        ("dcgm_lost", FIRST, {"GpuDcgmConnectivityFailure": "Unknown", "*": "Unknown"}),
        ("dcgm_lost", SECOND, {"GpuDcgmConnectivityFailure": "Unknown", "*": "Unknown"}),
        ("xid79", FIRST, {"SysLogsXIDError": "False", "*": "False"}),
        ("xid13", FIRST, {"SysLogsXIDError": "True", "*": "True"}),
        ("xid149", SECOND, {"SysLogsXIDError": "False", "*": "False"}),
        ("reset_done", FIRST, {"SysLogsXIDError": "True", "*": "True"}),
        ("cancel163", FIRST, {"SysLogsXIDError": "True", "*": "True"}),
        ("reboot", FIRST, {"SysLogsGPUFallenOff": "True", "*": "True"}),
        ("reboot", SECOND, {"SysLogsGPUFallenOff": "True", "*": "True"}),
        ("sxid", SECOND, {"SysLogsSXIDError": "False", "*": "False"}),
        ("maintenance", FIRST, {}),
        ("store_only", SECOND, {}),
    ],
)
def test_each_sample_has_its_meaning(start, name, gpu, expected):
    bridge = start()
    bridge.send(sample(name))
    bridge.settle()
    assert bridge.sink.statuses(gpu) == expected or not expected
    assert set(bridge.sink.statuses(gpu)) - {"*"} == set(expected) - {"*"}
    node_wide = name in ("dcgm_lost", "reboot")
    other = SECOND if gpu == FIRST else FIRST
    assert node_wide or set(bridge.sink.statuses(other)) == {"*"}


def test_every_sample_is_covered():
    assert len(SAMPLES) == 13


def test_a_fault_is_told_whole(start):
    bridge = start()
    bridge.send(sample("dbe"))
    bridge.settle()
    condition = bridge.sink.get(FIRST, "GpuMemWatch")
    assert condition.status is ConditionStatus.FALSE
    assert condition.reason == "DcgmFrVolatileDbeDetected"
    assert condition.message == (
        "GpuMemWatch: DCGM_FR_VOLATILE_DBE_DETECTED: "
        "Detected 1 volatile double-bit ECC error(s) in GPU 0."
    )
    assert condition.last_transition_time == nanoseconds("2026-07-14T09:12:01.250+00:00")
    assert bridge.sink.actions[FIRST] == "COMPONENT_RESET"
    roll_up = bridge.sink.get(FIRST, "*")
    assert (roll_up.reason, roll_up.message) == (condition.reason, condition.message)


@pytest.mark.parametrize(
    ("name", "gpu", "check", "reason"),
    [
        ("xid79", FIRST, "SysLogsXIDError", "Xid79"),
        ("xid149", SECOND, "SysLogsXIDError", "Xid149NetirLinkEvt"),
        ("sxid", SECOND, "SysLogsSXIDError", "Sxid24007"),
        ("power_cap", SECOND, "GpuPowerWatch", "DcgmFrClocksEventPower"),
        ("dcgm_lost", FIRST, "GpuDcgmConnectivityFailure", "DcgmConnectivityError"),
        ("reset_done", FIRST, "SysLogsXIDError", "NoFaults"),
    ],
)
def test_reasons(start, name, gpu, check, reason):
    bridge = start()
    bridge.send(sample(name))
    bridge.settle()
    assert bridge.sink.get(gpu, check).reason == reason


def test_a_non_fatal_finding_is_a_message_under_true(start):
    bridge = start()
    bridge.send(sample("power_cap"))
    bridge.settle()
    assert "Clocks are being reduced" in bridge.sink.get(SECOND, "GpuPowerWatch").message
    assert bridge.sink.get(SECOND, "*").status is ConditionStatus.TRUE


def test_strict_makes_a_non_fatal_finding_false(start):
    bridge = start(strict_non_fatal=True)
    bridge.send(sample("power_cap"))
    bridge.settle()
    assert bridge.sink.get(SECOND, "GpuPowerWatch").status is ConditionStatus.FALSE


def test_dcgm_watch_fails_and_clears(start):
    bridge = start()
    bridge.send(sample("dbe"))
    bridge.send(sample("dbe_clear"))
    bridge.settle()
    condition = bridge.sink.get(FIRST, "GpuMemWatch")
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, "NoFaults")
    assert condition.last_transition_time == nanoseconds("2026-07-14T09:12:02.250+00:00")
    assert bridge.sink.actions[FIRST] == ""


def test_the_reset_clears_xids_and_nothing_else(start):
    bridge = start()
    bridge.send(sample("dbe"), sample("xid79"), sample("xid13"))
    bridge.settle()
    assert bridge.sink.actions[FIRST] == "RESTART_BM"
    bridge.send(sample("reset_done"))
    bridge.settle()
    assert bridge.sink.statuses(FIRST) == {
        "GpuMemWatch": "False",
        "SysLogsXIDError": "True",
        "*": "False",
    }
    assert bridge.sink.actions[FIRST] == "COMPONENT_RESET"


def test_the_reset_is_understood_with_another_spelling_of_the_gpu(start):
    bridge = start()
    bridge.send(sample("xid79"))
    only_address = [{"entityType": "PCI", "entityValue": "00000000:1B:00.0"}]
    bridge.send(sample("reset_done", entitiesImpacted=only_address))
    bridge.settle()
    assert bridge.sink.statuses(FIRST)["SysLogsXIDError"] == "True"


def test_a_scoped_cancellation_clears_its_code_only(start):
    bridge = start()
    stamp = "2026-07-14T09:12:00Z"
    bridge.send(
        sample("xid79", errorCode=["162"], generatedTimestamp=stamp),
        sample("xid79", errorCode=["163"], generatedTimestamp=stamp),
    )
    bridge.send(sample("cancel163"))
    bridge.settle()
    condition = bridge.sink.get(FIRST, "SysLogsXIDError")
    assert (condition.status, condition.reason) == (ConditionStatus.FALSE, "Xid162")
    assert "163" not in condition.message.partition(": NVRM")[0]


def test_after_a_reboot_the_check_is_clear_on_every_gpu(start):
    bridge = start()
    entities = [[{"entityType": "PCI", "entityValue": a}] for a in ("0000:1b:00.0", "0008:01:00.0")]
    for each in entities:
        bridge.send(
            sample(
                "xid79",
                checkName="SysLogsGPUFallenOff",
                errorCode=["GPU_FALLEN_OFF_BUS"],
                entitiesImpacted=[*each, {"entityType": "PCI_ID", "entityValue": "10de:26b5"}],
                generatedTimestamp="2026-07-14T09:11:00Z",
            )
        )
    bridge.settle()
    assert {bridge.sink.statuses(g)["SysLogsGPUFallenOff"] for g in (FIRST, SECOND)} == {"False"}
    bridge.send(sample("reboot"))
    bridge.settle()
    assert {bridge.sink.statuses(g)["SysLogsGPUFallenOff"] for g in (FIRST, SECOND)} == {"True"}


def test_loss_of_sight_hides_no_fault(start):
    bridge = start()
    bridge.send(sample("dcgm_lost"), sample("xid79"))
    bridge.settle()
    assert bridge.sink.statuses(FIRST)["*"] == "False"
    assert bridge.sink.statuses(SECOND)["*"] == "Unknown"
    assert bridge.sink.actions[FIRST] == "RESTART_BM"
    assert bridge.sink.actions[SECOND] == "CONTACT_SUPPORT"
    bridge.send(
        sample(
            "dcgm_lost",
            isHealthy=True,
            isFatal=False,
            errorCode=[],
            recommendedAction="NONE",
            generatedTimestamp="2026-07-14T09:13:00Z",
        )
    )
    bridge.settle()
    assert bridge.sink.statuses(FIRST)["*"] == "False"
    assert bridge.sink.statuses(SECOND)["*"] == "True"


def test_a_gpus_own_healthy_event_clears_its_share_of_a_node_wide_fault(start):
    bridge = start()
    bridge.send(sample("xid79", entitiesImpacted=[]))
    bridge.send(sample("reset_done"))
    bridge.settle()
    assert bridge.sink.statuses(FIRST)["SysLogsXIDError"] == "True"
    assert bridge.sink.statuses(SECOND)["SysLogsXIDError"] == "False"


def test_all_samples_at_once_and_again(start):
    bridge = start()
    batch = [sample(name) for name in SAMPLES]
    bridge.send(*batch)
    bridge.settle()
    before = [bridge.sink.statuses(g) for g in (FIRST, SECOND)]
    assert before[0] == {
        "GpuDcgmConnectivityFailure": "Unknown",
        "GpuMemWatch": "True",
        "SysLogsGPUFallenOff": "True",
        "SysLogsXIDError": "True",
        "*": "Unknown",
    }
    assert before[1]["*"] == "False"
    bridge.send(*reversed(batch))
    bridge.settle()
    assert [bridge.sink.statuses(g) for g in (FIRST, SECOND)] == before


def test_maintenance_counts_for_every_gpu_where_it_is_configured(start):
    bridge = start(component_classes=("GPU", "EC2"))
    bridge.send(sample("maintenance"))
    bridge.settle()
    for gpu in (FIRST, SECOND):
        assert bridge.sink.statuses(gpu)["CSPMaintenance"] == "False"
        assert bridge.sink.actions[gpu] == "RESTART_VM"
