from __future__ import annotations

import pytest
from device_api_fake_nvml.errors import Refused


@pytest.fixture
def mig(node):
    node.mig.set_mode(0, on=True)
    return node.mig.create(0, "1g.10gb")


def test_mode_is_off_when_new(nvml):
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 0


def test_mode_can_wait_for_a_reset(node, nvml):
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    node.mig.set_mode(0, on=True, pending_only=True)
    assert nvml.nvmlDeviceGetMigMode(handle) == [0, 1]
    node.reset(0)
    assert nvml.nvmlDeviceGetMigMode(handle) == [1, 1]


def test_mig_device_answers(node, nvml, mig, error_of):
    parent = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(parent) == 7
    handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 0)
    assert error_of(nvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, 1) == 6
    assert nvml.nvmlDeviceIsMigDeviceHandle(handle).value == 1
    assert nvml.nvmlDeviceGetUUID(handle) == mig.uuid
    assert nvml.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3 MIG 1g.10gb (SIMULATED)"
    assert nvml.nvmlDeviceGetGpuInstanceId(handle) == mig.gpu_instance == 7
    assert nvml.nvmlDeviceGetComputeInstanceId(handle) == 0
    assert nvml.nvmlDeviceGetAttributes(handle).memorySizeMB == 10240
    above = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    assert nvml.nvmlDeviceGetIndex(above) == 0
    found = nvml.nvmlDeviceGetHandleByUUID(mig.uuid)
    assert nvml.nvmlDeviceGetUUID(found) == mig.uuid
    assert error_of(nvml.nvmlDeviceGetTemperature, handle, 0) == 3
    assert error_of(nvml.nvmlDeviceGetRemappedRows, parent) == 3


def test_destroyed_device_leaves_a_stale_handle(node, nvml, mig, error_of):
    parent = nvml.nvmlDeviceGetHandleByIndex(0)
    handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 0)
    node.mig.destroy(0, mig.index)
    assert error_of(nvml.nvmlDeviceGetUUID, handle) == 2
    node.mig.create(0, "2g.20gb")
    assert error_of(nvml.nvmlDeviceGetUUID, handle) == 2


def test_change_is_an_event(node, nvml):
    node.mig.set_mode(0, on=True)
    events = nvml.nvmlEventSetCreate()
    nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(0), 0x100, events)
    node.mig.create(0, "3g.40gb")
    assert nvml.nvmlEventSetWait_v2(events, 0).eventType == 0x100


def test_impossible_devices_are_refused(node):
    with pytest.raises(Refused, match="not on"):
        node.mig.create(0, "1g.10gb")
    with pytest.raises(Refused, match="looks like"):
        node.mig.create(0, "small")
    node.mig.set_mode(0, on=True)
    for _ in range(7):
        node.mig.create(0, "1g.10gb")
    with pytest.raises(Refused, match="no room"):
        node.mig.create(0, "1g.10gb")
