from __future__ import annotations

import pytest
from device_api_fake_nvml import FakeNode
from device_api_fake_nvml.errors import Refused
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("error", [15, 999])
def test_lost_gpu_fails_every_call_and_stays_in_the_count(node, nvml, error_of, error):
    handle = nvml.nvmlDeviceGetHandleByIndex(3)
    node.lose(3, error)
    assert nvml.nvmlDeviceGetCount() == 8
    assert error_of(nvml.nvmlDeviceGetUUID, handle) == error
    assert error_of(nvml.nvmlDeviceGetTemperature, handle, 0) == error
    assert error_of(nvml.nvmlDeviceGetFieldValues, handle, [230]) == error
    assert error_of(nvml.nvmlDeviceGetHandleByIndex, 3) == error
    assert error_of(nvml.nvmlDeviceGetHandleByUUID, node.gpu(3).uuid) == error
    assert error_of(nvml.nvmlDeviceGetUUID, nvml.nvmlDeviceGetHandleByIndex(4)) == 0
    node.restore(3)
    assert nvml.nvmlDeviceGetUUID(handle) == node.gpu(3).uuid


def test_removed_gpu_leaves_the_enumeration(node, nvml, error_of):
    handle = nvml.nvmlDeviceGetHandleByIndex(3)
    node.remove(3)
    assert nvml.nvmlDeviceGetCount() == 7
    assert error_of(nvml.nvmlDeviceGetUUID, handle) == 15
    assert error_of(nvml.nvmlDeviceGetHandleByUUID, node.gpu(3).uuid) == 6
    assert nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(3)) == node.gpu(4).uuid
    node.add(3)
    assert nvml.nvmlDeviceGetIndex(handle) == 3


def test_removing_twice_is_refused(node):
    node.remove(3)
    with pytest.raises(Refused, match="removed already"):
        node.remove(3)
    with pytest.raises(Refused, match="is removed"):
        node.reset(3)


def test_gpu_can_come_back_elsewhere(node, nvml):
    node.remove(0)
    node.add(0, index=7)
    assert node.gpu(0).index == 7
    assert node.gpu(1).index == 0


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["add", "remove"])), max_size=12))
@settings(max_examples=20, deadline=None)
def test_indices_are_always_dense(tmp_path_factory, steps):
    with FakeNode.create(tmp_path_factory.mktemp("node") / "n") as node:
        present = set(range(8))
        for gpu, step in steps:
            if step == "add" and gpu not in present:
                node.add(gpu)
                present.add(gpu)
            elif step == "remove" and gpu in present:
                node.remove(gpu)
                present.remove(gpu)
        indices = [gpu.index for gpu in node.gpus() if gpu.enumerated]
        assert indices == list(range(len(present)))


def test_replaced_gpu_is_another_board_in_the_same_place(node, nvml, error_of):
    before = node.gpu(2)
    old = nvml.nvmlDeviceGetHandleByIndex(2)
    node.health.count_ecc_errors(2, 5)
    new = node.replace(2)
    handle = nvml.nvmlDeviceGetHandleByPciBusId(before.bus_id)
    assert nvml.nvmlDeviceGetUUID(handle) == new != before.uuid
    assert nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 1) == 0
    assert error_of(nvml.nvmlDeviceGetUUID, old) == 15
    assert error_of(nvml.nvmlDeviceGetHandleByUUID, before.uuid) == 6


def test_reset_mends_what_a_reset_mends(node, nvml):
    handle = nvml.nvmlDeviceGetHandleByIndex(1)
    node.health.count_ecc_errors(1, 2)
    node.health.remap_row(1)
    node.signals.set(1, "recovery-action", 1)
    node.lose(1)
    node.reset(1, index=5, minor=9)
    assert nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0) == 0
    assert nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 1) == 2
    assert nvml.nvmlDeviceGetRemappedRows(handle) == (0, 1, 0, 0)
    assert nvml.nvmlDeviceGetFieldValues(handle, [230])[0].value.uiVal == 0
    assert nvml.nvmlDeviceGetIndex(handle) == 5
    assert nvml.nvmlDeviceGetMinorNumber(handle) == 9


def test_driver_reload_uninitialises_clients(node, nvml, error_of):
    events = nvml.nvmlEventSetCreate()
    node.reload_driver("590.10")
    assert error_of(nvml.nvmlDeviceGetCount) == 1
    assert error_of(nvml.nvmlEventSetWait, events, 0) == 1
    nvml.nvmlInit()
    assert nvml.nvmlSystemGetDriverVersion() == "590.10-SIMULATED"
    assert error_of(nvml.nvmlEventSetWait, events, 0) == 2


def test_stranded_client_must_start_anew(node, nvml, error_of, spawn):
    node.reload_driver("590.10", strand_clients=True)
    assert error_of(nvml.nvmlInit) == 18
    process = spawn(node, "nvmlInit(); print(nvmlSystemGetDriverVersion())")
    assert process.communicate(timeout=20)[0] == "590.10-SIMULATED\n"
