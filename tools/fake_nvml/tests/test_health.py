from __future__ import annotations

from ctypes import byref

import pytest
from device_api_fake_nvml import Bank, FakeNode, Location, RecoveryAction
from device_api_fake_nvml.errors import Refused, SignalNotFound
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def handle(nvml):
    return nvml.nvmlDeviceGetHandleByIndex(0)


def field(nvml, handle, *fields):
    values = nvml.nvmlDeviceGetFieldValues(handle, list(fields))
    members = {1: "uiVal", 3: "ullVal", 5: "siVal"}
    return [
        None if value.nvmlReturn else getattr(value.value, members[value.valueType])
        for value in values
    ]


def test_ecc_errors_count_by_place(node, nvml, handle):
    node.health.count_ecc_errors(0, 3, corrected=True, location=Location.L2)
    node.health.count_ecc_errors(0, 1)
    assert nvml.nvmlDeviceGetTotalEccErrors(handle, 0, 0) == 3
    assert nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 1) == 1
    assert nvml.nvmlDeviceGetMemoryErrorCounter(handle, 0, 1, 1) == 3
    assert nvml.nvmlDeviceGetMemoryErrorCounter(handle, 1, 0, 2) == 1
    assert field(nvml, handle, 3, 4, 9, 12) == [3, 1, 3, 1]


def test_counters_are_not_supported_while_ecc_is_off(node, nvml, handle, error_of):
    node.health.set_ecc_mode(0, on=False)
    assert nvml.nvmlDeviceGetEccMode(handle) == [0, 0]
    assert error_of(nvml.nvmlDeviceGetTotalEccErrors, handle, 0, 0) == 3
    assert field(nvml, handle, 3, 1) == [None, 0]


def test_sram_errors(node, nvml, handle):
    node.health.count_ecc_errors(0, 2, location=Location.SRAM)
    node.health.exceed_sram_threshold(0)
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    status.version = nvml.nvmlEccSramErrorStatus_v1
    nvml.nvmlDeviceGetSramEccErrorStatus(handle, byref(status))
    assert (status.aggregateUncParity, status.volatileUncParity) == (2, 2)
    assert status.bThresholdExceeded == 1


def test_row_remap(node, nvml, handle):
    assert nvml.nvmlDeviceGetRemappedRows(handle) == (0, 0, 0, 0)
    node.health.remap_row(0)
    assert nvml.nvmlDeviceGetRemappedRows(handle) == (0, 1, 1, 0)
    assert field(nvml, handle, 142, 143, 144, 145) == [0, 1, 1, 0]
    node.health.fail_remap(0)
    assert nvml.nvmlDeviceGetRemappedRows(handle)[3] == 1


@given(st.lists(st.sampled_from([bank for bank in Bank if bank is not Bank.NONE]), max_size=15))
@settings(max_examples=20, deadline=None)
def test_number_of_banks_is_constant(tmp_path_factory, banks):
    with FakeNode.create(tmp_path_factory.mktemp("node") / "n", gpus=1) as node:
        total = sum(node.signals.row(0, "remap-banks"))
        for bank in banks:
            if node.signals.get(0, "remap-banks", bank):
                node.health.remap_row(0, bank=bank)
        row = node.signals.row(0, "remap-banks")
        assert sum(row) == total
        assert min(row) >= 0


def test_retired_pages(tmp_path, attach):
    with FakeNode.create(tmp_path / "t4", model="t4") as node:
        nvml = attach(node)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        assert nvml.nvmlDeviceGetRetiredPages(handle, 1) == []
        node.health.retire_pages(0, 2)
        assert len(set(nvml.nvmlDeviceGetRetiredPages(handle, 1))) == 2
        assert nvml.nvmlDeviceGetRetiredPagesPendingStatus(handle) == 1
        with pytest.raises(Refused):
            node.health.remap_row(0)


def test_repair_status(tmp_path, attach):
    with FakeNode.create(tmp_path / "b200", model="b200") as node:
        nvml = attach(node)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        node.health.need_repair(0, tpc=True)
        status = nvml.c_nvmlRepairStatus_t()
        status.version = nvml.nvmlRepairStatus_v1
        assert nvml.nvmlLib.nvmlDeviceGetRepairStatus(handle, byref(status)) == 0
        assert (status.bChannelRepairPending, status.bTpcRepairPending) == (0, 1)


def test_heat_moves_margin_and_clocks(node, nvml, handle):
    node.health.set_temperature(0, 80)
    assert nvml.nvmlDeviceGetTemperature(handle, 0) == 80
    assert nvml.nvmlDeviceGetTemperatureV(handle, 0) == 80
    assert nvml.nvmlDeviceGetMarginTemperature(handle) == 7
    assert nvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & 0x48 == 0
    node.health.set_temperature(0, 89)
    assert nvml.nvmlDeviceGetMarginTemperature(handle) == -2
    assert nvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & 0x48 == 0x48
    assert nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & 0x48 == 0x48
    node.health.set_temperature(0, 50)
    assert nvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & 0x48 == 0


def test_thresholds(nvml, handle, error_of):
    assert nvml.nvmlDeviceGetTemperatureThreshold(handle, 0) == 92
    assert error_of(nvml.nvmlDeviceGetTemperatureThreshold, handle, 5) == 3
    assert field(nvml, handle, 193, 194, 195, 196) == [-8, -2, 0, 0]


def test_nvlink(node, nvml, handle, error_of):
    node.health.set_nvlink(0, 4, up=False)
    node.health.count_nvlink_errors(0, 4, "crc-flit", 7)
    assert [nvml.nvmlDeviceGetNvLinkState(handle, link) for link in (3, 4)] == [1, 0]
    assert nvml.nvmlDeviceGetNvLinkErrorCounter(handle, 4, 2) == 7
    assert nvml.nvmlDeviceGetNvLinkVersion(handle, 0) == 4
    assert error_of(nvml.nvmlDeviceGetNvLinkState, handle, 18) == 2
    assert field(nvml, handle, 38, 91, (163, 4), (165, 4)) == [7, 18, 7, 0]
    assert field(nvml, handle, (214, 0)) == [None]


def test_nvlink_5_counts_in_fields(tmp_path, attach, error_of):
    with FakeNode.create(tmp_path / "gb200", model="gb200") as node:
        nvml = attach(node)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        node.health.count_nvlink_errors(0, 2, "recoveries-failed", 3)
        assert field(nvml, handle, (214, 2), (214, 1), (206, 0)) == [3, 0, 0]
        assert error_of(nvml.nvmlDeviceGetNvLinkErrorCounter, handle, 2, 0) == 3


@pytest.mark.parametrize("struct", ["c_nvmlGpuFabricInfo_v2_t", "c_nvmlGpuFabricInfo_v3_t"])
def test_fabric(tmp_path, attach, struct):
    with FakeNode.create(tmp_path / "gb200", model="gb200") as node:
        nvml = attach(node)
        info = getattr(nvml, struct)()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
        nvml.nvmlDeviceGetGpuFabricInfoV(handles[0], byref(info))
        assert (info.state, info.status, info.cliqueId, info.healthMask) == (3, 0, 32766, 0x1AA)
        assert any(bytes(info.clusterUuid))


@pytest.mark.parametrize("action", RecoveryAction)
def test_recovery_action(node, nvml, handle, action):
    node.health.ask_for(0, action)
    assert field(nvml, handle, 230) == [action]


def test_power_pcie_and_the_rest(node, nvml, handle):
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 70000
    assert nvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 700000
    assert nvml.nvmlDeviceGetCurrPcieLinkWidth(handle) == 16
    assert nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle) == 5
    node.signals.increase(0, "pcie-replays", 4)
    assert nvml.nvmlDeviceGetPcieReplayCounter(handle) == 4
    node.signals.set(0, "violation-time", 5_000, element=1)
    assert nvml.nvmlDeviceGetViolationStatus(handle, 1).violationTime == 5_000
    assert field(nvml, handle, 75) == [5_000]


def test_any_signal_can_be_unsupported(node, nvml, handle, error_of):
    node.signals.set(0, "recovery-action", None)
    node.signals.set(0, "temperature", None)
    assert field(nvml, handle, 230) == [None]
    assert error_of(nvml.nvmlDeviceGetTemperature, handle, 0) == 3
    with pytest.raises(Refused, match="recovery-action"):
        node.health.ask_for(0, RecoveryAction.GPU_RESET)


def test_unknown_signals_are_refused(node):
    with pytest.raises(SignalNotFound, match="colour"):
        node.signals.get(0, "colour")
    with pytest.raises(SignalNotFound, match="0 to 1"):
        node.signals.set(0, "mig-mode", 1, element=2)


def test_unknown_field_is_not_supported_by_itself(nvml, handle):
    assert field(nvml, handle, 9999, 230) == [None, 0]
