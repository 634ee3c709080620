from __future__ import annotations

import re

import pytest
from device_api_fake_nvml import FakeNode, model_names
from device_api_fake_nvml.errors import GpuNotFound, NodeExists, NodeNotFound, Refused
from device_api_fake_nvml.identity import gpu_identity
from hypothesis import given, settings
from hypothesis import strategies as st


def uuids(nvml):
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    return [nvml.nvmlDeviceGetUUID(handle) for handle in handles]


def test_node_is_enumerated(node, nvml):
    assert uuids(nvml) == [gpu.uuid for gpu in node.gpus()]
    assert len(set(uuids(nvml))) == 8


def test_nothing_passes_for_hardware(nvml):
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3 (SIMULATED)"
    assert nvml.nvmlSystemGetDriverVersion() == "580.95.05-SIMULATED"
    assert nvml.nvmlSystemGetNVMLVersion().endswith("-SIMULATED")


def test_device_is_found_by_all_its_names(node, nvml):
    gpu = node.gpu(3)
    for handle in (
        nvml.nvmlDeviceGetHandleByUUID(gpu.uuid),
        nvml.nvmlDeviceGetHandleByPciBusId(gpu.bus_id),
        nvml.nvmlDeviceGetHandleByPciBusId(gpu.bus_id[4:].lower()),
    ):
        assert nvml.nvmlDeviceGetIndex(handle) == 3
        assert nvml.nvmlDeviceGetMinorNumber(handle) == 3
        assert nvml.nvmlDeviceGetSerial(handle) == gpu.serial


def test_absent_devices_are_refused(nvml, error_of):
    assert error_of(nvml.nvmlDeviceGetHandleByIndex, 8) == 2
    assert error_of(nvml.nvmlDeviceGetHandleByUUID, "GPU-none") == 6
    assert error_of(nvml.nvmlDeviceGetHandleByPciBusId, "0000:FF:00.0") == 6
    assert error_of(nvml.nvmlDeviceGetUUID, None) == 2


def test_pci_and_memory(nvml):
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    pci = nvml.nvmlDeviceGetPciInfo(handle)
    assert (pci.busId, pci.busIdLegacy) == ("00000000:1B:00.0", "0000:1B:00.0")
    assert (pci.bus, pci.pciDeviceId & 0xFFFF) == (0x1B, 0x10DE)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    assert memory.total == memory.free + memory.used + memory.reserved == 85520809984
    old = nvml.nvmlDeviceGetMemoryInfo(handle)
    assert old.total == old.free + old.used


@pytest.mark.parametrize("model", model_names())
def test_model_answers_or_says_not_supported(tmp_path, attach, error_of, model):
    with FakeNode.create(tmp_path / model, model=model) as node:
        nvml = attach(node)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        assert nvml.nvmlDeviceGetName(handle).endswith(" (SIMULATED)")
        assert nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0) == 0
        has = {
            "mig": error_of(nvml.nvmlDeviceGetMigMode, handle) == 0,
            "nvlink": error_of(nvml.nvmlDeviceGetNvLinkState, handle, 0) == 0,
            "remap": error_of(nvml.nvmlDeviceGetRemappedRows, handle) == 0,
            "retired": error_of(nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle) == 0,
            "t-limit": nvml.nvmlDeviceGetFieldValues(handle, [194])[0].nvmlReturn == 0,
            "margin": error_of(nvml.nvmlDeviceGetMarginTemperature, handle) == 0,
        }
        expected = {
            "a100": {"mig", "nvlink", "remap"},
            "b200": {"mig", "nvlink", "remap", "t-limit", "margin"},
            "gb200": {"mig", "nvlink", "remap", "t-limit", "margin"},
            "h100": {"mig", "nvlink", "remap", "t-limit", "margin"},
            "l40s": {"remap", "t-limit", "margin"},
            "t4": {"retired"},
        }
        assert {name for name, present in has.items() if present} == expected[model]


@given(seed=st.text(max_size=20), gpu=st.integers(0, 15), board=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_seed_decides_identity(seed, gpu, board):
    who = gpu_identity(seed, gpu, board)
    assert who == gpu_identity(seed, gpu, board)
    assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", who.uuid)
    assert who.uuid != gpu_identity(seed, gpu, board + 1).uuid
    assert who.bus_id == gpu_identity(seed, gpu, board + 1).bus_id


def test_node_without_gpus(tmp_path, attach):
    with FakeNode.create(tmp_path / "empty", gpus=0) as node:
        assert attach(node).nvmlDeviceGetCount() == 0


def test_node_is_made_once(node):
    with pytest.raises(NodeExists):
        FakeNode.create(node.root)


def test_node_is_opened_again(node):
    with FakeNode.open(node.root) as again:
        again.lose(2)
    assert node.gpu(2).lost == 15


def test_directory_without_node_is_refused(tmp_path):
    with pytest.raises(NodeNotFound):
        FakeNode.open(tmp_path)


def test_state_of_another_layout_is_refused(node):
    state = node.library.with_name("fake-nvml.state")
    state.write_bytes(b"x" * state.stat().st_size)
    with pytest.raises(NodeNotFound, match="another version"):
        FakeNode.open(node.root)


def test_gpu_is_found_by_number_or_uuid(node):
    assert node.find("4") == 4
    assert node.find(node.gpu(4).uuid.upper()) == 4
    for name in ("8", "GPU-none"):
        with pytest.raises(GpuNotFound):
            node.find(name)


def test_closed_node_is_refused(node):
    node.close()
    node.close()
    with pytest.raises(Exception, match="the node is closed"):
        node.lose(0)
    with pytest.raises(Exception, match="the node is closed"):
        node.signals.get(0, "temperature")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "k80"}, "no model 'k80'"),
        ({"gpus": 17}, "0 to 16 GPUs"),
        ({"driver_version": "1" * 41}, "1 to 40 bytes"),
        ({"seed": "s" * 64}, "at most 63 bytes"),
    ],
)
def test_impossible_node_is_refused_and_leaves_nothing(tmp_path, arguments, message):
    with pytest.raises(Refused, match=message):
        FakeNode.create(tmp_path / "node", **arguments)
    assert not (tmp_path / "node").exists()
